"""Alignment by cross-fitting: no image is judged by a network that saw it, or its mask's image.

The real pairs are cut into folds, and one segmenter is trained without each. A real pair is judged
by the segmenter that was trained without it; a synthetic pair by the one that was trained without
the real pair of its mask, since that is what the generator was shown; a synthetic pair of a foreign
mask by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from siamese_diffusion.audit.alignment import dice
from siamese_diffusion.audit.boundary import boundary_distance
from siamese_diffusion.audit.segmenter import as_tensors, derangement, predict, train_segmenter
from siamese_diffusion.audit.small_unet import SmallUNet
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


@dataclass(frozen=True)
class Judges:
    """Segmenters that were each trained without one fold of the real pairs.

    Attributes:
        networks: One a fold.
        home: Fold of every real stem.
        real: Scores of the real pairs, each by the segmenter that did not see it.
        other_mask: A real mask (1, 1, size, size) bool, for a set without a second pair.
        settings: How they were trained.
    """

    networks: tuple[SmallUNet, ...]
    home: Mapping[str, int]
    real: tuple[PairScore, ...]
    other_mask: Tensor
    settings: AlignmentSettings

    def judge(
        self, synthetic: PairFolder, *, mask_stems: Sequence[str] | None = None
    ) -> AlignmentReport:
        """Score a set; of a single pair the anchor is Dice with a real mask.

        Args:
            synthetic: Pairs to judge.
            mask_stems: As of `cross_fitted_alignment`.

        Raises:
            DataError: If a pair cannot be read.
        """
        stems = synthetic.stems
        return self._judge(stems, mask_stems or stems, *as_tensors(synthetic, self.settings.size))

    def _judge(
        self, names: Sequence[str], mask_stems: Sequence[str], image: Tensor, mask: Tensor
    ) -> AlignmentReport:
        n, size = len(mask), self.settings.size
        others = mask[derangement(n, self.settings.seed)] if n > 1 else self.other_mask
        sums = np.zeros((3, n))  # dice, boundary, dice with another mask
        judges = np.zeros(n, dtype=int)
        found = np.zeros((n, size, size), dtype=bool)
        for fold, network in enumerate(self.networks):
            mine = [r for r, stem in enumerate(mask_stems) if self.home.get(stem, fold) == fold]
            if not mine:
                continue
            maps = predict(network, image[mine])
            sums[:2, mine] += np.stack(_scores(maps, mask[mine]))
            sums[2, mine] += dice(maps, others[mine]).numpy()
            judges[mine] += 1
            found[mine] = maps[:, 0].numpy()
        means = sums / judges
        made = tuple(
            PairScore(name, float(means[0, row]), float(means[1, row]), int(judges[row]))
            for row, name in enumerate(names)
        )
        floor = float(np.quantile([score.dice for score in self.real], QUANTILES[0]))
        shuffled = float(means[2].mean())
        return AlignmentReport(made, self.real, shuffled, floor, found, self.settings)


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
    require_folds(real, settings)
    if len(synthetic) < 2:
        raise DataError(f"'{synthetic.root}' has {len(synthetic)} pairs; alignment needs 2 or more")
    made = as_tensors(synthetic, settings.size)  # read before the work: a pair may be damaged
    judges = train_judges(real, settings, progress=progress)
    return judges._judge(synthetic.stems, mask_stems or synthetic.stems, *made)


def require_folds(real: PairFolder, settings: AlignmentSettings) -> None:
    """Refuse fewer real pairs than folds.

    Raises:
        DataError: Naming both numbers.
    """
    if len(real) < settings.folds:
        raise DataError(
            f"'{real.root}' has {len(real)} pairs, fewer than the {settings.folds} folds",
            hint=f"give more pairs, or --set folds={max(2, len(real))}",
        )


def train_judges(
    real: PairFolder,
    settings: AlignmentSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Judges:
    """Train the segmenters, which may then judge any number of sets.

    Args:
        real: Real pairs, those of the generator's training.
        settings: Folds, size, steps and seed.
        progress: Called with (done, total) over the updates of all segmenters.

    Raises:
        DataError: If there are too few pairs, or one cannot be read.
    """
    require_folds(real, settings)
    image, mask = as_tensors(real, settings.size)
    fold_of = assign_folds(len(real), settings)
    networks = []
    judged: dict[int, PairScore] = {}
    for fold in range(settings.folds):
        inside = [row for row, f in enumerate(fold_of) if f == fold]
        outside = [row for row, f in enumerate(fold_of) if f != fold]
        network = train_segmenter(
            image[outside],
            mask[outside],
            steps=settings.steps,
            seed=derive_seed(settings.seed, "fold", fold) % 2**31,
            progress=_part(progress, fold, settings),
        )
        maps = predict(network, image[inside])
        scores = zip(inside, *_scores(maps, mask[inside]), strict=True)
        for row, one_dice, one_boundary in scores:
            judged[row] = PairScore(real.stems[row], float(one_dice), float(one_boundary), 1)
        networks.append(network)
    return Judges(
        networks=tuple(networks),
        home=dict(zip(real.stems, fold_of, strict=True)),
        real=tuple(judged[row] for row in range(len(real))),
        other_mask=mask[:1],
        settings=settings,
    )


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
