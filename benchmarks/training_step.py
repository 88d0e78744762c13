"""Samples/s of a training step beside a literal transcription of the authors' step.

    python -m benchmarks.training_step --device cuda
    python -m benchmarks.training_step --device cuda --micro-batch 6 24 --precision fp32 bf16
    python -m benchmarks.training_step --device cpu --small

Forward, backward and AdamW after K_tau, a fifth of the samples in Eq. (12). The literal step deep
copies both networks, runs the frozen encoder three times and Eq. (12) on the whole batch. Without
further options: the micro-batch of the paper, once as the release runs (fp32, checkpointing) beside
our default GPU precision, bf16, once at equal precision without checkpointing on either side.
"""

from __future__ import annotations

import torch

from benchmarks.record import Found, Line, beside, machine, rate_line, table, write
from benchmarks.stopwatch import take_turns
from benchmarks.workload import DTYPES, Steps, Workload, options, workload

QUESTION = "How many samples a second does a training step take, beside the release's own step?"
UNIT = "samples/s"
AS_RELEASED, EQUAL = 5.0, 2.0  # ratios asked for at full size on a GPU


def measure(load: Workload) -> Found:
    """Both comparisons at one micro-batch."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    n = load.micro_batch
    steps.lay_out("fp32")
    timings = take_turns(
        {
            "released": (lambda: steps.literal(n, "fp32", checkpointing=True), n),
            "literal": (lambda: steps.literal(n, "fp32"), n),
            "ours": (lambda: steps.ours(n, "fp32"), n),
        },
        load.device,
        repeats=load.repeats,
    )
    steps.lay_out("bf16")
    timings |= take_turns(
        {"fast": (lambda: steps.ours(n, "bf16"), n)}, load.device, repeats=load.repeats
    )
    released = rate_line("release's step, fp32, checkpointing", timings["released"], UNIT)
    literal = rate_line("release's step, fp32, no checkpointing", timings["literal"], UNIT)
    ours = rate_line("this project, fp32, no checkpointing", timings["ours"], UNIT)
    fast = rate_line("this project, bf16", timings["fast"], UNIT)
    lines = (
        released,
        beside(fast, released, target=load.target(AS_RELEASED)),
        literal,
        beside(ours, literal, target=load.target(EQUAL)),
    )
    return Found(
        "training_step",
        QUESTION,
        lines,
        (f"micro-batch {n} on both sides; bf16 is timed after the others",),
    )


def measure_grid(
    load: Workload, micro_batches: list[int], precisions: list[str], *, checkpointing: bool
) -> Found:
    """Both steps at every micro-batch and precision that fits."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    lines: list[Line] = []
    remarks = []
    for precision in precisions:
        steps.lay_out(precision)
        for n in micro_batches:
            name = f"{precision}, micro-batch {n}"
            try:
                timings = take_turns(
                    {
                        "literal": (
                            lambda n=n, p=precision: steps.literal(  # type: ignore[misc]
                                n, p, checkpointing=checkpointing
                            ),
                            n,
                        ),
                        "ours": (
                            lambda n=n, p=precision: steps.ours(  # type: ignore[misc]
                                n, p, checkpointing=checkpointing
                            ),
                            n,
                        ),
                    },
                    load.device,
                    repeats=load.repeats,
                )
            except torch.OutOfMemoryError:
                remarks.append(f"{name}: out of memory")
                continue
            literal = rate_line(f"release's step, {name}", timings["literal"], UNIT)
            ours = rate_line(f"this project, {name}", timings["ours"], UNIT)
            lines += [literal, beside(ours, literal)]
    remarks.append(f"gradient checkpointing {'on' if checkpointing else 'off'} on both sides")
    return Found("training_step", QUESTION, tuple(lines), tuple(remarks))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--micro-batch", type=int, nargs="+", help="samples of a step")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES))
    parser.add_argument("--checkpointing", action="store_true")
    asked = parser.parse_args()
    load = workload(asked)
    found = (
        measure_grid(
            load,
            asked.micro_batch or [load.micro_batch],
            asked.precision or list(DTYPES),
            checkpointing=asked.checkpointing,
        )
        if asked.micro_batch or asked.precision or asked.checkpointing
        else measure(load)
    )
    print(table(found))
    if asked.json is not None:
        write(asked.json, [found], scale=load.scale, about=machine(load.device))


if __name__ == "__main__":
    main()
