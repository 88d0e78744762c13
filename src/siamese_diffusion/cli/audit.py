"""`siamdiff audit`: does a synthetic set copy, and do its images follow their masks?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from siamese_diffusion.cli.options import Config, Device, FlatSet

audit_app = typer.Typer(no_args_is_help=True, help="Check a synthetic set against the real one.")

Real = Annotated[Path, typer.Option(help="Real images; its list train.txt if there is one.")]
Synthetic = Annotated[Path, typer.Option(help="Synthetic set.")]
Out = Annotated[Path, typer.Option(help="Folder for the result and its pictures.")]
Split = Annotated[str | None, typer.Option(help="Split list of the real folder.")]


@audit_app.command("memorisation")
def memorisation(
    real: Real,
    synthetic: Synthetic,
    out: Out,
    holdout: Annotated[
        Path | None, typer.Option(help="Real images that the generator has not seen.")
    ] = None,
    split: Split = None,
    holdout_split: Annotated[str | None, typer.Option(help="Of the hold-out folder.")] = None,
    extractor: Annotated[
        str | None, typer.Option(help="NAME=PATH: look through its features too, not only pixels.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the feature cache.")] = None,
    config: Config = None,
    set_: FlatSet = None,
    device: Device = None,
) -> None:
    """List near copies of training images, with a verdict whose error rate is known."""
    from siamese_diffusion.audit.memorisation import MemorisationSettings
    from siamese_diffusion.audit.memorisation import memorisation as run
    from siamese_diffusion.audit.writing import memorisation_text, write_memorisation
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.core.progress import ProgressBar
    from siamese_diffusion.metrics.sets import open_real, open_set

    settings = resolve(MemorisationSettings, file=config, overrides=set_ or [])
    train, made = open_real(real, split=split), open_set(synthetic)
    held = None if holdout is None else open_set(holdout, split=holdout_split)
    extra = None
    if extractor is not None:
        from siamese_diffusion.audit.feature_space import open_space

        extra = open_space(extractor, cache=cache, device=device)
    passes = 1 if extra is None else 2
    images = passes * (len(made) + len(train if held is None else held))
    with ProgressBar("memorisation", images) as bar:
        report = run(
            train,
            made,
            holdout=held,
            settings=settings,
            extra=extra,
            extra_name="features" if extra is None else extra.name,
            progress=lambda done, total: bar.advance_to(done),
        )
    write_memorisation(
        report,
        train,
        made,
        out,
        holdout=held,
        extractor=None if extra is None else extra.record(),
    )
    print(memorisation_text(report))


@audit_app.command("alignment")
def alignment(
    real: Annotated[Path, typer.Option(help="Real pairs; its list train.txt if there is one.")],
    synthetic: Annotated[Path, typer.Option(help="Synthetic pairs.")],
    out: Out,
    split: Split = None,
    config: Config = None,
    set_: FlatSet = None,
) -> None:
    """Do images show their masks? Asked of segmenters that saw neither them nor their originals."""
    from siamese_diffusion.audit.crossfit import AlignmentSettings, cross_fitted_alignment
    from siamese_diffusion.audit.writing import write_alignment
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.core.progress import ProgressBar
    from siamese_diffusion.data.listing import split_lists
    from siamese_diffusion.data.pairs import PairFolder
    from siamese_diffusion.metrics.sets import open_set

    settings = resolve(AlignmentSettings, file=config, overrides=set_ or [])
    if split is None and real.is_dir() and "train" in split_lists(real):
        split = "train"
    pairs, made = PairFolder.open(real, split=split), PairFolder.open(synthetic)
    with ProgressBar("segmenters", settings.folds * settings.steps) as bar:
        report = cross_fitted_alignment(
            pairs,
            made,
            mask_stems=[file.mask_stem for file in open_set(synthetic).files],
            settings=settings,
            progress=lambda done, total: bar.advance_to(done),
        )
    write_alignment(report, pairs, made, out)
    print(report.text())


@audit_app.command("artefacts")
def artefacts(
    real: Real,
    synthetic: Synthetic,
    out: Out,
    split: Split = None,
    config: Config = None,
    set_: FlatSet = None,
) -> None:
    """List images whose plain statistics are unlike those of real ones: blank, blurred, noisy."""
    from siamese_diffusion.audit.artefacts import ArtefactSettings
    from siamese_diffusion.audit.artefacts import artefacts as run
    from siamese_diffusion.audit.writing import write_artefacts
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.metrics.sets import open_real, open_set

    settings = resolve(ArtefactSettings, file=config, overrides=set_ or [])
    given, made = open_real(real, split=split), open_set(synthetic)
    report = run(given, made, settings)
    write_artefacts(report, given, made, out)
    print(report.text())
