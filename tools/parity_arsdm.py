"""Hold ArSDM's network and adaptive loss against numbers of its release at toy width.

    python tools/parity_arsdm.py FOLDER

FOLDER holds `meta.json` (configuration, published names and shapes, losses) and
`vectors.safetensors`. Weights are not stored: each tensor follows from its published name. They go
through the renaming that published checkpoints need. Exits with 1 if a number is out of tolerance:
1e-4 for the prediction, 1e-5 for all else.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from siamese_diffusion.diffusion.schedule import add_noise
from siamese_diffusion.generators.arsdm import one_hot
from siamese_diffusion.generators.run_folder import load_strictly
from siamese_diffusion.models.pixels import PixelSpace
from siamese_diffusion.models.settings import SpadeUNetSettings
from siamese_diffusion.models.spade_unet import SpadeUNet, from_release
from siamese_diffusion.objectives.adaptive import area_weights, weighted_l1

TOLERANCE, PREDICTION_TOLERANCE = 1e-5, 1e-4


class Line(NamedTuple):
    """One comparison: what, its relative error, what is allowed, and a remark."""

    name: str
    error: float
    tolerance: float
    remark: str = ""


def tensor(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """The values that a name stands for: a frozen stream seeded with the name's CRC-32."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    values = stream.standard_normal(int(np.prod(shape, dtype=np.int64))) * scale
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the state dict: vectors near 1 (weights) or 0 (biases), matrices scaled down."""
    if len(shape) <= 1:
        return (1.0 if name.endswith("weight") else 0.0) + tensor(name, shape, 0.1)
    return tensor(name, shape, (1.0 / int(np.prod(shape[1:], dtype=np.int64))) ** 0.5)


def check(folder: Path) -> Iterator[Line]:
    """Every stored number, computed again."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    stored = load_file(folder / "vectors.safetensors")
    config, schedule = meta["config"], meta["schedule"]
    network = SpadeUNet(
        SpadeUNetSettings(
            width=config["model_channels"],
            multipliers=tuple(config["channel_mult"]),
            blocks=config["num_res_blocks"],
            attention_factors=tuple(config["attention_resolutions"]),
            head_channels=config["num_head_channels"],
        )
    ).eval()
    count = sum(p.numel() for p in network.parameters())
    yield Line("parameters", abs(count / meta["parameters"] - 1), 0.0, f"{count:,}")
    state = {name: weight(name, tuple(shape)) for name, shape in meta["state"]}
    load_strictly(network, from_release(state), where=str(folder))

    space = PixelSpace(beta_start=schedule["linear_start"], beta_end=schedule["linear_end"])
    alpha_bar = space.scheduler.alphas_cumprod
    yield _line("alphas_cumprod", alpha_bar, stored["alphas_cumprod"])
    side = config["image_size"]
    x0 = tensor("x0", (2, 3, side, side), 0.5).clamp(-1, 1)
    eps = tensor("eps", (2, 3, side, side))
    coarse = (tensor("mask", (2, 1, side // 8, side // 8)) > 0.6).float()
    mask = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    t = torch.tensor(meta["inputs"]["t"])
    xt = add_noise(x0, eps, alpha_bar[t])
    yield _line("x_t", xt, stored["x_t"])
    with torch.no_grad():
        prediction = network(xt, t, one_hot(mask.expand(-1, 3, -1, -1)))
    yield _line("prediction", prediction, stored["prediction"], PREDICTION_TOLERANCE)
    weights = area_weights(mask)
    yield _line("adaptive weights", weights, stored["weights"])
    ones = torch.ones_like(weights)
    for name, factors in (("adaptive", weights), ("plain_l1", ones)):
        expected = torch.tensor(meta["losses"][f"{name}_per_sample"])
        found = torch.stack(
            [
                weighted_l1(stored["prediction"][i : i + 1], eps[i : i + 1], factors[i : i + 1])
                for i in range(len(t))
            ]
        )
        yield _line(f"{name} loss per sample", found, expected)


def _line(name: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> Line:
    error = float((found - expected).norm() / expected.norm())
    return Line(name, error, tolerance, f"norm {float(expected.norm()):.4g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    lines = list(check(parser.parse_args().folder))
    for line in lines:
        print(f"{line.name:28} {line.error:.1e} (allowed {line.tolerance:.0e})  {line.remark}")
    return int(any(not line.error <= line.tolerance for line in lines))


if __name__ == "__main__":
    sys.exit(main())
