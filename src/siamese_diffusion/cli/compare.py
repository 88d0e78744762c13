"""`siamdiff compare`: several methods on equal terms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from siamese_diffusion.cli.options import Base, Device, Set


def compare(
    generators: Annotated[str, typer.Option(help="Names of methods, joined by commas.")],
    data: Annotated[Path, typer.Option(help="Data-set folder with training and held-out lists.")],
    out: Annotated[Path, typer.Option(help="Folder of cells, table and panel; repeat to go on.")],
    scale: Annotated[
        Literal["small", "paper"], typer.Option(help="For a CPU, or the paper's settings.")
    ] = "small",
    seeds: Annotated[int, typer.Option(help="Trainings a method.")] = 1,
    base: Base = "tiny",
    split: Annotated[str | None, typer.Option(help="Training list; default: train.")] = None,
    held_out: Annotated[str, typer.Option(help="List that nothing is trained on.")] = "val",
    mask_split: Annotated[
        str | None, typer.Option(help="List whose masks are sampled; default: that of training.")
    ] = None,
    masks: Annotated[
        int | None, typer.Option(help="So many of these masks, evenly spaced; default: all.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates instead of the scale's.")] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option(help="inception=PATH adds FID and KID, lpips-alex=PATH LPIPS; repeatable."),
    ] = None,
    set_: Set = None,
    device: Device = None,
) -> None:
    """Fit, sample and score several methods on equal terms; a table and a panel. Resumable."""
    from siamese_diffusion.comparison.compare import compare as run_compare
    from siamese_diffusion.comparison.settings import CompareSettings
    from siamese_diffusion.core.config import build
    from siamese_diffusion.metrics.scoring import parse_weights

    settings = build(
        CompareSettings,
        {
            "generators": [name.strip() for name in generators.split(",") if name.strip()],
            "seeds": seeds,
            "scale": scale,
            "base": base,
            "split": split,
            "held_out": held_out,
            "mask_split": mask_split,
            "masks": masks,
            "steps": steps,
            "extractors": parse_weights(extractor or []),
            "overrides": set_ or [],
        },
    )
    table = run_compare(data, out, settings, device=device)
    print(table.read_text(encoding="utf-8"))
    print(f"{table}\n{table.parent / 'panel.png'}")
