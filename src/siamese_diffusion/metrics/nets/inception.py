"""The Inception-v3 of FID ("2015-12-05"), with batch norm folded into its convolutions.

Not torchvision's network: other weights, averages that leave padding out, and a max pool in the
last block. Knows nothing of files, images or metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.core.errors import WeightsError

Level = Literal[64, 192, 768, 2048]
SIDE: Final = 299  # pixels
_BATCH_NORM_EPS: Final = 0.001
_FULL_MARK: Final = "Conv2d_1a_3x3.conv.weight"  # only the unfolded checkpoint has this name
_CLASSIFIER: Final = ("fc.weight", "fc.bias")  # never used by FID

# Convolutions of a block: name -> (channels out, kernel height, kernel width, stride, padded).
_Branch = tuple[tuple[str, int, int, int, int, bool], ...]


class Conv(nn.Conv2d):
    """Convolution with bias, then ReLU."""

    def __init__(
        self, c_in: int, c_out: int, height: int, width: int, stride: int, padded: bool
    ) -> None:
        padding = (height // 2, width // 2) if padded else (0, 0)
        super().__init__(c_in, c_out, (height, width), stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class _Block(nn.Module):
    """Branches side by side, concatenated; the last may start with a pool.

    Args:
        c_in: Channels that come in.
        branches: Each a chain of convolutions.
        pool: How the last branch starts: `average` (padding not counted), `max`, or `max2`, a
            pool of stride 2 that is a whole branch of its own.
    """

    def __init__(
        self, c_in: int, branches: tuple[_Branch, ...], *, pool: Literal["average", "max", "max2"]
    ) -> None:
        super().__init__()
        self.pool = pool
        self.chains = [tuple(step[0] for step in branch) for branch in branches]
        self.c_out = c_in if pool == "max2" else 0
        for branch in branches:
            channels = c_in
            for name, c_out, height, width, stride, padded in branch:
                self.add_module(name, Conv(channels, c_out, height, width, stride, padded))
                channels = c_out
            self.c_out += channels

    def _run(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._run(names, x) for names in self.chains[:-1]]
        if self.pool == "max2":
            outputs += [self._run(self.chains[-1], x), F.max_pool2d(x, 3, stride=2)]
        elif self.pool == "max":
            outputs.append(self._run(self.chains[-1], F.max_pool2d(x, 3, stride=1, padding=1)))
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            outputs.append(self._run(self.chains[-1], pooled))
        return torch.cat(outputs, 1)


class _BlockE(nn.Module):
    """The widest block, two of whose branches fork into a flat and a tall convolution."""

    c_out = 2048

    def __init__(self, c_in: int, *, pool: Literal["average", "max"]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = Conv(c_in, 320, 1, 1, 1, True)
        self.branch3x3_1 = Conv(c_in, 384, 1, 1, 1, True)
        self.branch3x3_2a = Conv(384, 384, 1, 3, 1, True)
        self.branch3x3_2b = Conv(384, 384, 3, 1, 1, True)
        self.branch3x3dbl_1 = Conv(c_in, 448, 1, 1, 1, True)
        self.branch3x3dbl_2 = Conv(448, 384, 3, 3, 1, True)
        self.branch3x3dbl_3a = Conv(384, 384, 1, 3, 1, True)
        self.branch3x3dbl_3b = Conv(384, 384, 3, 1, 1, True)
        self.branch_pool = Conv(c_in, 192, 1, 1, 1, True)

    def forward(self, x: Tensor) -> Tensor:
        short = self.branch3x3_1(x)
        long = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        if self.pool == "max":
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        outputs = [self.branch1x1(x)]
        outputs += [self.branch3x3_2a(short), self.branch3x3_2b(short)]
        outputs += [self.branch3x3dbl_3a(long), self.branch3x3dbl_3b(long)]
        return torch.cat([*outputs, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Images (B, 3, 299, 299), nominally in [-1, 1], to features (B, level) float32.

    Args:
        level: Width of the features. The network ends where they are taken: a spatial mean after
            the first pool (64), the second (192), Mixed_6e (768) or Mixed_7c (2048).
    """

    def __init__(self, level: Level = 2048) -> None:
        super().__init__()
        self.level = level
        stages: list[tuple[str, nn.Module]] = [
            ("Conv2d_1a_3x3", Conv(3, 32, 3, 3, 2, False)),
            ("Conv2d_2a_3x3", Conv(32, 32, 3, 3, 1, False)),
            ("Conv2d_2b_3x3", Conv(32, 64, 3, 3, 1, True)),
            ("pool1", nn.MaxPool2d(3, stride=2)),
        ]
        if level > 64:
            stages += [
                ("Conv2d_3b_1x1", Conv(64, 80, 1, 1, 1, True)),
                ("Conv2d_4a_3x3", Conv(80, 192, 3, 3, 1, False)),
                ("pool2", nn.MaxPool2d(3, stride=2)),
            ]
        if level > 192:
            stages += [
                ("Mixed_5b", _block_a(192, 32)),
                ("Mixed_5c", _block_a(256, 64)),
                ("Mixed_5d", _block_a(288, 64)),
                ("Mixed_6a", _block_b(288)),
                ("Mixed_6b", _block_c(128)),
                ("Mixed_6c", _block_c(160)),
                ("Mixed_6d", _block_c(160)),
                ("Mixed_6e", _block_c(192)),
            ]
        if level > 768:
            stages += [
                ("Mixed_7a", _block_d(768)),
                ("Mixed_7b", _BlockE(1280, pool="average")),
                ("Mixed_7c", _BlockE(2048, pool="max")),
            ]
        self.names = [name for name, _ in stages]
        for name, stage in stages:
            self.add_module(name, stage)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def load_inception(state: Mapping[str, Tensor], level: Level) -> Inception:
    """A network in evaluation mode from the full checkpoint or from folded convolutions.

    Args:
        state: Tensors with torchvision's names; batch norms are folded in float64. Layers beyond
            `level` and the classifier are left aside.
        level: Width of the features.

    Raises:
        WeightsError: Naming what is missing, unknown or of another shape.
    """
    folded = fold_batch_norm(state) if _FULL_MARK in state else dict(state)
    network = Inception(level).eval().requires_grad_(False)
    wanted = network.state_dict()
    known = Inception(2048).state_dict().keys() if level != 2048 else wanted.keys()
    missing = [name for name in wanted if name not in folded]
    unknown = [name for name in folded if name not in known]
    shaped = [
        f"{name} is {tuple(folded[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in folded and folded[name].shape != tensor.shape
    ]
    if missing or unknown or shaped:
        parts = [f"missing: {_some(missing)}"] if missing else []
        parts += [f"unknown: {_some(unknown)}"] if unknown else []
        raise WeightsError(
            f"these are not the weights of FID's Inception at {level} features "
            f"({'; '.join(parts + shaped[:3])})",
            hint="use pt_inception-2015-12-05-6726825d.pth, or fewer features if the file holds "
            "only the first layers",
        )
    network.load_state_dict({name: folded[name].float() for name in wanted})
    return network


def widest_level(state: Mapping[str, Tensor]) -> Level:
    """The widest features that a checkpoint has layers for."""
    stages = {name.partition(".")[0] for name in state}
    for level, last in ((2048, "Mixed_7c"), (768, "Mixed_6e"), (192, "Conv2d_4a_3x3")):
        if last in stages:
            return level  # type: ignore[return-value]
    return 64


def fold_batch_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold every `<name>.bn` into its `<name>.conv`; the result has `<name>.weight`, `.bias`.

    Raises:
        WeightsError: If a convolution lacks its batch norm.
    """
    folded = {}
    for key, weight in state.items():
        name, conv, _ = key.partition(".conv.weight")
        if not conv:
            if not (".bn." in key or key in _CLASSIFIER):
                folded[key] = weight  # unknown to us: told of by the caller
            continue
        norm = {}
        for part in ("weight", "bias", "running_mean", "running_var"):
            if f"{name}.bn.{part}" not in state:
                raise WeightsError(f"'{key}' has no '{name}.bn.{part}' beside it")
            norm[part] = state[f"{name}.bn.{part}"].double()
        scale = norm["weight"] / (norm["running_var"] + _BATCH_NORM_EPS).sqrt()
        folded[f"{name}.weight"] = (weight.double() * scale[:, None, None, None]).float()
        folded[f"{name}.bias"] = (norm["bias"] - norm["running_mean"] * scale).float()
    return folded


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _block_a(c_in: int, pool_width: int) -> _Block:
    return _Block(
        c_in,
        (
            (("branch1x1", 64, 1, 1, 1, True),),
            (("branch5x5_1", 48, 1, 1, 1, True), ("branch5x5_2", 64, 5, 5, 1, True)),
            (
                ("branch3x3dbl_1", 64, 1, 1, 1, True),
                ("branch3x3dbl_2", 96, 3, 3, 1, True),
                ("branch3x3dbl_3", 96, 3, 3, 1, True),
            ),
            (("branch_pool", pool_width, 1, 1, 1, True),),
        ),
        pool="average",
    )


def _block_b(c_in: int) -> _Block:
    return _Block(
        c_in,
        (
            (("branch3x3", 384, 3, 3, 2, False),),
            (
                ("branch3x3dbl_1", 64, 1, 1, 1, True),
                ("branch3x3dbl_2", 96, 3, 3, 1, True),
                ("branch3x3dbl_3", 96, 3, 3, 2, False),
            ),
        ),
        pool="max2",
    )


def _block_c(inner: int) -> _Block:
    return _Block(
        768,
        (
            (("branch1x1", 192, 1, 1, 1, True),),
            (
                ("branch7x7_1", inner, 1, 1, 1, True),
                ("branch7x7_2", inner, 1, 7, 1, True),
                ("branch7x7_3", 192, 7, 1, 1, True),
            ),
            (
                ("branch7x7dbl_1", inner, 1, 1, 1, True),
                ("branch7x7dbl_2", inner, 7, 1, 1, True),
                ("branch7x7dbl_3", inner, 1, 7, 1, True),
                ("branch7x7dbl_4", inner, 7, 1, 1, True),
                ("branch7x7dbl_5", 192, 1, 7, 1, True),
            ),
            (("branch_pool", 192, 1, 1, 1, True),),
        ),
        pool="average",
    )


def _block_d(c_in: int) -> _Block:
    return _Block(
        c_in,
        (
            (("branch3x3_1", 192, 1, 1, 1, True), ("branch3x3_2", 320, 3, 3, 2, False)),
            (
                ("branch7x7x3_1", 192, 1, 1, 1, True),
                ("branch7x7x3_2", 192, 1, 7, 1, True),
                ("branch7x7x3_3", 192, 7, 1, 1, True),
                ("branch7x7x3_4", 192, 3, 3, 2, False),
            ),
        ),
        pool="max2",
    )
