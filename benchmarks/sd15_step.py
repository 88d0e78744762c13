"""Samples/s and peak memory of one siamese training step at Stable Diffusion 1.5's size.

    python benchmarks/sd15_step.py --device cuda --micro-batch 6 24 --precision fp32 bf16
    python benchmarks/sd15_step.py --device cpu --small --size 64 --micro-batch 1 --repeats 2

Random weights; forward, backward and AdamW, at an iteration after K_tau with a fifth of the
samples in Eq. (12). Prints one line per setting: median and spread over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.sd15 import build_sd15
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training.memory import peak_memory_mb
from siamese_diffusion.training.optimizer import build_optimizer

GATED_SHARE = 0.2  # of uniform timesteps that lie below T_tau
_DTYPE = {"fp32": None, "bf16": torch.bfloat16}


def random_batch(base: Base, size: int, n: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch of `n` samples of which a fifth (at least one from five on) count in Eq. (12)."""
    side = size // 8
    gated = round(GATED_SHARE * n)
    t = torch.tensor([100] * gated + [600] * (n - gated))
    width = int(base.unet.config["cross_attention_dim"])
    shape = (n, int(base.unet.config["in_channels"]), side, side)
    return {
        "z0": torch.randn(shape, device=device),
        "eps": torch.randn(shape, device=device),
        "t": t,
        "alpha_bar_t": base.scheduler.alphas_cumprod.float()[t].to(device),
        "c_text": torch.randn(n, 77, width, device=device),
        "mask": (torch.rand(n, 1, size, size, device=device) > 0.5).float().expand(-1, 3, -1, -1),
        "image": torch.rand(n, 3, size, size, device=device),
    }


def measure(
    base: Base,
    *,
    size: int,
    micro: int,
    precision: str,
    checkpointing: bool,
    repeats: int,
    device: torch.device,
) -> tuple[float, float, float]:
    """Median seconds of a step, its spread (max - min), and peak memory in MB."""
    settings = SiameseFitSettings()
    generator = Siamese.build(settings, base)
    generator.network.gradient_checkpointing = checkpointing
    generator.objective.to(device)
    optimizer = build_optimizer(settings.train, [p for _, p in generator.trained_parameters()])
    batch = random_batch(base, size, micro, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        dtype = _DTYPE[precision]
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            terms = generator.objective(2000, batch)
        loss = torch.stack([v for name, v in terms.items() if name.startswith("loss/")]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]), max(times[1:]) - min(times[1:]), peak_memory_mb(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--precision", nargs="+", choices=list(_DTYPE), default=list(_DTYPE))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--small", action="store_true", help="a small base instead of SD 1.5's size"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    base = (
        build_small_base(SmallBaseSettings(), size=options.size, seed=0)
        if options.small
        else build_sd15()
    )
    print(snapshot())
    print("micro-batch  precision  seconds/step (spread)  samples/s  peak memory MB")
    for precision in options.precision:
        for micro in options.micro_batch:
            try:
                seconds, spread, memory = measure(
                    base,
                    size=options.size,
                    micro=micro,
                    precision=precision,
                    checkpointing=options.checkpointing,
                    repeats=options.repeats,
                    device=device,
                )
            except torch.OutOfMemoryError:
                print(f"{micro:>11}  {precision:>9}  out of memory")
                continue
            print(
                f"{micro:>11}  {precision:>9}  {seconds:>12.3f} ({spread:.3f})  "
                f"{micro / seconds:>9.2f}  {memory:>14,.0f}"
            )


if __name__ == "__main__":
    main()
