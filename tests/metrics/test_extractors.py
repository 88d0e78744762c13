"""Extractors: what they need, how they prepare pictures, what they refuse."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from metrics.pictures import picture_b
from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.data.images import resize_image
from siamese_diffusion.metrics.extractors import (
    EXTRACTORS,
    Extractor,
    Perceptual,
    loader,
    require_path,
)
from siamese_diffusion.metrics.resize import resize
from siamese_diffusion.metrics.settings import ScoreSettings, Variant

SETTINGS = ScoreSettings(size=64)


@pytest.mark.parametrize("name", list(EXTRACTORS))
def test_every_entry_is_a_loader(name: str) -> None:
    module, _, attribute = EXTRACTORS.target(name).partition(":")
    assert loader(name) is getattr(importlib.import_module(module), attribute)
    assert (loader(name).needs is None) == (name == "random")


def test_unknown_extractor_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"extractor 'incepton'; did you mean 'inception'"):
        loader("incepton")


def test_missing_path_is_told_with_the_file_and_the_option() -> None:
    with pytest.raises(
        WeightsError,
        match=r"metric 'fid' needs the weights of 'inception': a file "
        r"pt_inception-2015-12-05-6726825d\.pth",
    ) as error:
        require_path("inception", None, wanted_by="metric 'fid'")
    assert "--extractor inception=PATH" in str(error.value.hint)
    require_path("random", None, wanted_by="metric 'fid'")


def test_random_extractor_follows_from_the_seed() -> None:
    x = torch.rand(2, 3, 64, 64)
    first, again, other = (loader("random").load(None, ScoreSettings(seed=s)) for s in (1, 1, 2))
    assert torch.equal(first.network(x), again.network(x))
    assert not torch.equal(first.network(x), other.network(x))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.network(x).shape == (2, first.width)
    with pytest.raises(ConfigError, match=r"'random' takes no weights, got 'a\.pth'"):
        loader("random").load(Path("a.pth"), SETTINGS)


@pytest.mark.parametrize("variant", ["clean", "torch"])
def test_inception_prepares_by_the_named_variant(shared: Path, variant: Variant) -> None:
    path = shared / "weights/inception-fid"
    settings = ScoreSettings(size=64, resize=variant, inception_features=192)
    found = loader("inception").load(path, settings)
    assert isinstance(found, Extractor)
    assert (found.name, found.width) == ("inception-192", 192)
    assert found.resize == f"bicubic-64 > {variant}-299"
    planes = resize(resize_image(picture_b(80), 64), 299, variant)
    expected = planes / 127.5 - 1 if variant == "torch" else (planes - 128) / 128
    np.testing.assert_allclose(found.prepare(picture_b(80)), expected, atol=1e-6)


def test_partial_inception_gives_768_features_and_refuses_2048(shared: Path) -> None:
    path = shared / "weights/inception-fid"
    assert loader("inception").load(path, SETTINGS).width == 768
    with pytest.raises(WeightsError, match=r"has layers for 768 features, not for 2048"):
        loader("inception").load(path, ScoreSettings(inception_features=2048))


@pytest.mark.parametrize("trunk", ["alex", "squeeze"])
def test_lpips_is_found_in_its_folder_and_takes_signed_pictures(shared: Path, trunk: str) -> None:
    found = loader(f"lpips-{trunk}").load(shared / "weights/lpips", SETTINGS)
    assert isinstance(found, Perceptual)
    assert found.resize == "bicubic-64"
    prepared = found.prepare(picture_b(64))
    np.testing.assert_allclose(prepared, picture_b(64).transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_lpips_tells_the_file_that_its_folder_lacks(shared: Path, tmp_path: Path) -> None:
    folder = shared / "weights/lpips"
    with pytest.raises(WeightsError, match=r"lpips-vgg: .* holds 'alexnet_features") as error:
        loader("lpips-vgg").load(folder, SETTINGS)
    assert "vgg16-397923af.pth" in str(error.value.hint)
    with pytest.raises(WeightsError, match=r"lpips-alex: .*safetensors' is no folder"):
        loader("lpips-alex").load(folder / "alexnet_features_fp32.safetensors", SETTINGS)
