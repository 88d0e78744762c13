"""Timings: order of turns, medians, units."""

from __future__ import annotations

import pytest
import torch
from benchmarks.stopwatch import Timing, take_turns

CPU = torch.device("cpu")


def test_work_takes_turns_after_one_warm_up_each() -> None:
    calls: list[str] = []
    found = take_turns(
        {"a": (lambda: calls.append("a"), 3), "b": (lambda: calls.append("b"), 1)}, CPU, repeats=2
    )
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert [len(timing.seconds) for timing in found.values()] == [2, 2]
    assert found["a"].units == 3


def test_the_rate_is_that_of_the_median_repeat() -> None:
    timing = Timing((4.0, 1.0, 2.0), units=6)
    assert (timing.median, timing.spread, timing.rate) == (2.0, 3.0, 3.0)


def test_no_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="repeats must be 1 or more, got 0"):
        take_turns({}, CPU, repeats=0)
