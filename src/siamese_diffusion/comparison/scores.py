"""Scores of a synthetic set against real ones, by name; one line of the table adds a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

from siamese_diffusion.core.registry import Registry
from siamese_diffusion.data.pairs import PairFolder

# (training pairs, held-out pairs, synthetic pairs) -> numbers by name
Score: TypeAlias = Callable[[PairFolder, PairFolder, PairFolder], dict[str, float]]

SCORES = Registry(
    "score",
    {
        "alignment": "siamese_diffusion.comparison.scores:alignment_scores",
    },
)

# Column heading of each number, and whether more is better; in the order of the table.
HEADINGS: dict[str, tuple[str, bool]] = {
    "alignment/dice": ("mask Dice", True),
    "alignment/above_shuffled": ("own mask beats another's", True),
}


def score(
    name: str, train: PairFolder, held_out: PairFolder, synthetic: PairFolder
) -> dict[str, float]:
    """The numbers of one score."""
    return cast("Score", SCORES[name])(train, held_out, synthetic)


def alignment_scores(
    train: PairFolder, held_out: PairFolder, synthetic: PairFolder
) -> dict[str, float]:
    """Dice of a segmenter that saw real pairs only; the same segmenter for every cell."""
    from siamese_diffusion.audit.alignment import alignment

    numbers = alignment(train, held_out, synthetic)
    names = {
        "alignment/dice": "dice_on_synthetic",
        "alignment/dice_shuffled": "dice_on_shuffled",
        "alignment/dice_real": "dice_on_real",
        "alignment/above_shuffled": "share_above_own_shuffled",
    }
    return {own: float(str(numbers[name])) for own, name in names.items()}
