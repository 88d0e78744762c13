"""Closest images over all turns and crops: exact, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from siamese_diffusion.audit import descriptors
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.sets import ImageSet
from siamese_diffusion.metrics.statistics import Real

_BLOCK: Final = 32  # queries at a time; each is eight rows
_SUBSETS: Final = 10  # equal-sized draws behind the share that is closer to train
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Rows:
    """Descriptors of a set: under turns (n, turns, d) and, as a target, under crops (n, c, d)."""

    turned: npt.NDArray[np.float32]
    cropped: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Closest:
    """Of each query: distance to its closest target, that target's row, and the turn."""

    distance: Real
    row: npt.NDArray[np.intp]
    turn: npt.NDArray[np.intp]


def pixel_rows(images: ImageSet) -> Rows:
    """Coarse pixel descriptors of a set."""
    thumbs = descriptors.thumbnails(images)
    return Rows(descriptors.coarse_turned(thumbs), descriptors.coarse_cropped(thumbs))


def closest(
    queries: Rows, targets: Rows, *, exclude_self: bool = False, step: Steps | None = None
) -> Closest:
    """The closest target of each query over all turns and crops, exact, block by block."""
    found = [part[:, 0] for part in _ranked(queries, targets, 1, exclude_self, step)]
    return Closest(found[0].astype(np.float64), found[1].astype(int), found[2].astype(int))


def closer_to_train(
    synthetic: Rows, train: Rows, holdout: Rows, *, seed: int, subsets: int = _SUBSETS
) -> float:
    """Share of images whose closest training image is nearer than their closest hold-out image.

    Both sides have the same number of images, drawn anew for each subset, because more images are
    closer by chance alone. Ties count half.
    """
    n, h = len(train.cropped), len(holdout.cropped)
    size = min(n, h)
    rng = np.random.default_rng(derive_seed(seed, "closer to train"))
    draws = [(rng.permutation(n)[:size], rng.permutation(h)[:size]) for _ in range(subsets)]
    total = 0.0
    for start in range(0, len(synthetic.turned), _BLOCK):
        rows = synthetic.turned[start : start + _BLOCK]
        to_train = _distances(rows, train.cropped)[0]
        to_holdout = _distances(rows, holdout.cropped)[0]
        for a, b in draws:
            first, second = to_train[:, a].min(1), to_holdout[:, b].min(1)
            total += float((first < second).sum() + 0.5 * (first == second).sum())
    return total / (len(synthetic.turned) * subsets)


class Steps:
    """Counts images over several passes.

    Args:
        progress: Called with (done, total).
        total: Images of all passes.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, images: int) -> None:
        """So many more are done."""
        self._done += images
        if self._progress is not None:
            self._progress(self._done, self._total)


class PixelSpace:
    """Coarse search over all pairs, then a close look at the best candidates.

    Args:
        targets: Images to be found.
        candidates: How many are looked at closely.
    """

    def __init__(self, targets: ImageSet, candidates: int) -> None:
        self._thumbs = descriptors.thumbnails(targets)
        self._rows = descriptors.coarse_cropped(self._thumbs)
        self._candidates = min(candidates, len(targets) - 1)

    def closest(self, images: ImageSet, *, exclude_self: bool, step: Steps) -> Closest:
        """The closest target of each image; image i is not its own with `exclude_self`."""
        thumbs = descriptors.thumbnails(images)
        queries = Rows(descriptors.coarse_turned(thumbs), np.empty((0, 0, 0), np.float32))
        targets = Rows(queries.turned[:0], self._rows)
        _, rows, turns = _ranked(queries, targets, self._candidates, exclude_self, None)
        n = len(images)
        distance = np.empty(n)
        row, turn = np.empty(n, dtype=np.intp), np.empty(n, dtype=np.intp)
        for start in range(0, n, _BLOCK):
            end = min(start + _BLOCK, n)
            shape = rows[start:end].shape
            turned = [
                descriptors.turned(thumbs[start + index], int(t))
                for index, of_one in enumerate(turns[start:end])
                for t in of_one
            ]
            targets_of = self._thumbs[rows[start:end].ravel()]
            close = descriptors.fine_distances(np.stack(turned), targets_of).reshape(shape)
            best = close.argmin(1)[:, None]
            distance[start:end] = np.take_along_axis(close, best, 1)[:, 0]
            row[start:end] = np.take_along_axis(rows[start:end], best, 1)[:, 0]
            turn[start:end] = np.take_along_axis(turns[start:end], best, 1)[:, 0]
            step.add(end - start)
        return Closest(distance, row, turn)


def _ranked(
    queries: Rows, targets: Rows, k: int, exclude_self: bool, step: Steps | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Distances, rows and turns of the k closest targets, (n, k) each, closest first."""
    n = len(queries.turned)
    distance = np.empty((n, k), np.float32)
    row, turn = np.empty((n, k), dtype=np.intp), np.empty((n, k), dtype=np.intp)
    for start in range(0, n, _BLOCK):
        block = queries.turned[start : start + _BLOCK]
        found, turns = _distances(block, targets.cropped)
        if exclude_self:
            own = np.arange(len(block))
            found[own, own + start] = np.inf
        order = np.argsort(found, axis=1, kind="stable")[:, :k]
        end = start + len(block)
        distance[start:end] = np.take_along_axis(found, order, 1)
        row[start:end], turn[start:end] = order, np.take_along_axis(turns, order, 1)
        if step is not None:
            step.add(len(block))
    return distance, row, turn


def _distances(
    queries: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """1 - the best correlation over turns and crops, and its turn, (q, n) each."""
    q, turns, d = queries.shape
    n, crops, _ = targets.shape
    products = queries.reshape(q * turns, d) @ targets.reshape(n * crops, d).T
    best = products.reshape(q, turns, n, crops).max(3)
    return np.clip(1 - best.max(1), 0, None), best.argmax(1)
