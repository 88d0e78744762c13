"""Vision models of transformers as extractors: CLIP image encoders, DINOv2, medical encoders.

From a local folder only. Resizing and normalising are done here, by the numbers in the folder's
`preprocessor_config.json`: transformers' own processors change with what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.data.images import Pixels, resize_image
from siamese_diffusion.metrics.extractors import Extractor, first_resize
from siamese_diffusion.metrics.resize import square_crop
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.weight_files import folder_sha256

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
_REFERENCE: Final = {  # ViT-L/14 at 336 pixels, with which CMMD is defined
    "image_size": 336,
    "patch_size": 14,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "projection_dim": 768,
}


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `short`, crop the middle `side`, then (v / 255 - mean) / std."""

    short: int
    side: int
    resample: Image.Resampling
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def statement(self) -> str:
        """In words, for passports."""
        crop = "" if self.short == self.side else f" > crop-{self.side}"
        return f"pillow-{self.resample.name.lower()}-{self.short}{crop}"

    def __call__(self, image: Pixels) -> npt.NDArray[np.float32]:
        """RGB uint8 (H, W, 3) to float32 (3, side, side)."""
        resized = square_crop(image, self.short, self.resample)
        margin = (self.short - self.side) // 2
        part = resized[margin : margin + self.side, margin : margin + self.side]
        planes = part.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        mean = np.array(self.mean, np.float32)[:, None, None]
        deviation = np.array(self.deviation, np.float32)[:, None, None]
        return np.asarray((planes - mean) / deviation, dtype=np.float32)


class _Pooled(nn.Module):
    """A transformers model to one row per image: embedding, pooled output, or mean token."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        output = self.model(pixel_values=x)
        for name in ("image_embeds", "pooler_output"):
            found = getattr(output, name, None)
            if isinstance(found, Tensor):
                return found.flatten(1)
        hidden = output.last_hidden_state
        assert isinstance(hidden, Tensor)
        return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))


class _Clip:
    needs = "a local transformers folder of CLIP (ViT-L/14 at 336 pixels for CMMD)"

    def load(self, path: Path | None, settings: ScoreSettings) -> Extractor:
        assert path is not None
        sha256 = folder_sha256(path)
        config = read_json(path / "config.json")
        kind = config.get("model_type")
        if kind not in ("clip", "clip_vision_model"):
            raise WeightsError(
                f"clip: '{path}' holds a model of type {kind!r}, not CLIP",
                hint=f"use it as --extractor vision={path} --set similarity=vision; its values are "
                "then not called CLIP-I",
            )
        from transformers import CLIPVisionModelWithProjection

        model, tower = _load(CLIPVisionModelWithProjection, path)
        pre = _preprocessing(path, fallback_side=int(tower["image_size"]))
        is_reference = all(tower[key] == value for key, value in _REFERENCE.items())
        width = int(tower["projection_dim"])
        name = f"clip-{tower['hidden_size']}-p{tower['patch_size']}-{tower['image_size']}"
        return _extractor(name, sha256, width, pre, model, settings, is_reference=is_reference)


class _Vision:
    needs = "a local transformers folder of a vision model"

    def load(self, path: Path | None, settings: ScoreSettings) -> Extractor:
        assert path is not None
        sha256 = folder_sha256(path)
        from transformers import AutoModel

        model, config = _load(AutoModel, path)
        pre = _preprocessing(path, fallback_side=None)
        with torch.no_grad():
            width = _Pooled(model)(torch.zeros(1, 3, pre.side, pre.side)).shape[1]
        name = f"{config['model_type']}-{width}"
        return _extractor(name, sha256, width, pre, model, settings)


def _extractor(
    name: str,
    sha256: str,
    width: int,
    pre: Preprocessing,
    model: nn.Module,
    settings: ScoreSettings,
    *,
    is_reference: bool | None = None,
) -> Extractor:
    size = settings.size
    return Extractor(
        name=name,
        sha256=sha256,
        width=width,
        resize=f"{first_resize(size)} > {pre.statement}",
        prepare=lambda image: pre(resize_image(image, size)),
        network=_Pooled(model),
        is_clip=is_reference is not None,
        is_reference_clip=bool(is_reference),
    )


def _load(model_class: object, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode, float32, all weights from the folder; and its config."""
    try:
        model, info = model_class.from_pretrained(  # type: ignore[attr-defined]
            path, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(
            f"'{path}' cannot be loaded by transformers: {str(error).splitlines()[0][:200]}",
            hint="give a complete local folder as written by save_pretrained",
        ) from error
    missing = sorted(str(key) for key in info["missing_keys"])
    if missing:
        raise WeightsError(
            f"'{path}' lacks {len(missing)} weights of its model, such as '{missing[0]}'",
            hint="the folder's weights belong to another architecture than its config.json",
        )
    return model.eval().requires_grad_(False), model.config.to_dict()


def _preprocessing(path: Path, *, fallback_side: int | None) -> Preprocessing:
    file = path / "preprocessor_config.json"
    if not file.is_file():
        if fallback_side is None:
            raise WeightsError(
                f"'{path}' has no preprocessor_config.json, so its resizing and normalisation are "
                "not known",
                hint="add the file that was published with the weights",
            )
        bicubic = Image.Resampling.BICUBIC
        return Preprocessing(fallback_side, fallback_side, bicubic, CLIP_MEAN, CLIP_DEVIATION)
    content = read_json(file)
    short = _side(content.get("size"))
    crops = content.get("do_center_crop", False)
    side = _side(content.get("crop_size")) if crops else short
    mean, deviation = content.get("image_mean"), content.get("image_std")
    resample = content.get("resample", 3)
    if (
        short is None
        or side is None
        or not isinstance(mean, list)
        or not isinstance(deviation, list)
        or not isinstance(resample, int)
    ):
        raise WeightsError(
            f"'{file}' does not state size, image_mean and image_std as numbers",
            hint="use the file that was published with the weights",
        )
    return Preprocessing(
        max(short, side), side, Image.Resampling(resample), tuple(mean), tuple(deviation)
    )


def _side(size: object) -> int | None:
    """Pixels of `224`, `{"shortest_edge": 224}` or `{"height": 224, "width": 224}`."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else None


clip = _Clip()
vision = _Vision()
