"""Does a synthetic set copy training images? Near copies, and a verdict with its error rate.

Every image is compared with every training image under flips, quarter turns and small crops, and
the distance of its closest one is judged by the same distance of hold-out images, which the
generator cannot have copied. A second look through an extractor's features is possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from siamese_diffusion.audit import descriptors
from siamese_diffusion.audit.calibration import (
    VERDICT_RATE,
    Threshold,
    calibrate,
    chance_of,
    false_alarms,
    flags,
)
from siamese_diffusion.audit.search import (
    Closest,
    PixelSpace,
    Progress,
    Rows,
    Steps,
    closer_to_train,
    closest,
    pixel_rows,
)
from siamese_diffusion.core.config import Settings
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.images import read_image
from siamese_diffusion.metrics.sets import ImageSet

PIXELS: Final = "pixels"
SURELY_NEAR: Final = 1e-3  # distance in pixels below which pictures are compared pixel by pixel
MOST_CLOSEST: Final = 24
"""Neighbours that are written whether they are near copies or not, so that they can be seen."""


class MemorisationSettings(Settings):
    """How near is too near."""

    rate: float = Field(default=0.01, gt=0.0, lt=0.5)
    """Chance that an honest image is listed as a near copy, over all spaces together."""
    candidates: int = Field(default=4, ge=1, le=50)
    """Training images that each image is compared with closely."""
    seed: int = Field(default=0, ge=0)
    """Of the random subsets."""


@dataclass(frozen=True)
class Neighbour:
    """A synthetic image and the training image that it is closest to in a space."""

    stem: str
    path: str
    nearest: str
    nearest_path: str
    space: str
    distance: float
    threshold: float
    turn: str


@dataclass(frozen=True)
class SpaceReport:
    """What one space of descriptors says.

    Attributes:
        space: `pixels` or the name of an extractor.
        threshold: Distance below which images are near copies.
        rate: Chance that an honest image is below it.
        flagged: Number of near copies.
        expected: Number expected of an honest set.
        chance: Chance of as many or more in an honest set.
        closer_to_train: Share of images closer to the training set than to as many hold-out
            images; 0.5 is expected of an honest set. None without hold-out.
        median_distance: Of synthetic images to the training set.
        median_distance_of_holdout: Of hold-out images to it.
        false_alarms: Share of random halves of the hold-out that would be said to hold copies.
    """

    space: str
    threshold: float
    rate: float
    flagged: int
    expected: float
    chance: float
    closer_to_train: float | None
    median_distance: float
    median_distance_of_holdout: float
    false_alarms: float | None


@dataclass(frozen=True)
class MemorisationReport:
    """The audit's result; `as_dict` is what is written.

    `neighbours` has every image once in each space, in the order of how close it is for its space.
    """

    has_copies: bool
    identical: tuple[str, ...]
    """Stems of images that are a training image itself, or one turned or mirrored: copies whatever
    chance allows."""
    calibration: str
    spaces: tuple[SpaceReport, ...]
    neighbours: tuple[Neighbour, ...]
    distances: dict[str, list[float]]
    n_real: int
    n_synthetic: int
    n_holdout: int
    settings: MemorisationSettings

    @property
    def near_copies(self) -> tuple[Neighbour, ...]:
        """Those closer to a training image than honest images are, and those that are one."""
        same = set(self.identical)
        return tuple(
            one
            for one in self.neighbours
            if one.distance < one.threshold or (one.space == PIXELS and one.stem in same)
        )

    @property
    def verdict(self) -> str:
        """One sentence."""
        flagged = len({copy.stem for copy in self.near_copies})
        if self.identical:
            return (
                f"copies: {len(self.identical)} of {self.n_synthetic} images are training images "
                f"to the pixel, and {flagged} are near copies"
            )
        if self.has_copies:
            return (
                f"copies: {flagged} of {self.n_synthetic} images are closer to the training set "
                "than chance allows (an honest set is said to hold copies in "
                f"{VERDICT_RATE:.0%} of cases)"
            )
        return (
            f"no sign of copying: {flagged} of {self.n_synthetic} images are near copies, which "
            f"chance allows (an honest set is said to hold copies in {VERDICT_RATE:.0%} of cases)"
        )

    def as_dict(self) -> dict[str, object]:
        """As a JSON object."""
        return {
            "verdict": self.verdict,
            "has_copies": self.has_copies,
            "identical": list(self.identical),
            "verdict_error_rate": VERDICT_RATE,
            "calibration": self.calibration,
            "n_real": self.n_real,
            "n_synthetic": self.n_synthetic,
            "n_holdout": self.n_holdout,
            "spaces": [asdict(space) for space in self.spaces],
            "near_copies": [asdict(copy) for copy in self.near_copies],
            "closest": [asdict(one) for one in self.neighbours[:MOST_CLOSEST]],
            "distances": self.distances,
            "settings": self.settings.model_dump(mode="json"),
        }


def memorisation(
    real: ImageSet,
    synthetic: ImageSet,
    *,
    holdout: ImageSet | None = None,
    settings: MemorisationSettings | None = None,
    extra: Callable[[ImageSet], Rows] | None = None,
    extra_name: str = "features",
    progress: Progress | None = None,
) -> MemorisationReport:
    """Compare every synthetic image with the training images it may have been copied from.

    Args:
        real: What the generator was trained on.
        synthetic: What it made.
        holdout: Real images it has not seen, of other patients where possible. Without them, the
            distances of training images among each other stand in.
        settings: Rate, candidates and seed.
        extra: Descriptors of a second space.
        extra_name: Its name.
        progress: Called with (done, total) over all images of all spaces.

    Raises:
        DataError: If there are too few images for the rate, or one cannot be read.
    """
    settings = settings or MemorisationSettings()
    if len(real) < 2:
        raise DataError(f"{real.name} has {len(real)} image; memorisation needs 2 or more")
    # Known before the work: a rate that the hold-out cannot support.
    spaces = 1 if extra is None else 2
    judges = len(real) if holdout is None else len(holdout)
    calibrate(np.zeros(judges), settings.rate / spaces)
    total = spaces * (judges + len(synthetic))
    step = Steps(progress, total)

    pixels = PixelSpace(real, settings.candidates)
    reports, neighbours, distances = [], [], {}
    runs: list[tuple[str, Callable[[ImageSet, bool], Closest], Callable[[ImageSet], Rows]]] = [
        (PIXELS, lambda s, own: pixels.closest(s, exclude_self=own, step=step), pixel_rows)
    ]
    if extra is not None:
        target = extra(real)

        def by_features(images: ImageSet, own: bool) -> Closest:
            return closest(extra(images), target, exclude_self=own, step=step)

        runs.append((extra_name, by_features, extra))
    for name, find, describe in runs:
        made = find(synthetic, False)
        honest = find(real, True) if holdout is None else find(holdout, False)
        threshold = calibrate(honest.distance, settings.rate / spaces)
        share = None
        if holdout is not None:
            share = closer_to_train(
                describe(synthetic), describe(real), describe(holdout), seed=settings.seed
            )
        alarms = false_alarms(honest.distance, settings.rate / spaces, settings.seed)
        reports.append(_space_report(name, made, honest, threshold, share, alarms))
        neighbours += _neighbours(name, real, synthetic, made, threshold)
        distances[name] = [round(float(d), 6) for d in made.distance]
    identical = _identical(neighbours)
    return MemorisationReport(
        has_copies=bool(identical) or any(r.chance < VERDICT_RATE / spaces for r in reports),
        identical=identical,
        calibration="hold-out images" if holdout else "training images among each other",
        spaces=tuple(reports),
        neighbours=tuple(sorted(neighbours, key=lambda c: c.distance / max(c.threshold, 1e-9))),
        distances=distances,
        n_real=len(real),
        n_synthetic=len(synthetic),
        n_holdout=0 if holdout is None else len(holdout),
        settings=settings,
    )


def _space_report(
    name: str,
    made: Closest,
    honest: Closest,
    threshold: Threshold,
    share: float | None,
    alarms: float | None,
) -> SpaceReport:
    m, flagged = len(made.distance), int(flags(made.distance, threshold).sum())
    return SpaceReport(
        space=name,
        threshold=threshold.distance,
        rate=threshold.rate,
        flagged=flagged,
        expected=m * threshold.rate,
        chance=chance_of(flagged, m, threshold),
        closer_to_train=share,
        median_distance=float(np.median(made.distance)),
        median_distance_of_holdout=float(np.median(honest.distance)),
        false_alarms=alarms,
    )


def _neighbours(
    space: str, real: ImageSet, synthetic: ImageSet, made: Closest, threshold: Threshold
) -> list[Neighbour]:
    found: list[Neighbour] = []
    for index, file in enumerate(synthetic.files):
        source = real.files[int(made.row[index])]
        found.append(
            Neighbour(
                stem=file.stem,
                path=str(file.path),
                nearest=source.stem,
                nearest_path=str(source.path),
                space=space,
                distance=float(made.distance[index]),
                threshold=threshold.distance,
                turn=descriptors.turn_name(int(made.turn[index])),
            )
        )
    return found


def _identical(neighbours: list[Neighbour]) -> tuple[str, ...]:
    """Images that equal their neighbour pixel by pixel under one of the eight turns."""
    found = []
    for one in neighbours:
        if one.space == PIXELS and one.distance < SURELY_NEAR:
            made, source = read_image(Path(one.path)), read_image(Path(one.nearest_path))
            if any(
                np.array_equal(made, descriptors.turned(source, t))
                for t in range(descriptors.TURNS)
            ):
                found.append(one.stem)
    return tuple(found)
