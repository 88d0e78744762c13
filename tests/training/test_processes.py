"""Devices by name, and the order of processes."""

from __future__ import annotations

import pytest
import torch

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.training.processes import (
    choose_device,
    first_process_first,
    join_processes,
)


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown device 'gpu'") as caught:
        choose_device("gpu")
    assert caught.value.hint == "choose one of: cpu, cuda"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"'cuda' was asked for, but torch finds no GPU"):
        choose_device("cuda")
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(None) == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_one_process_is_alone_and_first() -> None:
    processes = join_processes(torch.device("cpu"))
    assert (processes.num_processes, processes.is_main_process) == (1, True)
    assert processes.device == torch.device("cpu")
    ran = []
    with first_process_first(processes):
        ran.append(1)
    assert ran == [1]
