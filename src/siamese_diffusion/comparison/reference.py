"""The pairs a comparison samples from: chosen once, the same for all methods."""

from __future__ import annotations

import shutil
from pathlib import Path

from siamese_diffusion.core.artifacts import atomic_folder
from siamese_diffusion.data.pairs import PairFolder


def write_reference(source: PairFolder, out: Path, *, masks: int | None) -> PairFolder:
    """Copy `masks` evenly spaced pairs (all if None) byte by byte into a data-set folder.

    Args:
        source: Opened with pairs.
        out: The folder; one that is there already is kept.
        masks: How many, at most.
    """
    if not out.exists():
        n = len(source) if masks is None else min(masks, len(source))
        chosen = [source.pairs[int(i * len(source) / n)] for i in range(n)]
        with atomic_folder(out) as folder:
            for kind in ("images", "masks"):
                (folder / kind).mkdir()
            for pair in chosen:
                assert pair.image is not None and pair.mask is not None
                for path, kind in ((pair.image, "images"), (pair.mask, "masks")):
                    shutil.copyfile(path, folder / kind / f"{pair.stem}{path.suffix.lower()}")
    return PairFolder.open(out)
