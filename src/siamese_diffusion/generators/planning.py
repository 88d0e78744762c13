"""`siamdiff plan`: settings under which a training fits a device's memory, and how long it takes.

The rule: the largest micro-batch that fits without gradient checkpointing, if it is at least
`ENOUGH`; else the largest with checkpointing; else the same with 8-bit AdamW. Smaller micro-batches
leave a GPU idle, checkpointing computes a third more.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators.fitting import FitPlan
from siamese_diffusion.generators.peak_memory import FakeStep
from siamese_diffusion.generators.settings import FitSettings, SiameseFitSettings
from siamese_diffusion.models.base import Base
from siamese_diffusion.training.settings import TrainSettings

ENOUGH = 4  # samples of a micro-batch below which checkpointing is worth its time
# Kept free: the context and the kernels' workspaces, and a share that an allocator loses to
# fragments. Round numbers, not yet compared with a GPU.
RESERVED_MB, LOST_SHARE = 800.0, 0.08
_UNITS = {"MB": 1, "MIB": 1, "GB": 1024, "GIB": 1024}
_TIMESTEPS = 1000


@dataclass(frozen=True)
class MemoryPlan:
    """Settings that fit.

    Attributes:
        train: With micro-batch, precision, checkpointing and optimizer chosen.
        gated: Samples of a micro-batch in Eq. (12) that were reckoned with.
        needed_mb: By the memory model.
        available_mb: What may be used of the device.
    """

    train: TrainSettings
    gated: int
    needed_mb: float
    available_mb: float

    def overrides(self) -> list[str]:
        """What to add to `siamdiff fit`."""
        train = self.train
        return [
            f"train.micro_batch_size={train.micro_batch_size}",
            f"train.precision={train.precision}",
            f"train.gradient_checkpointing={str(train.gradient_checkpointing).lower()}",
            f"train.optimizer={train.optimizer}",
        ]


def parse_memory(text: str) -> float:
    """MB (2^20 bytes) of a size such as 12GB, 24GiB or 800MB; GB is taken as GiB, as on GPUs.

    Raises:
        ConfigError: If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = _UNITS.get(found.group(2).upper()) if found else None
    if found is None or unit is None or float(found.group(1)) <= 0:
        raise ConfigError(f"'{text}' is no size of memory", hint="write it as 12GB or 800MB")
    return float(found.group(1)) * unit


def device_memory(name: str | None) -> float:
    """MB of a CUDA device; None takes the first.

    Raises:
        ConfigError: If torch sees no such device.
    """
    device = torch.device(name or "cuda") if name is None or _is_cuda(name) else None
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = 0 if device is None or device.index is None else device.index
    if (name is not None and device is None) or index >= found:
        raise ConfigError(
            f"device '{name or 'cuda'}' has no memory to plan for: torch sees {found} CUDA devices",
            hint="say how much memory the GPU has, e.g. --vram 12GB",
        )
    return float(torch.cuda.get_device_properties(index).total_memory) / 2**20


def most_gated(samples: int, settings: FitSettings) -> int:
    """Samples of a micro-batch in Eq. (12) that a whole training is not expected to exceed.

    The smallest number that fewer than one in a hundred trainings exceeds: timesteps are uniform,
    so it is a quantile of a binomial distribution over all micro-batches after K_tau.
    """
    if not isinstance(settings, SiameseFitSettings) or not settings.objective.online_augment:
        return 0
    objective, train = settings.objective, settings.train
    share = objective.augment_below_timestep / _TIMESTEPS
    steps = train.steps * (1 - objective.augment_start_fraction)
    batches = steps * train.batch_size / samples
    beyond = 1.0
    for gated in range(samples + 1):
        beyond -= math.comb(samples, gated) * share**gated * (1 - share) ** (samples - gated)
        if batches * beyond < 0.01:
            return gated
    return samples


def choose(plan: FitPlan, memory_mb: float, *, precision: str | None = None) -> MemoryPlan:
    """The settings that the rule of this module gives for a device.

    Args:
        plan: Of the fit; its batch size stays what it is.
        memory_mb: Of the device, all of it.
        precision: None takes bf16.

    Raises:
        ConfigError: If not even one sample fits, with what it needs; or for a method without base.
    """
    if not isinstance(plan.base, Base):
        raise ConfigError(
            f"the memory of generator '{plan.settings.generator}' is not modelled: it has no base",
            hint="plan methods on a base, or try a micro-batch with siamdiff fit",
        )
    available = memory_mb * (1 - LOST_SHARE) - RESERVED_MB
    step = FakeStep(plan.settings, plan.base)
    batch_size = plan.settings.train.batch_size
    sizes = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
    smallest = math.inf
    for optimizer in ("adamw", "adamw8bit"):
        for checkpointing in (False, True):
            asked = {
                **plan.settings.train.model_dump(),
                "precision": precision or "bf16",
                "gradient_checkpointing": checkpointing,
                "optimizer": optimizer,
            }
            train = TrainSettings.model_validate(asked)
            found, least = _largest(step, plan.settings, train, sizes, available)
            smallest = min(smallest, least)
            enough = min(ENOUGH, sizes[-1])
            if found is not None and (
                checkpointing or (found.train.micro_batch_size or 0) >= enough
            ):
                return found
    raise ConfigError(
        f"{memory_mb:,.0f} MB are not enough: one sample at {plan.settings.data.size} px needs "
        f"about {smallest:,.0f} MB of the {max(available, 0):,.0f} MB that may be used",
        hint="a smaller data.size, a smaller base, or a larger GPU",
    )


def samples_per_second(run: Path) -> float:
    """Median speed that a run logged.

    Raises:
        ConfigError: If its log has none.
    """
    speeds = [
        float(str(record["samples_per_second"]))
        for record in read_jsonl(RunPaths(run).log)
        if record.get("event") == "train" and "samples_per_second" in record
    ]
    if not speeds:
        raise ConfigError(
            f"'{run}' has no log of a training", hint="give a run folder of `siamdiff fit`"
        )
    return statistics.median(speeds)


def describe(plan: FitPlan, chosen: MemoryPlan, speed: float | None) -> str:
    """The plan as text, with hours if a speed is known."""
    train = chosen.train
    micro = train.micro_batch_size
    assert micro is not None
    lines = [
        f"micro-batch {micro}, accumulation {train.batch_size // micro} on one process, "
        f"{train.precision}, checkpointing {'on' if train.gradient_checkpointing else 'off'}, "
        f"{train.optimizer}",
        f"memory: about {chosen.needed_mb:,.0f} MB of {chosen.available_mb:,.0f} MB that may be "
        f"used, with up to {chosen.gated} of {micro} samples in Eq. 12",
        "add to siamdiff fit: " + " ".join(f"--set {text}" for text in chosen.overrides()),
    ]
    samples = train.steps * train.batch_size
    if speed is None:
        lines.append(
            f"time: {samples:,} samples; hours need a speed: --samples-per-second, or --like RUN"
        )
    else:
        lines.append(
            f"time: {samples:,} samples at {speed:g} a second: {samples / speed / 3600:.1f} h"
        )
    return "\n".join(lines)


def _largest(
    step: FakeStep,
    settings: FitSettings,
    train: TrainSettings,
    sizes: Sequence[int],
    available: float,
) -> tuple[MemoryPlan | None, float]:
    """The largest micro-batch that fits, by bisection, and what the smallest needs."""

    def needed(samples: int) -> float:
        gated = most_gated(samples, settings)
        peak = step.peak_bytes(train, samples=samples, gated=gated)
        return (step.fixed_bytes(train) + peak) / 2**20

    least = needed(sizes[0])
    if least > available:
        return None, least
    low, high, best = 0, len(sizes) - 1, least
    while low < high:
        middle = (low + high + 1) // 2
        size = needed(sizes[middle])
        if size <= available:
            low, best = middle, size
        else:
            high = middle - 1
    fitting = train.model_copy(update={"micro_batch_size": sizes[low]})
    return MemoryPlan(fitting, most_gated(sizes[low], settings), best, available), least


def _is_cuda(name: str | None) -> bool:
    return name is not None and re.fullmatch(r"cuda(:\d+)?", name) is not None
