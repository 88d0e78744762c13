"""Complete, verified, atomic checkpoints: a run continues from them bit for bit.

A checkpoint is a folder with weights (safetensors), optimizer state (read with weights-only
loading), every random stream, and a manifest of file hashes. It appears by one rename, so a kill
leaves either the whole of it or nothing; a damaged one is recognised and the one before is taken.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_folder,
    atomic_write_json,
    file_sha256,
    output_error,
    read_json,
    remove_leftovers,
    require_free_space,
)
from siamese_diffusion.core.errors import CheckpointError, OutputError
from siamese_diffusion.core.weights import write_tensors

_NAME = re.compile(r"step-(\d{8})")
_MANIFEST = "checkpoint.json"


@dataclass
class TrainingState:
    """Everything that changes during training.

    Attributes:
        step: Optimizer updates done.
        weights: Trained parameters by name.
        optimizer: The optimizer's state dict.
        average: Moving averages by name, if kept.
        scaler: The fp16 gradient scaler's state, if used.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    average: Mapping[str, Tensor] | None = None
    scaler: Mapping[str, Any] | None = None


def save_checkpoint(folder: Path, state: TrainingState, *, settings_hash: str, keep: int) -> Path:
    """Write `folder/step-<step>` and delete all but the last `keep`.

    Raises:
        OutputError: If the disk has no room for one more, before anything is written, or fails
            while it is written; the checkpoints before stay.
    """
    target = folder / f"step-{state.step:08d}"
    require_free_space(folder, _size(state))
    with atomic_folder(target) as temporary:
        write_tensors(temporary / "weights.safetensors", state.weights)
        if state.average is not None:
            write_tensors(temporary / "average.safetensors", state.average)
        rest = {"optimizer": dict(state.optimizer), "scaler": state.scaler}
        try:
            torch.save({**rest, "random": _random_state()}, temporary / "optimizer.pt")
        except RuntimeError as error:  # torch's writer does not say why; a full disk is why
            raise output_error(target, OSError(str(error).splitlines()[0])) from error
        hashes = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
        atomic_write_json(
            temporary / _MANIFEST,
            {"format": FORMAT, "step": state.step, "settings": settings_hash, "files": hashes},
        )
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    remove_leftovers(folder)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def load_latest(folder: Path) -> tuple[TrainingState | None, list[str]]:
    """The newest checkpoint that verifies, and a sentence for each that did not.

    Raises:
        CheckpointError: If there are checkpoints but none can be read.
    """
    damaged: list[str] = []
    candidates = list_checkpoints(folder)
    for path in reversed(candidates):
        try:
            return load_checkpoint(path), damaged
        except CheckpointError as error:
            damaged.append(error.message)
    if damaged:
        raise CheckpointError(
            "no checkpoint of this run can be read:\n" + "\n".join(damaged),
            hint=f"delete '{folder}' to start the run afresh",
        )
    return None, damaged


def load_checkpoint(path: Path) -> TrainingState:
    """Read one checkpoint after comparing every file with its recorded hash.

    Raises:
        CheckpointError: Naming the file that is missing or differs.
    """
    try:
        manifest = read_json(path / _MANIFEST)
    except OutputError as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: {error.message}") from error
    files, step = manifest.get("files"), manifest.get("step")
    if not isinstance(files, dict) or not isinstance(step, int) or "optimizer.pt" not in files:
        raise CheckpointError(f"checkpoint '{path}' is damaged: '{_MANIFEST}' lacks entries")
    for name, expected in files.items():
        if not (path / name).exists() or file_sha256(path / name) != expected:
            raise CheckpointError(f"checkpoint '{path}' is damaged: '{name}' is not what was saved")
    rest = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    _restore_random_state(rest["random"])
    average = path / "average.safetensors"
    return TrainingState(
        step=step,
        weights=load_file(path / "weights.safetensors"),
        optimizer=rest["optimizer"],
        average=load_file(average) if average.exists() else None,
        scaler=rest["scaler"],
    )


def _size(state: TrainingState) -> int:
    """Bytes of a checkpoint, with a tenth to spare."""
    tensors = [*state.weights.values(), *(state.average or {}).values()]
    for entry in state.optimizer.get("state", {}).values():
        tensors += [value for value in entry.values() if isinstance(value, Tensor)]
    return int(1.1 * sum(t.numel() * t.element_size() for t in tensors))


def _random_state() -> dict[str, Any]:
    """Global generators. Our own draws are counter-based; this covers whatever else draws."""
    version, key, gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(key), gauss],
        "numpy": [
            str(algorithm),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random_state(state: Mapping[str, Any]) -> None:
    version, key, gauss = state["python"]
    random.setstate((version, tuple(key), gauss))
    algorithm, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
