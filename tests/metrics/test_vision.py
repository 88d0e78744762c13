"""Transformers models by folder: own preprocessing, pooled features, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
)

from metrics.pictures import picture_b
from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.metrics.extractors import Extractor, loader
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.vision import CLIP_DEVIATION, CLIP_MEAN

SETTINGS = ScoreSettings(size=48)
PREPROCESSOR = {
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "resample": 2,
}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=12,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture
def dino_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return tmp_path


def load(name: str, path: Path) -> Extractor:
    found = loader(name).load(path, SETTINGS)
    assert isinstance(found, Extractor)
    return found


def test_clip_gives_its_projected_embedding(clip_folder: Path) -> None:
    found = load("clip", clip_folder)
    assert (found.name, found.width) == ("clip-16-p8-32", 12)
    assert found.is_clip
    assert not found.is_reference_clip
    x = torch.from_numpy(found.prepare(picture_b(48)))[None]
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    expected = model(pixel_values=x).image_embeds
    torch.testing.assert_close(found.network(x), expected)


def test_clip_without_a_preprocessor_file_uses_its_published_numbers(clip_folder: Path) -> None:
    found = load("clip", clip_folder)
    assert found.resize == "bicubic-48 > pillow-bicubic-32"
    image = picture_b(48)
    resized = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    expected = (resized / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_DEVIATION)
    np.testing.assert_allclose(found.prepare(image), expected.transpose(2, 0, 1), atol=1e-5)


def test_any_vision_model_is_prepared_by_its_own_file(dino_folder: Path) -> None:
    found = load("vision", dino_folder)
    assert (found.name, found.width, found.is_clip) == ("dinov2-16", 16, False)
    assert found.resize == "bicubic-48 > pillow-bilinear-36 > crop-28"
    image = picture_b(48)
    resized = np.asarray(Image.fromarray(image).resize((36, 36), Image.Resampling.BILINEAR))
    middle = resized[4:32, 4:32] / 255
    expected = (middle - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.3, 0.4])
    np.testing.assert_allclose(found.prepare(image), expected.transpose(2, 0, 1), atol=1e-5)
    x = torch.from_numpy(found.prepare(image))[None]
    model = Dinov2Model.from_pretrained(dino_folder)
    torch.testing.assert_close(found.network(x), model(pixel_values=x).pooler_output)


def test_convolutional_models_give_their_pooled_map(tmp_path: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    assert load("vision", tmp_path).width == 16


def test_model_without_preprocessing_is_refused(dino_folder: Path) -> None:
    (dino_folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no preprocessor_config.json"):
        load("vision", dino_folder)


def test_incomplete_preprocessing_is_refused(dino_folder: Path) -> None:
    (dino_folder / "preprocessor_config.json").write_text('{"size": 28}')
    with pytest.raises(WeightsError, match=r"does not state size, image_mean and image_std"):
        load("vision", dino_folder)


def test_other_models_are_not_taken_for_clip(dino_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds a model of type 'dinov2', not CLIP") as error:
        load("clip", dino_folder)
    assert "--set similarity=vision" in str(error.value.hint)


def test_missing_weights_are_not_filled_with_random_ones(clip_folder: Path, tmp_path: Path) -> None:
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 weights .* 'visual_projection.weight'"):
        load("clip", tmp_path)


def test_reference_clip_is_known_by_its_shape(clip_folder: Path, tmp_path: Path) -> None:
    from siamese_diffusion.metrics import vision

    shape = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "projection_dim": 12,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vision, "_REFERENCE", shape)
        assert load("clip", clip_folder).is_reference_clip
