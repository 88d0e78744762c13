"""Features as descriptors under turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from metrics.pictures import write_images
from siamese_diffusion.audit.feature_space import open_space
from siamese_diffusion.audit.search import closest
from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.metrics.sets import open_set


def test_mirrored_copies_are_at_zero_in_feature_space(tmp_path: Path) -> None:
    real = open_set(write_images(tmp_path / "real", 6))
    (tmp_path / "made/images").mkdir(parents=True)
    for file in real.files[2:4]:
        ImageOps.mirror(Image.open(file.path)).save(tmp_path / f"made/images/{file.stem}.png")
    space = open_space("random", cache=tmp_path / "cache", device="cpu")
    again = open_space(str(space.record()["name"]), cache=tmp_path / "cache", device="cpu")
    assert again.record() == space.record()
    assert space.name == "random-64"
    made = space(open_set(tmp_path / "made"))
    assert made.turned.shape == (2, 8, 64)
    found = closest(made, space(real))
    assert found.row.tolist() == [2, 3]
    assert found.turn.tolist() == [4, 4]
    np.testing.assert_allclose(found.distance, 0, atol=1e-5)


def test_impossible_spaces_are_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown extractor 'pixel'"):
        open_space("pixel")
    with pytest.raises(WeightsError, match=r"the second space needs the weights of 'inception'"):
        open_space("inception")
    with pytest.raises(ConfigError, match=r"'lpips-alex' measures pairs and has no features"):
        open_space(f"lpips-alex={shared / 'weights/lpips'}")
