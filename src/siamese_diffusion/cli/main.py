"""The verbs of `siamdiff`. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from siamese_diffusion.cli.audit import audit_app
from siamese_diffusion.cli.compare import compare
from siamese_diffusion.cli.mos import app as mos_app
from siamese_diffusion.cli.options import Base, Config, Device, MovedBase, Set
from siamese_diffusion.cli.plot import plot_app
from siamese_diffusion.cli.sample import sample
from siamese_diffusion.cli.score import compare_scores, filter_, score
from siamese_diffusion.cli.segment import segment_app, utility
from siamese_diffusion.core.errors import SiamDiffError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Synthetic image-mask pairs for medical segmentation. Errors: one line and a hint; "
    "--debug anywhere shows the traceback.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make and check data sets.")
app.add_typer(data_app, name="data")
app.add_typer(audit_app, name="audit")
app.add_typer(plot_app, name="plot")
app.add_typer(segment_app, name="segment")
app.command("score")(score)
app.command("compare-scores")(compare_scores)
app.command("filter")(filter_)
app.command("utility")(utility)
app.command("compare")(compare)
app.add_typer(mos_app, name="mos")


@data_app.command("phantom")
def data_phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    pairs: Annotated[int, typer.Option(help="Number of pairs.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the whole set.")] = 0,
    size: Annotated[int, typer.Option(help="Image size in pixels.")] = 256,
    centre: Annotated[str | None, typer.Option(help="Only this centre, a to e.")] = None,
) -> None:
    """Write procedural endoscopy-like images with masks."""
    from siamese_diffusion.core.progress import ProgressBar
    from siamese_diffusion.data.phantom import write_phantom

    with ProgressBar("phantom", pairs) as bar:
        write_phantom(
            out,
            pairs=pairs,
            seed=seed,
            size=size,
            centre=centre,
            progress=lambda done, total: bar.advance_to(done),
        )
    print(out)


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Data-set folder.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Tell what is in a folder, what is wrong with it and how to mend it; exit code 2 if broken."""
    import json

    from siamese_diffusion.data.check import check_folder

    report = check_folder(folder)
    print(json.dumps(report.as_dict(), indent=2) if json_ else report.text())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def pretrain(
    data: Annotated[Path, typer.Option(help="Folder with images; masks are not needed.")],
    out: Annotated[Path, typer.Option(help="Folder of the new base.")],
    split: Annotated[str | None, typer.Option(help="Use the stems of this list.")] = None,
    autoencoder: Annotated[
        Path | None, typer.Option(help="Use this autoencoder instead of training one.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Go on from this base (tiny, or a folder).")
    ] = None,
    config: Config = None,
    set_: Set = None,
    device: Device = None,
) -> None:
    """Train a small base of one's own from images alone."""
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.generators.pretraining import pretrain as run
    from siamese_diffusion.generators.settings import PretrainSettings

    settings = resolve(PretrainSettings, file=config, overrides=set_ or [])
    made = run(
        data, out, settings, split=split, autoencoder=autoencoder, start=start, device=device
    )
    print(made)


@app.command()
def fit(
    data: Annotated[Path, typer.Option(help="Data-set folder: images/, masks/, split lists.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; the same command continues it.")] = (
        None
    ),
    base: Base = "tiny",
    split: Annotated[
        str | None, typer.Option(help="Split list; default: train if there is one, else all.")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="Method; default siamese.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="paper (default), small, or more, joined by commas.")
    ] = None,
    config: Config = None,
    set_: Set = None,
    device: Device = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and stop.")
    ] = False,
) -> None:
    """Train a generator on image-mask pairs. Killed or stopped, the same command continues it."""
    from siamese_diffusion.core.errors import ConfigError
    from siamese_diffusion.generators.fitting import plan_fit, resolve_settings, run_plan

    if out is None and not dry_run:
        raise ConfigError("fit needs a run folder", hint="add --out RUN, or --dry-run to look only")
    asked, settings = resolve_settings(
        generator=generator, preset=preset, config=config, overrides=set_ or []
    )
    plan = plan_fit(data, base, settings=settings, asked=asked, split=split)
    if dry_run:
        from siamese_diffusion.generators.estimate import describe

        print(describe(plan))
        return
    assert out is not None
    print(run_plan(plan, out, device=device))


@app.command()
def plan(
    data: Annotated[Path, typer.Option(help="Data-set folder: images/, masks/, split lists.")],
    base: Base = "tiny",
    vram: Annotated[str | None, typer.Option(help="Memory of the GPU, e.g. 12GB.")] = None,
    device: Annotated[
        str | None, typer.Option(help="Take the memory of this GPU: cuda or cuda:0.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the training.")
    ] = "bf16",
    samples_per_second: Annotated[
        float | None, typer.Option(help="Speed to reckon hours from, measured or hoped for.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="Take the speed that this run logged.")] = None,
    split: Annotated[str | None, typer.Option(help="As of fit.")] = None,
    generator: Annotated[str | None, typer.Option(help="Method; default siamese.")] = None,
    preset: Annotated[str | None, typer.Option(help="paper (default) or small.")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Say with which settings a fit would fit a GPU's memory, and how long it would take."""
    from siamese_diffusion.core.errors import ConfigError
    from siamese_diffusion.generators import planning
    from siamese_diffusion.generators.fitting import plan_fit, resolve_settings

    if samples_per_second is not None and samples_per_second <= 0:
        raise ConfigError(f"--samples-per-second {samples_per_second} must be positive")
    if vram is not None and device is not None:
        raise ConfigError(
            f"--vram {vram} and --device {device} both say how much memory there is",
            hint="give one of them",
        )
    memory = planning.device_memory(device) if vram is None else planning.parse_memory(vram)
    speed = planning.samples_per_second(like) if like is not None else samples_per_second
    asked, settings = resolve_settings(
        generator=generator, preset=preset, config=config, overrides=set_ or []
    )
    of_fit = plan_fit(data, base, settings=settings, asked=asked, split=split)
    chosen = planning.choose(of_fit, memory, precision=precision)
    print(planning.describe(of_fit, chosen, speed))


app.command("sample")(sample)


@app.command("import")
def import_(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth of the authors' release.")],
    out: Annotated[Path, typer.Option(help="Run folder.")],
    base: Annotated[str, typer.Option(help="What it was trained from; gives what the file lacks.")],
    size: Annotated[
        int | None, typer.Option(help="Image size in pixels; default 384, or a smaller base's.")
    ] = None,
    prompt: Annotated[str, typer.Option(help="The prompt it was trained with.")] = (
        "A photo of a polyp."
    ),
) -> None:
    """Turn a checkpoint of the authors' release into a run folder."""
    from siamese_diffusion.interchange.release import import_release

    done = import_release(checkpoint, out, base=base, size=size, prompt=prompt)
    print(done.keys.text())
    if done.carried:
        print(f"differs from the base, so the run carries its own: {', '.join(done.carried)}")
    print(done.run)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Argument(help="New folder (diffusers) or file (release).")],
    to: Annotated[
        Literal["diffusers", "release"],
        typer.Option(help="A diffusers pipeline, or one checkpoint in the release's names."),
    ] = "diffusers",
    base: MovedBase = None,
) -> None:
    """Write a trained run for use without this package."""
    from siamese_diffusion.interchange.export import export_run

    print(export_run(run, out, to=to, base=base))


@app.command()
def report(
    sources: Annotated[list[Path], typer.Argument(help="Runs, sets, scores, audits, results.")],
    out: Annotated[Path | None, typer.Option(help="Default: report.html in the first.")] = None,
) -> None:
    """Write one self-contained HTML page about runs, synthetic sets and their results."""
    from siamese_diffusion.generators.settings import SiameseFitSettings
    from siamese_diffusion.reports.html import write_report
    from siamese_diffusion.segmentation.utility_curve import paired_gain

    defaults = SiameseFitSettings().model_dump(mode="json")
    print(write_report(sources, out, defaults=defaults, pairing=paired_gain))


@app.command()
def doctor() -> None:
    """Look at the installation and say what to mend; exit code 2 if something is broken."""
    from siamese_diffusion.cli.doctor import examine

    text, ok = examine()
    print(text)
    if not ok:
        raise typer.Exit(2)


def main() -> None:
    """Entry point: settings for libraries, and errors as one line plus a hint."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # Bars and remarks of libraries would bury ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("siamese_diffusion").setLevel(logging.INFO)
    try:
        app()
    except SiamDiffError as error:
        if debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)
