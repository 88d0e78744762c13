"""A bench of given numbers, so that metrics are tested without networks or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from siamese_diffusion.metrics.base import Comparison, Pair, Role
from siamese_diffusion.metrics.extractors import Extractor
from siamese_diffusion.metrics.sets import ImageFile, ImageSet
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Features, Real


class GivenBench:
    """Features by the hash of an image, LPIPS as the distance of first features."""

    def __init__(self, rows: Mapping[str, Real], *, clip: bool, reference: bool) -> None:
        self.rows = rows
        self.asked: list[Pair] = []
        self._extractor = Extractor(
            name="given",
            sha256="0" * 64,
            width=len(next(iter(rows.values()))),
            resize="none",
            prepare=lambda image: image.astype(np.float32),
            network=torch.nn.Identity(),
            is_clip=clip,
            is_reference_clip=reference,
        )

    def extractor(self, role: Role) -> Extractor:
        return self._extractor

    def features(self, role: Role, images: ImageSet) -> Features:
        return np.stack([self.rows[file.sha256] for file in images.files])

    def distances(self, pairs: Sequence[Pair]) -> Real:
        self.asked += pairs
        gaps = [abs(self.rows[a.sha256][0] - self.rows[b.sha256][0]) for a, b in pairs]
        return np.array(gaps)


def image_set(prefix: str, masks: Sequence[str]) -> ImageSet:
    """A set that exists in memory only; the hash of an image is its prefix and place."""
    folds: dict[str, int] = {}
    files = []
    for index, mask in enumerate(masks):
        fold = folds[mask] = folds.get(mask, -1) + 1
        stem = mask if fold == 0 else f"{mask}_f{fold}"
        path = Path(prefix) / f"{stem}.png"
        files.append(ImageFile(stem, path, f"{prefix}{index}", mask, fold, (64, 64)))
    return ImageSet(Path(prefix), None, tuple(files))


def compare(
    x: Real,
    y: Real,
    settings: ScoreSettings | None = None,
    *,
    masks: Sequence[str] | None = None,
    clip: bool = True,
    reference: bool = True,
) -> Comparison:
    """A comparison of given features; image i of both sets shows mask i unless told otherwise."""
    rows = {f"real{i}": row for i, row in enumerate(x)}
    rows |= {f"synthetic{i}": row for i, row in enumerate(y)}
    return Comparison(
        image_set("real", [f"m{i}" for i in range(len(x))]),
        image_set("synthetic", masks or [f"m{i}" for i in range(len(y))]),
        GivenBench(rows, clip=clip, reference=reference),
        settings or ScoreSettings(),
    )
