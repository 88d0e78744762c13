"""Optimizer groups and the learning rate of a segmenter's recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.settings import OptimizerSettings, ScheduleSettings

_NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
PLATEAU_THRESHOLD = 1e-4  # relative; a loss must fall by more to count as lower


def parameter_groups(model: Segmenter, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Groups by rate and, if norms are free of decay, by decay; each with its `lr_scale`."""
    norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    groups: list[dict[str, Any]] = []
    for members, scale in model.scaled_groups():
        free = [p for p in members if not settings.decay_norms and id(p) in norms]
        rest = [p for p in members if settings.decay_norms or id(p) not in norms]
        for parameters, decay in ((rest, settings.weight_decay), (free, 0.0)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "lr_scale": scale})
    return groups


def build_optimizer(model: Segmenter, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of a recipe over all parameters of a network."""
    groups, rate = parameter_groups(model, settings), settings.learning_rate
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=True)
    if settings.name == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=settings.betas)
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas)


def scheduled_rate(rate: float, schedule: ScheduleSettings, k: int, steps: int) -> float:
    """Learning rate at iteration `k` (from 0) of `steps`, before a plateau's factor."""
    warmup = round(schedule.warmup * steps)
    if k < warmup:
        return rate * (k + 1) / warmup
    if schedule.name == "halving":
        return rate * 0.5 ** sum(k >= milestone * steps for milestone in schedule.milestones)
    if schedule.name == "poly":
        return float(rate * (1 - k / steps) ** schedule.power)
    return rate


class Plateau(nn.Module):
    """Lower the rate when the validation loss stops falling.

    Its state lies in buffers, so that it is part of every checkpoint.
    """

    state: torch.Tensor

    def __init__(self, settings: ScheduleSettings) -> None:
        super().__init__()
        self._settings = settings
        # lowest loss, validations since then, factor on the rate
        self.register_buffer("state", torch.tensor([torch.inf, 0.0, 1.0], dtype=torch.float64))

    @property
    def factor(self) -> float:
        return float(self.state[2])

    def follow(self, loss: float) -> None:
        """Take note of one validation loss."""
        best, waited, factor = self.state.tolist()
        if loss < best * (1 - PLATEAU_THRESHOLD):
            best, waited = loss, 0.0
        else:
            waited += 1
        if waited > self._settings.patience:
            factor, waited = factor * self._settings.factor, 0.0
        self.state.copy_(torch.tensor([best, waited, factor]))


def updates(entries: int, batch_size: int, epochs: int, scales: Sequence[int]) -> int:
    """Updates in `epochs` passes over a list, one for each scale of every batch."""
    return epochs * updates_per_epoch(entries, batch_size) * max(1, len(scales))


def updates_per_epoch(entries: int, batch_size: int) -> int:
    """Batches in one pass; the incomplete last one is dropped."""
    return max(1, entries // batch_size)
