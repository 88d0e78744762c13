"""Bulk sampling: share of time outside the denoiser, and two workers against one.

    python -m benchmarks.bulk_sampling --device cuda
    python -m benchmarks.bulk_sampling --device cpu --small

Masks on disk become a synthetic set by the very code of `siamdiff sample`, writing included. Two
workers are compared where each can have a core of its own (CPU); they start together after loading,
each bound to one core, on folders of their own mask set and one output folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from benchmarks.record import Found, Line, beside
from benchmarks.stopwatch import seconds_of
from benchmarks.workload import Workload, in_memory_run, options, run_alone, workload
from siamese_diffusion.sampling.bulk import SampleSummary, sample_with
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline
from siamese_diffusion.sampling.settings import SampleSettings

QUESTION = "How much of bulk sampling is not denoising, and what does a second worker bring?"
MOST_OUTSIDE = 5.0  # per cent, asked for at full size on a GPU
TWO_WORKERS = 1.7  # times one, asked for when each has a core of its own


def measure(load: Workload) -> Found:
    """One worker with its denoiser timed; then, on a CPU with two cores, one and two workers."""
    batch = batch_size(load)
    # seconds of work: start and end of a set must not weigh
    masks_per_run = (24 if load.small else 4) * batch
    with tempfile.TemporaryDirectory() as folder:
        masks = write_masks(Path(folder) / "masks", masks_per_run, load.size)
        summary, inside = _timed(load, masks, Path(folder) / "timed")
        outside = 100 * (1 - inside / summary.seconds)
        lines = [
            Line("one worker", summary.images_per_second, "images/s"),
            Line("time outside the denoiser", outside, "%"),
        ]
        remarks = [
            f"{masks_per_run} images in batches of {batch}, {load.steps} steps; outside are "
            f"decoding, PNG and disk; at most {MOST_OUTSIDE:g} % are asked for on a GPU"
        ]
        cores = sorted(os.sched_getaffinity(0))
        if load.device.type == "cpu" and len(cores) > 1:
            one = _rate(load, masks, Path(folder) / "one", cores[:1], masks_per_run)
            two = _rate(load, masks, Path(folder) / "two", cores[:2], masks_per_run)
            alone = Line("one worker on one core", one, "images/s")
            both = Line("two workers on a core each", two, "images/s")
            lines += [alone, beside(both, alone, target=load.target(TWO_WORKERS))]
        else:
            remarks.append("two workers are not compared: they would share one device or core")
    return Found("bulk_sampling", QUESTION, tuple(lines), tuple(remarks))


def write_masks(folder: Path, n: int, size: int) -> Path:
    """`n` masks of one rectangle each."""
    folder.mkdir(parents=True)
    for i in range(n):
        mask = np.zeros((size, size), np.uint8)
        mask[size // 4 : size // 2 + i % 8, size // 4 : size // 2] = 255
        Image.fromarray(mask).save(folder / f"m{i:03d}.png")
    return folder


def batch_size(load: Workload) -> int:
    """Images denoised together; on a GPU the largest of those that `sampling` tries."""
    return max(load.batches)


def _pipeline(load: Workload) -> SiameseDiffusionPipeline:
    base = load.base()
    run = in_memory_run(load, base, load.generator(base, moved=True))
    dtype = torch.float32 if load.small else torch.bfloat16
    return SiameseDiffusionPipeline(run, device=load.device, dtype=dtype)


def _settings(load: Workload) -> SampleSettings:
    return SampleSettings(steps=load.steps, batch_size=batch_size(load))


def _timed(load: Workload, masks: Path, out: Path) -> tuple[SampleSummary, float]:
    """A run of one worker and the seconds of it that were spent in the denoiser."""
    base = load.base()
    generator = load.generator(base, moved=True)
    dtype = torch.float32 if load.small else torch.bfloat16
    pipeline = SiameseDiffusionPipeline(
        in_memory_run(load, base, generator), device=load.device, dtype=dtype
    )
    pipeline([np.zeros((load.size, load.size), np.uint8)], [0], steps=1)  # warm-up
    inside = 0.0
    denoise = generator.sample_latents

    def counted(*given: torch.Tensor, steps: int, guidance_scale: float) -> torch.Tensor:
        nonlocal inside
        made: list[torch.Tensor] = []
        inside += seconds_of(
            lambda: made.append(denoise(*given, steps=steps, guidance_scale=guidance_scale)),
            load.device,
        )
        return made[0]

    generator.sample_latents = counted  # type: ignore[assignment, method-assign]
    summary = sample_with(pipeline, masks, out, settings=_settings(load), progress=False)
    return summary, inside


def _rate(load: Workload, masks: Path, out: Path, cores: list[int], images: int) -> float:
    """Images/s of one worker a core, from their common start to the end of the last."""
    command = [sys.executable, "-m", "benchmarks.bulk_sampling", "--device", str(load.device)]
    command += ["--size", str(load.size), "--small"] if load.small else ["--size", str(load.size)]
    workers = [
        subprocess.Popen(
            [*command, "--worker", str(masks), str(out), str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for core in cores
    ]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()  # "done": the end of an interpreter is no part of the work
    seconds = time.perf_counter() - start
    for worker in workers:
        if worker.wait():
            raise RuntimeError(f"a worker ended with exit code {worker.returncode}")
    return images / seconds


def _work(load: Workload, masks: Path, out: Path, core: int) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    pipeline = _pipeline(load)
    pipeline([np.zeros((load.size, load.size), np.uint8)], [0], steps=1)  # warm-up
    print("ready", flush=True)
    sys.stdin.readline()
    sample_with(pipeline, masks, out, settings=_settings(load), progress=False)
    print("done", flush=True)


def main() -> None:
    if "--worker" not in sys.argv:
        run_alone(measure, __doc__)
        return
    parser = options(__doc__)
    parser.add_argument("--worker", nargs=3, metavar=("MASKS", "OUT", "CORE"))
    asked = parser.parse_args()
    masks, out, core = cast("list[str]", asked.worker)
    _work(workload(asked), Path(masks), Path(out), int(core))


if __name__ == "__main__":
    main()
