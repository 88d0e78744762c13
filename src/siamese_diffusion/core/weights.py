"""Reading weight files without executing code, and writing them whole.

torch and safetensors are imported only when a file is read or written.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from siamese_diffusion.core.artifacts import make_folder, output_error, sync_folder
from siamese_diffusion.core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth, .pt, .bin or .ckpt file, by name, on the CPU.

    A nested `state_dict` or `module` (Lightning, DeepSpeed) is taken out. Pickles are read with
    weights-only loading, which refuses anything but tensors and plain containers.

    Raises:
        WeightsError: If the file is missing, damaged, holds code or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights file '{path}' does not exist")
    import torch
    from safetensors.torch import load_file

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
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise WeightsError(f"weights file '{path}' holds no tensors")
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file in a folder that is not in use yet; see `store_tensors`.

    Raises:
        OutputError: If the disk is full or the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:  # hides the system's reason in its text
        number = re.search(r"os error (\d+)", str(error))
        cause = OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(error)
        raise output_error(path, cause) from error


def store_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file so that it is there whole or not at all.

    Raises:
        OutputError: If the disk is full or the file cannot be written.
    """
    # In a folder of its own: the library writes beside the file under a name we would not know.
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    make_folder(temporary)
    try:
        write_tensors(temporary / path.name, tensors)
        os.replace(temporary / path.name, path)
        sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Which tensors of `state` are missing, unexpected or misshapen beside `own`; "" if none."""
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
    return "; ".join(problems[:20]) + more


def _reason(error: BaseException) -> str:
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return line.strip()[:160]
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__
