"""Hours of the paper's Polyps training, estimated from measured steps before and after K_tau.

    python -m benchmarks.paper_training --device cuda

3,000 iterations of 48 samples (paper, Sec. 4.2), the first third before K_tau. Several
micro-batches are tried; the fastest counts. At a small size the minutes mean nothing but that the
script works.
"""

from __future__ import annotations

import torch

from benchmarks.record import Found, Line, rate_line
from benchmarks.stopwatch import take_turns
from benchmarks.workload import AFTER, BEFORE, Steps, Workload, run_alone

QUESTION = "How long does the paper's training on Polyps take (3,000 iterations of 48)?"
ITERATIONS, BATCH = 3000, 48
HALF_AN_HOUR = 30.0  # minutes, asked for on one H100-class GPU at full size


def measure(load: Workload) -> Found:
    """Rates at the fastest micro-batch, and the time they add up to."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    steps.lay_out("bf16")
    best: tuple[float, list[Line]] | None = None
    remarks = []
    for n in (4, 8) if load.small else (6, 12, 24, 48):
        try:
            timings = take_turns(
                {
                    "before": (lambda n=n: steps.ours(n, "bf16", k=BEFORE), n),  # type: ignore[misc]
                    "after": (lambda n=n: steps.ours(n, "bf16", k=AFTER), n),  # type: ignore[misc]
                },
                load.device,
                repeats=load.repeats,
            )
        except torch.OutOfMemoryError:
            remarks.append(f"micro-batch {n}: out of memory")
            continue
        minutes = training_minutes(timings["before"].rate, timings["after"].rate)
        if best is None or minutes < best[0]:
            lines = [
                rate_line(f"up to K_tau, bf16, micro-batch {n}", timings["before"], "samples/s"),
                rate_line(f"after K_tau, bf16, micro-batch {n}", timings["after"], "samples/s"),
                Line("3,000 iterations of 48", minutes, "minutes"),
            ]
            best = (minutes, lines)
    if best is None:
        return Found("paper_training", QUESTION, (), tuple(remarks))
    remarks.append(
        f"steps alone, without validation, grids and checkpoints; {HALF_AN_HOUR:g} minutes are "
        "asked for on one H100-class GPU at full size"
    )
    return Found("paper_training", QUESTION, tuple(best[1]), tuple(remarks))


def training_minutes(before: float, after: float) -> float:
    """Minutes of 3,000 x 48 samples, a third at the rate `before`, the rest at `after`."""
    samples = ITERATIONS * BATCH
    return (samples / 3 / before + 2 * samples / 3 / after) / 60


if __name__ == "__main__":
    run_alone(measure, __doc__)
