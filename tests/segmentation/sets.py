"""Synthetic sets for the tests, as `siamdiff sample` leaves them, without a generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder


def write_run(root: Path, data: PairFolder) -> Path:
    """The part of a generator's run folder that provenance reads."""
    root.mkdir(parents=True)
    record = {
        "root": str(data.root),
        "split": data.split,
        "pairs": len(data),
        "fingerprint": data.fingerprint(),
    }
    (root / "run.json").write_text(json.dumps({"kind": "run", "format": 1, "data": record}))
    return root


def write_synthetic(
    root: Path,
    masks: PairFolder,
    *,
    folds: int = 1,
    run: Path | None = None,
    recipe: str = "real",
    manifest: bool = True,
    seed: int = 0,
) -> Path:
    """Noisy pictures under the masks of a real set, with plan and manifest."""
    paths = SyntheticPaths(root)
    paths.images.mkdir(parents=True)
    paths.masks.mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for fold in range(folds):
        for row, pair in enumerate(masks.pairs):
            item = pair.stem if fold == 0 else f"{pair.stem}_f{fold}"
            mask = masks.mask(row)
            noise = rng.integers(0, 60, (*mask.shape, 3))
            picture = (noise + np.where(mask[..., None] > 0, 120, 60)).astype(np.uint8)
            Image.fromarray(picture).save(paths.image(item))
            Image.fromarray(mask).save(paths.mask(item))
            assert pair.mask is not None
            record = {
                "id": item,
                "stem": pair.stem,
                "fold": fold,
                "source_sha256": file_sha256(pair.mask),
            }
            lines.append(json.dumps(record) + "\n")
    if manifest:
        paths.manifest.write_text("".join(lines))
        fingerprint = None
        if run is not None:
            fingerprint = json.loads((run / "run.json").read_text())["data"]["fingerprint"]
        origin = {"run": None if run is None else str(run), "run_data_fingerprint": fingerprint}
        header = {"kind": "synthetic", "settings": {"recipe": recipe}, "origin": origin}
        paths.plan_header.write_text(json.dumps(header))
    return root
