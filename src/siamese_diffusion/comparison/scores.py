"""Scores of a synthetic set against real ones, by name; one line of the table adds a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from siamese_diffusion.core.registry import Registry
from siamese_diffusion.data.pairs import PairFolder


@dataclass(frozen=True)
class Sets:
    """What a score may look at.

    Attributes:
        train, held_out: Real pairs that all methods were trained on, and that none was.
        reference: The real pairs whose masks were sampled.
        synthetic: The pairs made of them.
        weights: Weights file of each extractor given.
    """

    train: PairFolder
    held_out: PairFolder
    reference: PairFolder
    synthetic: PairFolder
    weights: Mapping[str, Path] = field(default_factory=dict)


Score: TypeAlias = Callable[[Sets], dict[str, float]]  # numbers by name

SCORES = Registry(
    "score",
    {
        "alignment": "siamese_diffusion.comparison.scores:alignment_scores",
        "fidelity": "siamese_diffusion.comparison.scores:fidelity_scores",
        "likeness": "siamese_diffusion.comparison.scores:likeness_scores",
    },
)
# What a score needs beyond the pairs: without it, it is left out.
NEEDS = {"fidelity": "inception", "likeness": "lpips-alex"}

# Column heading of each number, and whether more is better; in the order of the table.
HEADINGS: dict[str, tuple[str, bool]] = {
    "alignment/dice": ("mask Dice", True),
    "alignment/above_shuffled": ("own mask beats another's", True),
    "fidelity/fid": ("FID", False),
    "fidelity/kid": ("KID x 1000", False),
    "fidelity/density": ("density", True),
    "fidelity/coverage": ("coverage", True),
    "likeness/lpips": ("LPIPS to the mask's own image", False),
}


def wanted(weights: Mapping[str, Path]) -> list[str]:
    """Names of the scores that can be had with these extractors."""
    return [name for name in SCORES if NEEDS.get(name) in (None, *weights)]


def score(name: str, sets: Sets) -> dict[str, float]:
    """The numbers of one score."""
    return cast("Score", SCORES[name])(sets)


def alignment_scores(sets: Sets) -> dict[str, float]:
    """Dice of a segmenter that saw real pairs only; the same segmenter for every cell."""
    from siamese_diffusion.audit.alignment import alignment

    numbers = alignment(sets.train, sets.held_out, sets.synthetic)
    names = {
        "alignment/dice": "dice_on_synthetic",
        "alignment/dice_shuffled": "dice_on_shuffled",
        "alignment/dice_real": "dice_on_real",
        "alignment/above_shuffled": "share_above_own_shuffled",
    }
    return {own: float(str(numbers[name])) for own, name in names.items()}


def fidelity_scores(sets: Sets) -> dict[str, float]:
    """FID, KID, density and coverage of the synthetic images against the training images.

    All methods have the same counts, so that the bias of FID in them is the same.
    """
    found = _measure(sets.train, sets, ("fid", "kid", "prdc"))
    kept = {name: found[name] for name in ("fid", "density", "coverage")}
    return {f"fidelity/{k}": v for k, v in {**kept, "kid": 1000 * found["kid"]}.items()}


def likeness_scores(sets: Sets) -> dict[str, float]:
    """LPIPS of each synthetic image to the real image of its mask; 0 for a copy."""
    return {"likeness/lpips": _measure(sets.reference, sets, ("lpips",))["lpips"]}


def _measure(real: PairFolder, sets: Sets, metrics: tuple[str, ...]) -> dict[str, float]:
    from siamese_diffusion.metrics.scoring import score as measure
    from siamese_diffusion.metrics.settings import ScoreSettings

    report = measure(
        real.root,
        sets.synthetic.root,
        metrics=metrics,
        settings=ScoreSettings(bootstrap=0, floor_splits=0),
        weights=sets.weights,
        split=real.split,
        progress=False,
    )
    return {value.measurement.name: value.measurement.value for value in report.values}
