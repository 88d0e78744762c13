"""Networks that turn pictures into features, by name; one line each.

An extractor carries how its input is prepared, because a feature without its resize is no number
that can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import text_sha256
from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.core.registry import Registry
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.data.images import Pixels, resize_image
from siamese_diffusion.metrics.nets.inception import SIDE, load_inception, widest_level
from siamese_diffusion.metrics.nets.lpips import Lpips, Trunk, load_lpips
from siamese_diffusion.metrics.resize import resize, scale
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.weight_files import KnownFile, find_weights

Prepare = Callable[[Pixels], npt.NDArray[np.float32]]
"""RGB uint8 (H, W, 3) to the network's input (3, h, w); called in decoding threads."""

_INCEPTION: Final = (
    KnownFile("pt_inception-2015-12-05-6726825d.pth", "6726825d"),
    KnownFile(
        "inception_v3_2015_to_mixed6e_fp16.safetensors",
        "b59dc38d7112d65c8ae664cf2a8c1c97ff27484de2dc1a0620077208fe55d9ec",
    ),
)
_TRUNKS: Final[dict[Trunk, tuple[KnownFile, ...]]] = {
    "alex": (
        KnownFile("alexnet-owt-7be5be79.pth", "7be5be79"),
        KnownFile("alexnet-owt-4df8aa71.pth", "4df8aa71"),
        KnownFile(
            "alexnet_features_fp32.safetensors",
            "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9",
        ),
    ),
    "squeeze": (
        KnownFile("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
        KnownFile("squeezenet1_1-f364aa15.pth", "f364aa15"),
        KnownFile(
            "squeezenet1_1_features_fp32.safetensors",
            "29dd9af42ad48cb39a767454d382a2232dbc1625a1de3f00fca4868ee65dfc4b",
        ),
    ),
    "vgg": (KnownFile("vgg16-397923af.pth", "397923af"),),
}
_LINEAR: Final[dict[Trunk, KnownFile]] = {
    "alex": KnownFile(
        "lin_alex_v0.1.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
    ),
    "squeeze": KnownFile(
        "lin_squeeze_v0.1.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"
    ),
    "vgg": KnownFile(
        "lin_vgg_v0.1.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
    ),
}
RANDOM_SIDE: Final = 64
RANDOM_WIDTH: Final = 64


@dataclass(frozen=True)
class Extractor:
    """A network from prepared pictures (B, 3, h, w) to features (B, width).

    Attributes:
        name: With the width, as in `inception-768`.
        sha256: Of the weights.
        width: Of the features.
        resize: From file to input, in words.
        prepare: See `Prepare`.
        network: In evaluation mode.
        is_clip: Whether it is a CLIP image encoder.
        is_reference_clip: Whether it is ViT-L/14 at 336 pixels.
    """

    name: str
    sha256: str
    width: int
    resize: str
    prepare: Prepare
    network: nn.Module
    is_clip: bool = False
    is_reference_clip: bool = False


@dataclass(frozen=True)
class Perceptual:
    """LPIPS with its input preparation; `prepare` gives [-1, 1]."""

    name: str
    sha256: str
    resize: str
    prepare: Prepare
    network: Lpips
    width: int = 1
    is_clip: bool = False
    is_reference_clip: bool = False


class Loader(Protocol):
    """An entry of EXTRACTORS."""

    needs: str | None
    """What `--extractor NAME=PATH` must point at; None if nothing."""

    def load(self, path: Path | None, settings: ScoreSettings) -> Extractor | Perceptual:
        """Build the network.

        Raises:
            WeightsError: If the weights are not the ones expected.
        """
        ...


EXTRACTORS: Final = Registry(
    "extractor",
    {
        "inception": "siamese_diffusion.metrics.extractors:inception",
        "lpips-alex": "siamese_diffusion.metrics.extractors:lpips_alex",
        "lpips-squeeze": "siamese_diffusion.metrics.extractors:lpips_squeeze",
        "lpips-vgg": "siamese_diffusion.metrics.extractors:lpips_vgg",
        "clip": "siamese_diffusion.metrics.vision:clip",
        "vision": "siamese_diffusion.metrics.vision:vision",
        "random": "siamese_diffusion.metrics.extractors:random",
    },
)


def loader(name: str) -> Loader:
    """The loader of a name.

    Raises:
        ConfigError: For an unknown name.
    """
    found: Loader = EXTRACTORS[name]  # type: ignore[assignment]
    return found


def require_path(name: str, path: Path | None, *, wanted_by: str) -> None:
    """Refuse early an extractor whose weights were not given.

    Raises:
        WeightsError: Naming the file that is needed.
    """
    needs = loader(name).needs
    if path is None and needs is not None:
        raise WeightsError(
            f"{wanted_by} needs the weights of '{name}': {needs}",
            hint=f"add --extractor {name}=PATH, or choose other metrics with --metrics; nothing is "
            "downloaded",
        )


def first_resize(size: int) -> str:
    """The step all images go through, in words."""
    return f"bicubic-{size}"


class _Inception:
    needs = "a file pt_inception-2015-12-05-6726825d.pth, or one of its first layers"

    def load(self, path: Path | None, settings: ScoreSettings) -> Extractor:
        assert path is not None  # require_path came before
        file, sha256 = find_weights(path, _INCEPTION, what="inception")
        state = read_state_dict(file)
        widest = widest_level(state)
        level = settings.inception_features or widest
        if level > widest:
            raise WeightsError(
                f"inception: '{file}' has layers for {widest} features, not for {level}",
                hint=f"use --set inception_features={widest}, or the full checkpoint",
            )
        variant, size = settings.resize, settings.size

        def prepare(image: Pixels) -> npt.NDArray[np.float32]:
            return scale(resize(resize_image(image, size), SIDE, variant), variant)

        return Extractor(
            name=f"inception-{level}",
            sha256=sha256,
            width=level,
            resize=f"{first_resize(size)} > {variant}-{SIDE}",
            prepare=prepare,
            network=load_inception(state, level),
        )


class _LpipsLoader:
    def __init__(self, trunk: Trunk) -> None:
        self._trunk: Trunk = trunk
        names = " or ".join(k.name for k in _TRUNKS[trunk])
        self.needs: str | None = f"a folder with {_LINEAR[trunk].name} and {names}"

    def load(self, path: Path | None, settings: ScoreSettings) -> Perceptual:
        assert path is not None
        what = f"lpips-{self._trunk}"
        if not path.is_dir():
            raise WeightsError(
                f"{what}: '{path}' is no folder", hint=f"it wants {self.needs}, two files"
            )
        features, first = find_weights(path, _TRUNKS[self._trunk], what=what)
        linear, second = find_weights(path, [_LINEAR[self._trunk]], what=what)
        size = settings.size

        def prepare(image: Pixels) -> npt.NDArray[np.float32]:
            return _signed(resize_image(image, size))

        network = load_lpips(self._trunk, read_state_dict(features), read_state_dict(linear))
        return Perceptual(
            name=what,
            sha256=text_sha256(f"{first} {second}"),
            resize=first_resize(size),
            prepare=prepare,
            network=network,
        )


class _Random:
    """Random convolutions: no measure of anything, but a full chain without any weights."""

    needs = None

    def load(self, path: Path | None, settings: ScoreSettings) -> Extractor:
        if path is not None:
            raise ConfigError(
                f"extractor 'random' takes no weights, got '{path}'",
                hint="leave --extractor random=... out; its weights follow from the seed",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = RandomFeatures().eval().requires_grad_(False)
        size = settings.size

        def prepare(image: Pixels) -> npt.NDArray[np.float32]:
            return _signed(resize_image(resize_image(image, size), RANDOM_SIDE))

        return Extractor(
            name=f"random-{RANDOM_WIDTH}",
            sha256=text_sha256(f"random {settings.seed} {RANDOM_WIDTH}"),
            width=RANDOM_WIDTH,
            resize=f"{first_resize(size)} > bicubic-{RANDOM_SIDE}",
            prepare=prepare,
            network=network,
        )


class RandomFeatures(nn.Module):
    """Three strided convolutions and a spatial mean, (B, 3, 64, 64) to (B, 64)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, RANDOM_WIDTH)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean((2, 3))


def _signed(image: Pixels) -> npt.NDArray[np.float32]:
    planes = image.transpose(2, 0, 1).astype(np.float32)
    return np.asarray(planes / np.float32(127.5) - 1, dtype=np.float32)


inception = _Inception()
lpips_alex = _LpipsLoader("alex")
lpips_squeeze = _LpipsLoader("squeeze")
lpips_vgg = _LpipsLoader("vgg")
random = _Random()
