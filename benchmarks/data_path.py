"""Time and bytes from cached latents to a batch on the device, beside the step that waits for it.

    python -m benchmarks.data_path --device cuda
    python -m benchmarks.data_path --device cpu --small

A phantom set, encoded as `fit` does it; batches are those of the real training task.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.record import Found, Line
from benchmarks.stopwatch import take_turns
from benchmarks.workload import Steps, Workload, autocast, run_alone
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.task import PairTask
from siamese_diffusion.generators.tensors import pair_tensors

QUESTION = "Does the training step wait for its data?"
PAIRS = 24


def measure(load: Workload) -> Found:
    """A batch from the cache, and forward and backward on it."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    steps.lay_out("bf16")
    n = load.micro_batch
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantoms"
        write_phantom(data, pairs=PAIRS, seed=0, size=load.size)
        tensors = pair_tensors(
            base,
            PairFolder.open(data),
            size=load.size,
            cache=Path(folder) / "cache",
            device=load.device,
            base_sha256="benchmark",
            quiet=True,
        )
        task = PairTask(
            steps.generator,
            base,
            tensors,
            tensors,
            settings=SiameseFitSettings(),
            paths=RunPaths(Path(folder)),
        )
        counter = iter(range(10**9))

        def batch() -> dict[str, torch.Tensor]:
            return task.batch(next(counter), range(n), load.device)

        ready = batch()

        def step() -> None:
            with autocast(load.device, "bf16"):
                terms = steps.generator.objective(2000, ready)
            losses = [value for name, value in terms.items() if name.startswith("loss/")]
            torch.autograd.backward(torch.stack(losses).sum())
            steps.generator.objective.zero_grad(set_to_none=True)

        timings = take_turns(
            {"batch": (batch, n), "step": (step, n)}, load.device, repeats=load.repeats
        )
    made, spent = timings["batch"], timings["step"]
    moved = sum(t.numel() * t.element_size() for name, t in ready.items() if name != "t")
    lines = (
        Line("a batch from the cache to the device", 1000 * made.median, "ms", 1000 * made.spread),
        Line("forward and backward on it, bf16", 1000 * spent.median, "ms", 1000 * spent.spread),
        Line("share of the batch", 100 * made.median / (made.median + spent.median), "%"),
        Line("bytes of a sample on the device", moved / n, "bytes"),
    )
    return Found("data_path", QUESTION, lines, (f"micro-batch {n}; nothing overlaps here",))


if __name__ == "__main__":
    run_alone(measure, __doc__)
