"""The verbs of `siamdiff`. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True, help="Make and check data sets.")
app.add_typer(data_app, name="data")


@data_app.command("phantom")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    pairs: Annotated[int, typer.Option(help="Number of pairs.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the whole set.")] = 0,
    size: Annotated[int, typer.Option(help="Image size in pixels.")] = 256,
    centre: Annotated[str | None, typer.Option(help="Only this centre, a to e.")] = None,
) -> None:
    """Write procedural endoscopy-like images with masks."""
    from siamese_diffusion.data.phantom import write_phantom

    write_phantom(out, pairs=pairs, seed=seed, size=size, centre=centre)


@app.command()
def pretrain(
    data: Annotated[Path, typer.Option(help="Folder with images; masks are not needed.")],
    out: Annotated[Path, typer.Option(help="Folder of the new base.")],
    split: Annotated[str | None, typer.Option(help="Use the stems of this list.")] = None,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Use this autoencoder instead of training one.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=value.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
) -> None:
    """Train a small base from images alone."""
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.generators.pretraining import pretrain as run
    from siamese_diffusion.generators.settings import PretrainSettings

    settings = resolve(PretrainSettings, file=config, overrides=set_ or [])
    print(run(data, out, settings, split=split, autoencoder=autoencoder, device=device))


def main() -> None:
    """Entry point."""
    app()
