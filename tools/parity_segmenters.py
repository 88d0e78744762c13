"""Hold SANet, Polyp-PVT and CTNet against numbers that the authors' published code computed.

A folder has `meta.json` (names and shapes of the published state dict, parameter count, losses, the
inputs used) and `vectors.safetensors` (outputs). Weights and inputs follow from their names through
`fill.py`, which lies two folders up.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from siamese_diffusion.segmentation import SEGMENTERS
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.checkpoints import load_published
from siamese_diffusion.segmentation.ctnet import CTNet
from siamese_diffusion.segmentation.losses import pixel_contrast, soft_dice_loss, structure_loss

OUTPUT_TOLERANCE = 1e-4  # norm of the difference over norm of the reference
LOSS_TOLERANCE = 1e-5


class Fill(Protocol):
    """The two functions of `fill.py`."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]: ...

    def state(self, names: list[object]) -> dict[str, npt.NDArray[np.generic]]: ...


@dataclass(frozen=True)
class Agreement:
    """One compared quantity and its relative error."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def check_segmenter(folder: Path) -> list[Agreement]:
    """Compare parameter count, outputs at every stored size and losses of one system."""
    fill = _load_fill(folder.parents[1] / "fill.py")
    meta = json.loads((folder / "meta.json").read_text())
    stored = load_file(folder / "vectors.safetensors")
    model = cast("Callable[[], Segmenter]", SEGMENTERS[folder.name])()
    state = {name: torch.from_numpy(v) for name, v in fill.state(meta["state"]).items()}
    load_published(model, state, where=str(folder))
    model.eval()
    count = sum(p.numel() for p in model.parameters())
    found = [Agreement("parameters", abs(count / meta["parameters"] - 1), 0.0)]
    for key, shape in meta["inputs"].items():
        kind, _, size = key.partition(".")
        if kind == "input":
            images = torch.from_numpy(fill.tensor(key, tuple(shape)))
            for i, output in enumerate(_outputs(model, images)):
                name = f"output{i}.{size}"
                found.append(Agreement(name, _relative(output, stored[name]), OUTPUT_TOLERANCE))
    for name, value in meta["losses"].items():
        if not name.endswith("note"):
            loss = float(_loss(name, model, stored, fill))
            found.append(Agreement(f"loss {name}", abs(loss - value) / abs(value), LOSS_TOLERANCE))
    return found


@torch.no_grad()
def _outputs(model: Segmenter, images: Tensor) -> Iterator[Tensor]:
    outputs = model(images)
    if outputs.auxiliary:
        yield from outputs.auxiliary.values()  # what is trained; the logits are their sum
        return
    yield outputs.logits
    if isinstance(model, CTNet):
        yield model.embedding(images)


def _loss(name: str, model: Segmenter, stored: dict[str, Tensor], fill: Fill) -> Tensor:
    kind, *rest = name.split(".")
    if kind == "contrastive":
        views = torch.from_numpy(fill.tensor("contrast.features", (4, 25, 32)))
        return pixel_contrast(F.normalize(views, dim=-1), torch.tensor([0, 1, 0, 1]))
    sizes = [key.partition(".")[2] for key in stored]
    size = rest[-1] if rest and rest[-1] in sizes else sizes[0]
    output = stored[f"{rest[0] if kind == 'structure' else 'output0'}.{size}"]
    side = int(size) // 32
    cells = torch.from_numpy(fill.tensor(f"mask.{size}", (len(output), 1, side, side))) > 0
    mask = cells.float().repeat_interleave(32, 2).repeat_interleave(32, 3)
    z = model.resize(output, mask.shape[2:])
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(z, mask)
    return soft_dice_loss(z, mask) if kind == "dice" else structure_loss(z, mask)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _load_fill(path: Path) -> Fill:
    spec = importlib.util.spec_from_file_location("parity_fill", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Fill", module)


if __name__ == "__main__":
    agreements = check_segmenter(Path(sys.argv[1]))
    for a in agreements:
        print(f"{'ok ' if a.ok else 'BAD'} {a.name}: {a.error:.1e} (at most {a.tolerance:.0e})")
    sys.exit(0 if all(a.ok for a in agreements) else 1)
