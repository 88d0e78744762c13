"""What single means bring to the training step and to the denoiser in bf16, one on the other.

    python -m benchmarks.means --device cuda
    python -m benchmarks.means --device cuda --micro-batch 24
    python -m benchmarks.means --device cpu --small

Channels-last weights; then `torch.compile` of every residual and transformer block, whose first
run, compilation included, is stated. Fixed shapes, so that nothing is compiled twice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from benchmarks.record import Found, Line, beside, rate_line
from benchmarks.stopwatch import take_turns
from benchmarks.workload import Steps, Workload, autocast, options, random_batch, show, workload

QUESTION = "What do channels-last weights and compiled blocks bring?"
REGIONS = (ResnetBlock2D, BasicTransformerBlock)


def measure(load: Workload, micro_batch: int | None = None, *, compiled: bool = True) -> Found:
    """The step and one guided prediction of the denoiser, mean after mean."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    n = micro_batch or load.micro_batch
    images = max(load.batches)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "step": (lambda: steps.ours(n, "bf16"), n),
        "denoiser": (denoiser(load, steps, images), images),
    }
    lines: list[Line] = []
    first: dict[str, Line] = {}
    objective = steps.generator.objective
    for mean in ("plain", "channels-last", *(("compiled",) if compiled else ())):
        if mean == "channels-last":
            steps.lay_out("bf16")
        if mean == "compiled":
            compile_regions(objective)
        timings = take_turns(works, load.device, repeats=load.repeats)
        for name, timing in timings.items():
            unit = "samples/s" if name == "step" else "images/s, one prediction each"
            line = rate_line(f"{name}, {mean}", timing, unit)
            lines.append(line if mean == "plain" else beside(line, first[name]))
            first.setdefault(name, line)
            if mean == "compiled":
                lines.append(Line(f"{name}, {mean}, first run", timing.first, "s"))
    return Found("means", QUESTION, tuple(lines), (f"micro-batch {n}, {images} images, bf16",))


def denoiser(load: Workload, steps: Steps, images: int) -> Callable[[], Tensor]:
    """One guided prediction for so many images: two prompts, one hint."""
    network = steps.generator.network
    batch = random_batch(steps.base, load.size, 2 * images, load.device)
    with torch.no_grad():
        hint = network.hint(batch["mask"])

    def work() -> Tensor:
        with torch.no_grad(), autocast(load.device, "bf16"):
            zt, t, c_text = batch["z0"], batch["t"], batch["c_text"]
            controls = network.controls(zt, t, c_text, hint)
            return network.predict(network.encode(zt, t, c_text), c_text, controls)

    return work


def compile_regions(module: torch.nn.Module) -> None:
    """Compile every residual and transformer block; equal ones share their code."""
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.accumulated_recompile_limit = 4096
    for part in module.modules():
        if isinstance(part, REGIONS):
            part.compile(dynamic=False)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--micro-batch", type=int, help="samples of a step")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    asked = parser.parse_args()

    def measured(load: Workload) -> Found:
        return measure(load, asked.micro_batch, compiled=not asked.no_compile)

    show(measured, workload(asked), asked.json)


if __name__ == "__main__":
    main()
