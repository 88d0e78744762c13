"""`siamdiff plot`: figures of real and synthetic sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

plot_app = typer.Typer(no_args_is_help=True, help="Draw figures of real and synthetic sets.")


@plot_app.callback()
def _group() -> None:
    """Keep `tsne` a verb of its own although it is the only one."""


@plot_app.command("tsne")
def tsne(
    real: Annotated[Path, typer.Option(help="Real images; its list train.txt if there is one.")],
    synthetic: Annotated[
        list[str], typer.Option(help="FOLDER or NAME=FOLDER; one panel each, repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Figure: .png, .svg or .pdf; numbers beside it.")],
    extractor: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of weights. Never downloaded.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split list of the real folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the feature cache.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, key=value.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: what there is.")] = None,
) -> None:
    """Real and synthetic images in one plane, as in Fig. 4, with their neighbour mixing."""
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.metrics.extractors import require_path
    from siamese_diffusion.metrics.features import NetworkBench
    from siamese_diffusion.metrics.scoring import default_cache, parse_weights, pick_device
    from siamese_diffusion.metrics.sets import open_real, open_set
    from siamese_diffusion.metrics.tsne_figure import TsneSettings, plot_tsne, require_drawable

    require_drawable(out)
    settings = resolve(TsneSettings, file=config, overrides=set_ or [])
    weights = parse_weights(extractor or [])
    require_path(settings.fidelity, weights.get(settings.fidelity), wanted_by="plot tsne")
    methods = []
    for text in synthetic:
        name, separator, folder = text.partition("=")
        path = Path(folder if separator else text)
        methods.append((name if separator else path.name, open_set(path)))
    bench = NetworkBench(
        settings, weights, cache=cache or default_cache(), device=pick_device(device)
    )
    found = plot_tsne(open_real(real, split=split), methods, bench, settings, out)
    for name, value in found.items():
        print(f"{name}: mixing {value:.4f}")
    print(out)
