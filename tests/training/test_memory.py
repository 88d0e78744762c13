"""Out of memory: which settings to change, of those that help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.errors import MemoryExhausted
from siamese_diffusion.training.memory import oom_guard, peak_memory_mb, step_memory_hint
from training.toy import settings_of


@pytest.mark.parametrize(
    ("micro", "share", "expected"),
    [(48, 48, 24), (6, 48, 3), (9, 9, 3), (5, 5, 1), (7, 14, 2), (2, 6, 1)],
)
def test_the_smaller_micro_batch_divides_the_batch(micro: int, share: int, expected: int) -> None:
    assert share % expected == 0
    assert f"train.micro_batch_size={expected} " in step_memory_hint(settings_of(), micro, share)


def test_only_settings_that_are_not_yet_chosen_are_named() -> None:
    hint = step_memory_hint(settings_of(), 4, 4)
    for way in ("gradient_checkpointing=true", "precision=bf16", "adamw8bit", "data.size"):
        assert way in hint
    small = settings_of(gradient_checkpointing=True, precision="bf16", optimizer="adamw8bit")
    hint = step_memory_hint(small, 1, 4)
    assert hint == "micro_batch_size is 1; --set a smaller data.size, with a new --out"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000000000000 bytes."
        ),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_every_kind_of_exhausted_memory_is_recognised(error: Exception) -> None:
    with (
        pytest.raises(MemoryExhausted, match=r"^out of memory \(\S.*\)") as caught,
        oom_guard("do"),
    ):
        raise error
    assert caught.value.hint == "do"
    assert "\n" not in caught.value.message


def test_a_real_allocation_that_cannot_be_is_recognised() -> None:
    with pytest.raises(MemoryExhausted, match=r"allocate"), oom_guard("smaller"):
        torch.empty(2**52, dtype=torch.uint8)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes"), oom_guard("do"):
        raise RuntimeError("shapes differ")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_peak_memory_is_that_of_the_system() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    assert peak_memory_mb(torch.device("cpu")) == pytest.approx(peak / 1024, rel=0.02)
