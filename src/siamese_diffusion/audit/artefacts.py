"""Blank, blurred, noisy and burnt-out images: found as outliers from the real set.

Three plain statistics of each image, and how many robust deviations the farthest of them is from
the median of the real images. Real images have such a score too; what exceeds all but a stated
share of theirs is listed. Needs no network and knows nothing of content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from siamese_diffusion.audit.calibration import require_rank
from siamese_diffusion.core.config import Settings
from siamese_diffusion.data.images import Pixels, read_image, resize_image
from siamese_diffusion.data.listing import collect
from siamese_diffusion.metrics.sets import ImageSet
from siamese_diffusion.metrics.statistics import Real

STATISTICS: Final = ("entropy", "sharpness", "saturation")
_SIDE: Final = 128  # pixels at which images are compared
_LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601
_EXTREME: Final = (2, 253)  # grey levels at or beyond which a pixel counts as burnt out or black
_MAD_TO_SIGMA: Final = 1.4826  # of a normal law
_LEAST_SPREAD: Final = 0.02  # so that a statistic without spread does not make every image one


class ArtefactSettings(Settings):
    """What counts as an outlier."""

    rate: float = Field(default=0.01, gt=0.0, lt=0.5)
    """Share of real images that may have a higher score than the limit."""


@dataclass(frozen=True)
class ArtefactReport:
    """Scores (m,) and statistics (m, 3) of synthetic images, in the order of the set."""

    stems: tuple[str, ...]
    scores: Real
    statistics: Real
    reasons: tuple[str, ...]
    limit: float
    rate: float
    n_real: int

    def as_dict(self) -> dict[str, object]:
        """As a JSON object."""
        rows = zip(self.stems, self.scores, self.statistics, self.reasons, strict=True)
        return {
            "limit": self.limit,
            "rate": self.rate,
            "n_real": self.n_real,
            "n_synthetic": len(self.stems),
            "listed": [self.stems[row] for row in np.flatnonzero(self.scores > self.limit)],
            "images": [
                {"stem": stem, "score": float(score), "farthest": reason}
                | {name: float(v) for name, v in zip(STATISTICS, values, strict=True)}
                for stem, score, values, reason in rows
            ],
            "settings": ArtefactSettings(rate=self.rate).model_dump(mode="json"),
        }

    def text(self) -> str:
        """A summary for people."""
        listed = int((self.scores > self.limit).sum())
        return (
            f"{listed} of {len(self.stems)} images are farther from the real ones in entropy, "
            f"sharpness or saturation than {1 - self.rate:.1%} of {self.n_real} real images are "
            f"({self.limit:.2f} robust deviations)"
        )


def artefacts(
    real: ImageSet, synthetic: ImageSet, settings: ArtefactSettings | None = None
) -> ArtefactReport:
    """Score every synthetic image by how unlike the real ones its plain statistics are.

    Raises:
        DataError: If there are too few real images for the rate, or one cannot be read.
    """
    settings = settings or ArtefactSettings()
    above = require_rank(settings.rate, len(real), images="real images", lower="--set rate=")
    given, made = _statistics(real), _statistics(synthetic)
    centre = np.median(given, 0)
    spread = np.maximum(_MAD_TO_SIGMA * np.median(np.abs(given - centre), 0), _LEAST_SPREAD)
    far = (made - centre) / spread
    own = np.abs((given - centre) / spread).max(1)
    worst = np.abs(far).argmax(1)
    reasons = tuple(
        f"{STATISTICS[column]} {'above' if far[row, column] > 0 else 'below'} that of real images"
        for row, column in enumerate(worst)
    )
    return ArtefactReport(
        stems=tuple(file.stem for file in synthetic.files),
        scores=np.abs(far).max(1),
        statistics=made,
        reasons=reasons,
        limit=float(np.sort(own)[-above]),
        rate=settings.rate,
        n_real=len(real),
    )


def statistics_of(image: Pixels) -> tuple[float, float, float]:
    """Entropy of the grey levels in bits, log10 of the Laplacian's variance, share of extremes.

    Args:
        image: RGB uint8 (H, W, 3).
    """
    grey: Real = resize_image(image, _SIDE).astype(np.float64) @ np.array(_LUMA)
    counts, _ = np.histogram(grey, bins=64, range=(0, 256))
    shares = counts[counts > 0] / grey.size
    entropy = float(-(shares * np.log2(shares)).sum())
    laplacian: Real = ndimage.laplace(grey)
    sharpness = float(np.log10(laplacian.var() + 1e-3))
    extremes: npt.NDArray[np.bool_] = (grey <= _EXTREME[0]) | (grey >= _EXTREME[1])
    return entropy, sharpness, float(extremes.mean())


def _statistics(images: ImageSet) -> Real:
    def one(index: int) -> tuple[float, float, float]:
        return statistics_of(read_image(images.files[index].path))

    return np.array(collect(one, range(len(images))), dtype=np.float64)
