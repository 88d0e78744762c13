"""Alignment by cross-fitting: no image is judged by a network that saw it, or its mask's image.

The real pairs are cut into folds, and one segmenter is trained without each. A real pair is judged
by the segmenter that was trained without it; a synthetic pair by the one that was trained without
the real pair of its mask, since that is what the generator was shown; a synthetic pair of a foreign
mask by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from siamese_diffusion.audit.alignment import dice
from siamese_diffusion.audit.boundary import boundary_distance
from siamese_diffusion.audit.segmenter import as_tensors, derangement, predict, train_segmenter
from siamese_diffusion.core.config import Settings
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.metrics.statistics import Real

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


class AlignmentSettings(Settings):
    """How the segmenters are trained."""

    folds: int = Field(default=3, ge=2, le=20)
    """Parts of the real set; as many segmenters are trained."""
    size: int = Field(default=64, ge=32, le=512, multiple_of=8)
    """Side in pixels at which they work."""
    steps: int = Field(default=300, ge=1)
    """Updates of 16 pairs each."""
    seed: int = Field(default=0, ge=0)
    """Of folds, weights, order, flips and shuffling."""


@dataclass(frozen=True)
class PairScore:
    """How well one pair is aligned.

    Attributes:
        stem: Of the pair.
        dice: In [0, 1], mean over its judges.
        boundary: Distance of the outlines over the diagonal, in [0, 1], mean over its judges.
        judges: How many segmenters judged it.
    """

    stem: str
    dice: float
    boundary: float
    judges: int


@dataclass(frozen=True)
class AlignmentReport:
    """Scores of every pair; `found` are the judged outlines (m, size, size) of synthetic ones."""

    synthetic: tuple[PairScore, ...]
    real: tuple[PairScore, ...]
    shuffled_dice: float
    floor: float
    found: np.ndarray
    settings: AlignmentSettings

    def as_dict(self) -> dict[str, object]:
        """As a JSON object."""
        below = [s.stem for s in self.synthetic if s.dice < self.floor]
        return {
            "dice_on_synthetic": _mean(self.synthetic, "dice"),
            "dice_on_real": _mean(self.real, "dice"),
            "dice_on_shuffled": self.shuffled_dice,
            "boundary_on_synthetic": _mean(self.synthetic, "boundary"),
            "boundary_on_real": _mean(self.real, "boundary"),
            "dice_quantiles": {
                "quantiles": list(QUANTILES),
                "synthetic": _quantiles(self.synthetic),
                "real": _quantiles(self.real),
            },
            "poor_below_dice": self.floor,
            "poor_share": len(below) / len(self.synthetic),
            "poor": below,
            "n_synthetic": len(self.synthetic),
            "n_real": len(self.real),
            "pairs": [
                {"stem": s.stem, "dice": s.dice, "boundary": s.boundary, "judges": s.judges}
                for s in self.synthetic
            ],
            "real_pairs": [
                {"stem": s.stem, "dice": s.dice, "boundary": s.boundary} for s in self.real
            ],
            "segmenter": "SmallUNet, cross-fitted on real pairs only",
            "settings": self.settings.model_dump(mode="json"),
        }

    def text(self) -> str:
        """A summary for people."""
        content = self.as_dict()
        return "\n".join(
            [
                f"Dice of {self.settings.folds} segmenters that saw neither the image nor the real "
                "image of its mask:",
                f"  {len(self.synthetic)} synthetic pairs    {content['dice_on_synthetic']:.4f}",
                f"  with shuffled masks    {self.shuffled_dice:.4f}",
                f"  {len(self.real)} real pairs    {content['dice_on_real']:.4f}",
                f"boundary distance: synthetic {content['boundary_on_synthetic']:.4f}, real "
                f"{content['boundary_on_real']:.4f} of the diagonal",
                f"{content['poor_share']:.1%} of synthetic pairs are below the worst 5 % of real "
                f"ones (Dice {self.floor:.4f})",
            ]
        )


def cross_fitted_alignment(
    real: PairFolder,
    synthetic: PairFolder,
    *,
    mask_stems: Sequence[str] | None = None,
    settings: AlignmentSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> AlignmentReport:
    """Score every synthetic pair by segmenters trained on real pairs only.

    Args:
        real: Real pairs, those of the generator's training.
        synthetic: Pairs to judge.
        mask_stems: Stem of the real pair whose mask each synthetic pair has, in its order; by
            default its own stem.
        settings: Folds, size, steps and seed.
        progress: Called with (done, total) over the updates of all segmenters.

    Raises:
        DataError: If there are too few pairs, or one cannot be read.
    """
    settings = settings or AlignmentSettings()
    if len(real) < settings.folds:
        raise DataError(
            f"'{real.root}' has {len(real)} pairs, fewer than the {settings.folds} folds",
            hint=f"give more pairs, or --set folds={max(2, len(real))}",
        )
    if len(synthetic) < 2:
        raise DataError(f"'{synthetic.root}' has {len(synthetic)} pairs; alignment needs 2 or more")
    real_image, real_mask = as_tensors(real, settings.size)
    image, mask = as_tensors(synthetic, settings.size)
    fold_of = assign_folds(len(real), settings)
    stems = list(mask_stems if mask_stems is not None else synthetic.stems)
    home = dict(zip(real.stems, fold_of, strict=True))
    order = derangement(len(mask), settings.seed)
    sums = np.zeros((3, len(mask)))  # dice, boundary, dice with another mask
    judges = np.zeros(len(mask), dtype=int)
    found = np.zeros((len(mask), settings.size, settings.size), dtype=bool)
    real_scores: dict[int, PairScore] = {}
    for fold in range(settings.folds):
        inside = [row for row, f in enumerate(fold_of) if f == fold]
        outside = [row for row, f in enumerate(fold_of) if f != fold]
        network = train_segmenter(
            real_image[outside],
            real_mask[outside],
            steps=settings.steps,
            seed=derive_seed(settings.seed, "fold", fold) % 2**31,
            progress=_part(progress, fold, settings),
        )
        maps = predict(network, real_image[inside])
        scores = zip(inside, *_scores(maps, real_mask[inside]), strict=True)
        for row, one_dice, one_boundary in scores:
            real_scores[row] = PairScore(real.stems[row], float(one_dice), float(one_boundary), 1)
        mine = [row for row, stem in enumerate(stems) if home.get(stem, fold) == fold]
        if not mine:
            continue
        maps = predict(network, image[mine])
        sums[:2, mine] += np.stack(_scores(maps, mask[mine]))
        sums[2, mine] += dice(maps, mask[[order[row] for row in mine]]).numpy()
        judges[mine] += 1
        found[mine] = maps[:, 0].numpy()
    means = sums / judges
    made = tuple(
        PairScore(stem, float(means[0, row]), float(means[1, row]), int(judges[row]))
        for row, stem in enumerate(synthetic.stems)
    )
    judged = tuple(real_scores[row] for row in range(len(real)))
    floor = float(np.quantile([score.dice for score in judged], QUANTILES[0]))
    return AlignmentReport(made, judged, float(means[2].mean()), floor, found, settings)


def assign_folds(n: int, settings: AlignmentSettings) -> list[int]:
    """A seeded fold of each of `n` real pairs; sizes differ by one at most."""
    rng = np.random.default_rng(derive_seed(settings.seed, "folds"))
    folds = np.empty(n, dtype=int)
    folds[rng.permutation(n)] = np.arange(n) % settings.folds
    return [int(fold) for fold in folds]


def _scores(found: Tensor, mask: Tensor) -> tuple[Real, Real]:
    boundaries = [
        boundary_distance(a[0].numpy(), b[0].numpy()) for a, b in zip(found, mask, strict=True)
    ]
    return dice(found, mask).to(torch.float64).numpy(), np.array(boundaries)


def _part(
    progress: Callable[[int, int], None] | None, fold: int, settings: AlignmentSettings
) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    total = settings.folds * settings.steps
    return lambda done, _: progress(fold * settings.steps + done, total)


def _mean(scores: Sequence[PairScore], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def _quantiles(scores: Sequence[PairScore]) -> list[float]:
    return [float(q) for q in np.quantile([score.dice for score in scores], QUANTILES)]
