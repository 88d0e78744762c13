"""Times of several pieces of work, taken in turn, so that a busy machine is unfair to none."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of every repeat of one piece of work.

    Attributes:
        seconds: One value a repeat, warm-up not among them.
        units: Samples or images in one repeat.
        first: Seconds of the first, untimed run: compilation and autotuning are in it.
    """

    seconds: tuple[float, ...]
    units: int = 1
    first: float = 0.0

    @property
    def median(self) -> float:
        """Median seconds of a repeat."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Largest less smallest repeat, in seconds."""
        return max(self.seconds) - min(self.seconds)

    @property
    def rate(self) -> float:
        """Units a second at the median."""
        return self.units / self.median


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one run, with the device's queue empty before and after."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def take_turns(
    works: Mapping[str, tuple[Callable[[], object], int]],
    device: torch.device,
    *,
    repeats: int,
) -> dict[str, Timing]:
    """Time each of `works`, its units beside it, `repeats` times in turn after one warm-up each.

    Raises:
        ValueError: If `repeats` is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    first = {name: seconds_of(work, device) for name, (work, _) in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, (work, _) in works.items():
            seconds[name].append(seconds_of(work, device))
    return {
        name: Timing(tuple(seconds[name]), units, first[name]) for name, (_, units) in works.items()
    }
