"""The verbs of `siamdiff mos`: prepare, serve and analyse a rating study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Rating study: do experts take images for real?")

StudyFolder = Annotated[Path, typer.Argument(help="Study folder, made by prepare.")]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="SIAMDIFF_MOS_STORE",
        show_envvar=True,
        help="SQLAlchemy URL of the ratings; default: a SQLite file in the study folder.",
    ),
]


@app.command()
def prepare(
    real: Annotated[Path, typer.Option(help="Folder of real images.")],
    synthetic: Annotated[
        list[str], typer.Option(help="NAME=FOLDER, once per method; the name stays in the key.")
    ],
    out: Annotated[Path, typer.Option(help="New study folder: all that the server needs.")],
    key: Annotated[
        Path | None, typer.Option(help="New folder of key and links; default: OUT-key beside it.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Real images of this list only.")] = None,
    raters: Annotated[int, typer.Option(help="Number of raters, each with a personal link.")] = 3,
    per_source: Annotated[int, typer.Option(help="Images from each set, also the real one.")] = 50,
    repeats: Annotated[int, typer.Option(help="Images that a rater sees twice.")] = 5,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels; default: the smallest side drawn.")
    ] = None,
    jpeg_quality: Annotated[
        int | None, typer.Option(help="Compress all alike; default: lossless PNG.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of draws and orders; default: random, kept in the key.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the pages.")] = "Image rating study",
    base_url: Annotated[
        str, typer.Option(help="Where raters will reach the server.")
    ] = "http://127.0.0.1:8765",
) -> None:
    """Draw images, strip and shuffle them; the key and the links go to a folder of their own."""
    from siamese_diffusion.mos.prepare import parse_sources
    from siamese_diffusion.mos.prepare import prepare as run

    done = run(
        real,
        parse_sources(synthetic),
        out,
        key=key,
        split=split,
        raters=raters,
        per_source=per_source,
        repeats=repeats,
        size=size,
        jpeg_quality=jpeg_quality,
        seed=seed,
        title=title,
        base_url=base_url,
    )
    for note in done.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(
        f"{done.study}: {done.images} images at {done.size} px, {done.screens} screens a rater\n"
        f"{done.key}: the key and the links of {raters} raters; keep it away from the server\n"
        f"next: siamdiff mos serve {done.study}"
    )


@app.command()
def serve(
    study: StudyFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen at; the default is this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 8765,
    store: StoreUrl = None,
) -> None:
    """Serve the study to its raters until stopped; the same command continues it."""
    from siamese_diffusion.mos.serving import serve as run

    run(study, host=host, port=port, store=store)


@app.command()
def analyse(
    study: StudyFolder,
    key: Annotated[
        Path | None, typer.Option(help="Folder of the key; default: STUDY-key beside it.")
    ] = None,
    store: StoreUrl = None,
    out: Annotated[Path | None, typer.Option(help="JSON file with every number.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Folder for one table of ratings per rater.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Draws of bootstrap and permutations.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of these draws.")] = 0,
) -> None:
    """Unblind the ratings: MOS, confidence, agreement and comparisons; also of a running study."""
    from siamese_diffusion.mos.report import analyse_study

    print(
        analyse_study(study, key=key, store=store, out=out, csv=csv, resamples=resamples, seed=seed)
    )
