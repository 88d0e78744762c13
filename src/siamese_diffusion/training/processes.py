"""On which device a training runs, with which other processes, and who of them writes first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from siamese_diffusion.core.errors import ConfigError

DEVICES = ("cpu", "cuda")
# How long processes wait for the first one, which may encode a large data set meanwhile.
_PATIENCE = timedelta(hours=6)


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the GPU if there is one.

    Raises:
        ConfigError: If the name is unknown or there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in DEVICES:
        raise ConfigError(f"unknown device '{name}'", hint=f"choose one of: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device 'cuda' was asked for, but torch finds no GPU",
            hint="leave --device out to train on the CPU, or see: siamdiff doctor",
        )
    return torch.device(name)


def join_processes(device: torch.device) -> PartialState:
    """This process's place among those that torchrun started; alone without torchrun."""
    # accelerate keeps device and precision for the whole process; two trainings may differ
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    return PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)


@contextmanager
def first_process_first(state: PartialState) -> Iterator[None]:
    """Run the block in the first process, then in the others, which find what it wrote.

    If the first one fails, the others stay in waiting, and torchrun ends them: one message.
    """
    with state.main_process_first():
        yield
