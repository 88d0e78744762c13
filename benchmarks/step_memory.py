"""Peak memory of a training step.

    python -m benchmarks.step_memory --device cuda
    python -m benchmarks.step_memory --device cpu --small

On CUDA the allocator's peak; on a CPU the bytes of all tensors that live at once, weights and
optimizer included, added up operation by operation (the resident set would also show what building
the base took). At full size, six samples are to fit in 24 GB, and one in 12 GB with 8-bit AdamW,
which needs a package of its own and is not run here.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext

import torch

from benchmarks.record import Found, Line, beside
from benchmarks.stopwatch import synchronize
from benchmarks.workload import Steps, Workload, run_alone
from siamese_diffusion.generators.peak_memory import LiveBytes
from siamese_diffusion.training.memory import peak_memory_mb

QUESTION = "How much memory does a training step take at its peak, beside the release's own step?"
HALF = 2.0  # at most half of the release's
SIDES = {
    "release's step, fp32, checkpointing": ("literal", "fp32", True),
    "release's step, fp32, no checkpointing": ("literal", "fp32", False),
    "this project, fp32, no checkpointing": ("ours", "fp32", False),
    "this project, bf16": ("ours", "bf16", False),
    "this project, bf16, checkpointing": ("ours", "bf16", True),
}


def measure(load: Workload) -> Found:
    """Every side at the paper's micro-batch, and the smallest setting at one sample."""
    lines: list[Line] = []
    n = load.micro_batch
    for name, side in SIDES.items():
        lines.append(Line(name, peak_of(load, *side, n=n), "MB"))
    released = lines[0]
    lines[2:] = [beside(line, released, target=load.target(HALF), less=True) for line in lines[2:]]
    smallest = peak_of(load, "ours", "bf16", True, n=1)
    lines.append(Line("this project, bf16, checkpointing, micro-batch 1", smallest, "MB"))
    how = "allocator's peak" if load.device.type == "cuda" else "tensors that live at once"
    remarks: tuple[str, ...] = (
        f"micro-batch {n} where nothing else is said; {how}; fused AdamW, fp32 moments",
    )
    return Found("step_memory", QUESTION, tuple(lines), remarks)


def peak_of(load: Workload, kind: str, precision: str, checkpointing: bool, n: int) -> float:
    """Peak MB of two steps, the first of which makes the optimizer's state."""
    gc.collect()  # of the side before
    if load.device.type == "cuda":
        torch.cuda.empty_cache()
    base = load.base()
    generator = load.generator(base)
    steps = Steps(base, generator, load)
    steps.lay_out(precision)
    run = steps.ours if kind == "ours" else steps.literal
    device = load.device
    modules = (generator.objective, base.vae, base.text_encoder)
    weights = [tensor for module in modules for tensor in module.parameters()]
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    live = None if on_cuda else LiveBytes(weights)
    with nullcontext() if live is None else live:
        for _ in range(2):
            run(n, precision, checkpointing=checkpointing)
    synchronize(device)
    if live is None:
        return peak_memory_mb(device)
    return float(live.peak + sum(w.numel() * w.element_size() for w in weights)) / 2**20


if __name__ == "__main__":
    run_alone(measure, __doc__)
