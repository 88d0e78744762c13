"""Reading weight files without executing code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from siamese_diffusion.core.errors import WeightsError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth, .pt, .bin or .ckpt file, by name, on the CPU.

    A nested `state_dict` or `module` (Lightning, DeepSpeed) is taken out. Pickles are read with
    weights-only loading, which refuses anything but tensors and plain containers.

    Raises:
        WeightsError: If the file is missing, damaged, holds code or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights file '{path}' does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' is a pickle that holds more than tensors, so it is not opened "
            f"({_reason(error)})",
            hint="save its state dict alone (torch.save(model.state_dict(), ...)) or convert it "
            "to .safetensors on a machine where you trust it",
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise WeightsError(f"weights file '{path}' cannot be read: {_reason(error)}") from error
    for key in ("state_dict", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = content if isinstance(content, Mapping) else {}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"weights file '{path}' holds no tensors")
    return tensors


def _reason(error: BaseException) -> str:
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return line.strip()[:160]
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
