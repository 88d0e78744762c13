"""ArSDM's U-Net: pixels in, noise out; the mask enters by SPADE in the middle and on the way up.

    encoder   first convolution; per level n residual blocks (with attention at some levels) and a
              residual block that halves
    middle    SPADE block, attention, SPADE block
    decoder   per level n + 1 SPADE blocks on the running map and one stored map each, and a SPADE
              block that doubles

Source: ArSDM (MICCAI 2023) on the U-Net of guided diffusion; written from a description.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from siamese_diffusion.models.settings import SpadeUNetSettings

LABELS = 2  # background and lesion, one-hot
_GROUPS = 32
_HIDDEN = 128  # width between mask and modulation


class SpadeUNet(nn.Module):
    """Noise prediction for images under a one-hot mask.

    Args:
        settings: Width and depth.
    """

    def __init__(self, settings: SpadeUNetSettings) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        width, n = settings.width, settings.blocks
        widths = [width * factor for factor in settings.multipliers]
        time = 4 * width
        self._frequencies = width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        stored, current = [width], width
        for level, wide in enumerate(widths):
            attended = 2**level in settings.attention_factors
            for _ in range(n):
                self.down.append(_Stage(current, wide, time, settings, attended=attended))
                stored.append(wide)
                current = wide
            if level < len(widths) - 1:
                self.down.append(_Stage(wide, wide, time, settings, resample="down"))
                stored.append(wide)
        self.middle = nn.ModuleList(
            [
                ResidualBlock(current, current, time, spade=True),
                Attention(current, settings.head_channels),
                ResidualBlock(current, current, time, spade=True),
            ]
        )
        self.up = nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            attended = 2**level in settings.attention_factors
            for place in range(n + 1):
                grows = level > 0 and place == n
                self.up.append(
                    _Stage(
                        current + stored.pop(),
                        wide,
                        time,
                        settings,
                        attended=attended,
                        spade=True,
                        grows=grows,
                    )
                )
                current = wide
        self.out_norm = nn.GroupNorm(_GROUPS, current)
        self.out_conv = _zeroed(nn.Conv2d(current, 3, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Noise prediction, (B, 3, H, W).

        Args:
            x: Noisy image, (B, 3, H, W), sides multiples of `SpadeUNetSettings.factor`.
            t: Timesteps, (B,).
            labels: One-hot mask, (B, 2, H, W), background first.
        """
        embedding = self.time(frequencies(t.to(x.device), self._frequencies).to(x.dtype))
        h = self.first(x)
        stored = [h]
        for stage in self.down:
            h = self._run(stage, h, embedding, labels)
            stored.append(h)
        first, attention, second = self.middle
        h = self._run(first, h, embedding, labels)
        h = self._run(second, attention(h), embedding, labels)
        for stage in self.up:
            h = self._run(stage, torch.cat([h, stored.pop()], 1), embedding, labels)
        out: Tensor = self.out_conv(F.silu(_normalise(self.out_norm, h, labels)))
        return out

    def _run(self, stage: nn.Module, h: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out = checkpoint(stage, h, embedding, labels, use_reentrant=False)
        else:
            out = stage(h, embedding, labels)
        assert isinstance(out, Tensor)
        return out


class _Stage(nn.Module):
    """A residual block, attention where the level has it, and a doubling at the end of a level."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        time: int,
        settings: SpadeUNetSettings,
        *,
        attended: bool = False,
        spade: bool = False,
        resample: str | None = None,
        grows: bool = False,
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(c_in, c_out, time, spade=spade, resample=resample)
        self.attention = Attention(c_out, settings.head_channels) if attended else None
        self.grow = ResidualBlock(c_out, c_out, time, spade=spade, resample="up") if grows else None

    def forward(self, h: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
        h = self.block(h, embedding, labels)
        if self.attention is not None:
            h = self.attention(h)
        if self.grow is not None:
            h = self.grow(h, embedding, labels)
        return h


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions with the time as scale and shift between them.

    Args:
        spade: Normalise by SPADE instead of GroupNorm.
        resample: "down" (2x2 average) or "up" (nearest): after the first normalisation, on both
            paths, without a convolution of its own.
    """

    def __init__(
        self, c_in: int, c_out: int, time: int, *, spade: bool, resample: str | None = None
    ) -> None:
        super().__init__()
        norm = Spade if spade else _group_norm
        self.norm1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time, 2 * c_out)
        self.norm2 = norm(c_out)
        self.conv2 = _zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self._resample = resample

    def forward(self, x: Tensor, embedding: Tensor, labels: Tensor) -> Tensor:
        h = F.silu(_normalise(self.norm1, x, labels))
        if self._resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self._resample == "up":
            h, x = (F.interpolate(part, scale_factor=2, mode="nearest") for part in (h, x))
        h = self.conv1(h)
        scale, shift = self.time(F.silu(embedding))[..., None, None].chunk(2, 1)
        h = _normalise(self.norm2, h, labels) * (1 + scale) + shift
        out: Tensor = self.conv2(F.silu(h)) + self.skip(x)
        return out


class Spade(nn.Module):
    """GroupNorm without weights, then scale and shift per pixel from the mask."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(LABELS, _HIDDEN, 3, padding=1)
        self.gamma = nn.Conv2d(_HIDDEN, width, 3, padding=1)
        self.beta = nn.Conv2d(_HIDDEN, width, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        normal = F.group_norm(x.float(), _GROUPS, eps=1e-5).to(x.dtype)
        at_size = F.interpolate(labels, size=x.shape[-2:], mode="nearest")
        hidden = F.relu(self.shared(at_size))
        out: Tensor = normal * (1 + self.gamma(hidden)) + self.beta(hidden)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over all positions, residual, zero at the start.

    Channels of the joint projection are grouped by head first, then by query, key and value, as
    in the release.
    """

    def __init__(self, width: int, head_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.out = _zeroed(nn.Conv1d(width, width, 1))
        self._heads = width // head_channels

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        flat = x.flatten(2)  # (B, C, N)
        joint = self.qkv(_normalise(self.norm, flat, None))
        grouped = joint.view(b, self._heads, 3, c // self._heads, height * width)
        q, k, v = grouped.transpose(-1, -2).unbind(2)  # (B, heads, N, C / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        out = flat + self.out(mixed.transpose(-1, -2).reshape(b, c, height * width))
        result: Tensor = out.view(b, c, height, width)
        return result


def frequencies(t: Tensor, width: int) -> Tensor:
    """Sinusoids of timesteps (B,), cosines first, periods up to 10,000: (B, width) float32."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def from_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint (of the U-Net alone) to this module's names."""
    return {_own_name(name): value for name, value in state.items()}


_INNER = {
    "in_layers.0": "norm1",
    "in_layers.1": "conv1",  # in SPADE blocks, whose normalisation has a name of its own
    "in_layers.2": "conv1",
    "in_norm": "norm1",
    "emb_layers.1": "time",
    "out_norm": "norm2",
    "out_layers.0": "norm2",
    "out_layers.2": "conv2",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
    "mlp_shared.0": "shared",
    "mlp_gamma": "gamma",
    "mlp_beta": "beta",
    "proj_out": "out",
}


def _own_name(name: str) -> str:
    outer = {
        r"^time_embed\.": "time.",
        r"^input_blocks\.0\.0\.": "first.",
        r"^out\.0\.": "out_norm.",
        r"^out\.2\.": "out_conv.",
    }
    for pattern, own in outer.items():
        if re.match(pattern, name):
            return re.sub(pattern, own, name)
    found = re.match(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.*)", name)
    if found:
        side, index, place, rest = found.groups()
        where = f"down.{int(index) - 1}" if side == "input_blocks" else f"up.{index}"
        attends = re.match(r"(norm|qkv|proj_out)\.", rest)
        part = "block" if place == "0" else "attention" if attends else "grow"
        name = f"{where}.{part}.{rest}"
    else:
        name = name.replace("middle_block.", "middle.")
    for published, own in _INNER.items():
        name = name.replace(f".{published}.", f".{own}.")
    return name


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width)


def _normalise(norm: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """GroupNorm in float32, or SPADE."""
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(
            x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps
        ).to(x.dtype)
    out = norm(x, labels)
    assert isinstance(out, Tensor)
    return out


def _zeroed(module: nn.Conv2d | nn.Conv1d) -> nn.Conv2d | nn.Conv1d:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
