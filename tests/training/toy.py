"""A task of two numbers for the tests of the loop, with faults on request; also a worker script."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from siamese_diffusion.core.seeding import normal
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import Trainer


class Line(nn.Module):
    """Fits y = 3 x - 1 with a slope and an offset of their own width."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((width,), 0.5))
        self.offset = nn.Parameter(torch.zeros(width))

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        y = self.slope * batch["x"] + self.offset
        loss = (y - (3 * batch["x"] - 1)).square()
        return {
            "loss/fit": loss.mean(),
            "loss/size": 1e-3 * self.slope.square().sum(),
            "weight/step": batch["x"].new_tensor(float(step)),
        }


class ToyTask:
    """Every sample is a function of (seed, step, position).

    Args:
        bad: At this step the term `bad_term` becomes `bad_value`.
        memory: At this step the batch does not fit.
        sample_memory: The sample grid does not fit.
        stop_at: At this step the process gets `signals`.
    """

    def __init__(
        self,
        *,
        width: int = 4,
        bad: int | None = None,
        bad_value: float = float("nan"),
        memory: tuple[int, Exception] | None = None,
        sample_memory: Exception | None = None,
        stop_at: int | None = None,
        signals: Sequence[int] = (signal.SIGTERM,),
    ) -> None:
        self.line = Line(width)
        self.objective: nn.Module = self.line
        self.seen: list[tuple[int, tuple[int, ...]]] = []
        self.validated: list[Tensor] = []
        self.sampled: list[int] = []
        self._bad = bad
        self._bad_value = bad_value
        self._memory = memory
        self._sample_memory = sample_memory
        self._stop_at = stop_at
        self._signals = signals

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.line.named_parameters()

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        self.seen.append((step, tuple(positions)))
        if self._memory is not None and step == self._memory[0]:
            raise self._memory[1]
        if step == self._stop_at and positions[0] == 0:
            for number in self._signals:
                os.kill(os.getpid(), number)
        width = len(self.line.slope)
        x = torch.stack([normal((width,), 7, step, position) for position in positions])
        if step == self._bad:
            x[0, 0] = self._bad_value
        return {"x": x.to(device)}

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        self.validated.append(self.line.slope.detach().clone())
        torch.randn(3)  # a careless task may move the global generator
        return {"distance": float((self.line.slope - 3).abs().mean())}

    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        if self._sample_memory is not None:
            raise self._sample_memory
        self.sampled.append(step)
        return {"file": f"{step}.png"}


def settings_of(**changes: object) -> TrainSettings:
    """Ten quick steps of four samples."""
    start: dict[str, object] = {
        "steps": 10,
        "batch_size": 4,
        "learning_rate": 0.1,
        "checkpoint_every": 3,
        "log_every": 1,
        "validate_every": 0,
        "sample_every": 0,
        "tensorboard": False,
    }
    return TrainSettings.model_validate({**start, **changes})


def trainer_of(task: ToyTask, folder: Path, settings: TrainSettings | None = None) -> Trainer:
    return Trainer(
        settings or settings_of(),
        task,
        folder=folder,
        settings_hash="h",
        label="toy",
        quiet=True,
        device="cpu",
    )
