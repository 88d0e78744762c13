"""One counter-based random stream per purpose, sample and step.

Every draw is a function of (seed, names, counters). So an uninterrupted run, a resumed run, a run
on two processes and a run with another micro-batch see the same noise, and there is no generator
state to lose.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *stream: int | str) -> int:
    """A 63-bit seed from a base seed and the names and counters of a stream; stable for ever."""
    key = "/".join([str(int(seed)), *(str(part) for part in stream)])
    digest = hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *stream: int | str) -> torch.Generator:
    """A CPU generator at the start of the named stream."""
    import torch

    return torch.Generator("cpu").manual_seed(derive_seed(seed, *stream))


def normal(shape: tuple[int, ...], seed: int, *stream: int | str) -> torch.Tensor:
    """Standard normal float32 CPU tensor of the named stream."""
    import torch

    return torch.randn(shape, generator=generator(seed, *stream))
