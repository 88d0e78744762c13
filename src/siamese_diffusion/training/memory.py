"""Memory: how much was used, and what to change when there is not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from siamese_diffusion.core.errors import MemoryExhausted
from siamese_diffusion.training.settings import TrainSettings

SAMPLE_MEMORY_HINT = (
    "the sample grid does not fit: --set preview.pairs=1 or train.sample_every=0, with a new --out"
)


def peak_memory_mb(device: torch.device) -> float:
    """Highest memory so far: the device's allocator on CUDA, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**10 if sys.platform != "darwin" else peak / 2**20


def step_memory_hint(settings: TrainSettings, micro: int, share: int) -> str:
    """Which settings make a training step smaller, of those that are not yet chosen.

    Args:
        micro: Micro-batch in use.
        share: Samples of the effective batch that fall to one process.
    """
    ways = []
    if micro > 1:
        smaller = max(n for n in range(1, micro // 2 + 1) if share % n == 0)
        ways.append(f"train.micro_batch_size={smaller} (same result, more accumulation)")
    if not settings.gradient_checkpointing:
        ways.append("train.gradient_checkpointing=true")
    if settings.precision == "fp32":
        ways.append("train.precision=bf16")
    if settings.optimizer == "adamw":
        ways.append("train.optimizer=adamw8bit (GPU)")
    ways.append("a smaller data.size")
    return f"micro_batch_size is {micro}; --set {', '.join(ways)}, with a new --out"


@contextmanager
def oom_guard(hint: str) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what to change."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in text and "out of memory" not in text:
            raise
        reason = text.splitlines()[0][:120] if text else type(error).__name__
        raise MemoryExhausted(f"out of memory ({reason})", hint=hint) from error
