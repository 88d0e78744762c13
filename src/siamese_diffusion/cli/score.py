"""`siamdiff score`, `compare-scores`, `filter`: numbers of a set, and what to keep of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def score(
    real: Annotated[Path, typer.Option(help="Real images; its list train.txt if there is one.")],
    synthetic: Annotated[Path, typer.Option(help="Synthetic set, or any folder of images.")],
    out: Annotated[Path | None, typer.Option(help="Score file to write, JSON.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Names with commas; also lpips-cross, clip-i-paired, mixing, ...")
    ] = "fid,kid,clip-i,lpips,cmmd,prdc",
    holdout: Annotated[
        Path | None, typer.Option(help="Real images that the generator has not seen.")
    ] = None,
    extractor: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH of weights; repeatable. Never downloaded.")
    ] = None,
    protocol: Annotated[
        Literal["all", "paper"] | None,
        typer.Option(help="paper: training images against one synthetic image per mask."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split list of the real folder.")] = None,
    synthetic_split: Annotated[str | None, typer.Option(help="Of the synthetic folder.")] = None,
    holdout_split: Annotated[str | None, typer.Option(help="Of the hold-out folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the feature cache.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with settings.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, key=value; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: what is there.")] = None,
) -> None:
    """Compare a synthetic with a real set; each value with its interval, floor and passport."""
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.metrics.scoring import parse_weights
    from siamese_diffusion.metrics.scoring import score as run_score
    from siamese_diffusion.metrics.settings import ScoreSettings

    overrides = [*(set_ or []), *([f"protocol={protocol}"] if protocol else [])]
    found = run_score(
        real,
        synthetic,
        metrics=[name.strip() for name in metrics.split(",") if name.strip()],
        settings=resolve(ScoreSettings, file=config, overrides=overrides),
        weights=parse_weights(extractor or []),
        holdout=holdout,
        split=split,
        synthetic_split=synthetic_split,
        holdout_split=holdout_split,
        out=out,
        cache=cache,
        device=device,
    )
    print(found.text())


def compare_scores(
    scores: Annotated[list[Path], typer.Argument(help="Files written by score --out.")],
) -> None:
    """Score files side by side; values of different passports are refused."""
    from siamese_diffusion.metrics.passport import comparison_text

    print(comparison_text(scores))


def filter_(
    synthetic: Annotated[Path, typer.Argument(help="Audited synthetic set.")],
    audit: Annotated[Path, typer.Option(help="Folder that its audits were written to.")],
    out: Annotated[Path, typer.Option(help="New folder for the pairs that pass.")],
    keep: Annotated[
        list[str],
        typer.Option(help="dice=0.6, boundary=0.05, aligned, original or clean."),
    ],
) -> None:
    """Copy the pairs that passed their audits, with the reasons for all others."""
    from siamese_diffusion.audit.filtering import filter_set, parse_rules

    done = filter_set(synthetic, audit, parse_rules(keep), out)
    for rule, count in done.reasons.items():
        print(f"{count} rejected by {rule}")
    print(f"{done.out}: {done.kept} kept, {done.rejected} rejected")
