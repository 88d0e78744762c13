"""A run of two training steps, so that every trained weight has left its initial value."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained_run(
    phantoms: Path, small_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Siamese, dense hint, 64 px; do not write into it."""
    from siamese_diffusion.generators.fitting import fit

    overrides = ["train.steps=2", "train.batch_size=2", "train.learning_rate=0.01"]
    overrides += ["data.size=64", "preview.steps=1", "preview.pairs=1", "train.tensorboard=false"]
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit(phantoms, out, base=small_base_folder, overrides=overrides, quiet=True)
