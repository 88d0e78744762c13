"""How much of the device's measured bf16 matrix rate a training step and its parts reach.

    python -m benchmarks.matrix_rate --device cuda
    python -m benchmarks.matrix_rate --device cpu --small

The limit is what one large bf16 matrix product reaches here and now, not the data sheet. Operations
are counted by PyTorch's counter while the parts run, multiply-add as 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import Found, Line
from benchmarks.stopwatch import Timing, take_turns
from benchmarks.workload import Steps, Workload, autocast, random_batch, run_alone

QUESTION = "Which share of the device's measured bf16 matrix rate does the training step reach?"
SHARE = 0.4  # asked for at full size on a GPU


def measure(load: Workload) -> Found:
    """The limit, the whole step, and forward plus backward of each part."""
    base = load.base()
    steps = Steps(base, load.generator(base), load)
    n = load.micro_batch
    works: dict[str, Callable[[], object]] = {
        "whole step": lambda: steps.ours(n, "bf16"),
        **_parts(load, steps),
    }
    counted = {name: _operations(work) for name, work in works.items()}
    steps.lay_out("bf16")  # after the count, whose dispatch cannot take this layout on CPUs
    side = 1024 if load.device.type == "cpu" else 8192
    left, right = (
        torch.randn(side, side, device=load.device, dtype=torch.bfloat16) for _ in range(2)
    )
    works["limit"] = lambda: left @ right
    counted["limit"] = 2 * side**3
    timings = take_turns(
        {name: (work, 1) for name, work in works.items()}, load.device, repeats=load.repeats
    )
    limit = counted["limit"] / timings["limit"].median
    lines = [Line(f"one product of {side} x {side}", limit / 1e12, "TFLOP/s")]
    for name in works:
        if name != "limit":
            lines.append(_share(name, counted[name], timings[name], limit))
    remarks = (
        f"micro-batch {n}, bf16 autocast; {SHARE:.0%} is asked for in the whole step at full size "
        "on a GPU; normalisations, activations and the optimizer cost time but no operations here",
    )
    return Found("matrix_rate", QUESTION, tuple(lines), remarks)


def _parts(load: Workload, steps: Steps) -> dict[str, Callable[[], object]]:
    network = steps.generator.network
    network.gradient_checkpointing = False
    batch = random_batch(steps.base, load.size, load.micro_batch, load.device)
    zt, t, c_text, mask = batch["z0"], batch["t"], batch["c_text"], batch["mask"]
    with torch.no_grad(), autocast(load.device, "bf16"):
        encoded = network.encode(zt, t, c_text)
        hint = network.hint(mask)
        controls = network.controls(zt, t, c_text, hint)

    def forward_backward(part: Callable[[], Tensor | tuple[Tensor, ...]]) -> Callable[[], object]:
        def work() -> None:
            with autocast(load.device, "bf16"):
                out = part()
                parts = out if isinstance(out, tuple) else (out,)
                loss = torch.stack([value.float().square().mean() for value in parts]).sum()
            torch.autograd.backward(loss)
            network.zero_grad(set_to_none=True)

        return work

    def encoder() -> None:
        with autocast(load.device, "bf16"):
            network.encode(zt, t, c_text)

    return {
        "U-Net encoder, forward": encoder,
        "U-Net decoder, forward and backward": forward_backward(
            lambda: network.predict(encoded, c_text, controls)
        ),
        "control branch, forward and backward": forward_backward(
            lambda: network.controls(zt, t, c_text, hint)
        ),
        "hint input, forward and backward": forward_backward(lambda: network.hint(mask)),
    }


def _operations(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _share(name: str, operations: float, timing: Timing, limit: float) -> Line:
    shares = [100 * operations / seconds / limit for seconds in timing.seconds]
    value = 100 * operations / timing.median / limit
    return Line(name, value, "% of the limit", max(shares) - min(shares))


if __name__ == "__main__":
    run_alone(measure, __doc__)
