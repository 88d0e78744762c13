"""A task with its own optimizer and with statistics that are no parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from siamese_diffusion.core.seeding import normal
from siamese_diffusion.training.recipe import OwnRecipe, buffers
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import Trainer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 1)

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        y = self.last(self.norm(self.first(batch["x"])))
        return {"loss/fit": (y - batch["x"].sum(1, keepdim=True)).square().mean()}


class PlainTask:
    def __init__(self) -> None:
        self.net = Net()
        self.objective: nn.Module = self.net

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.net.named_parameters()

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        return {"x": torch.stack([normal((3,), 0, step, p) for p in positions])}

    def validate(self, device: torch.device) -> Mapping[str, float]:
        return {}

    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        return {}


class RecipeTask(PlainTask):
    def build_optimizer(self) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [
            {"params": list(self.net.first.parameters()), "lr_scale": 0.1},
            {"params": [*self.net.norm.parameters(), *self.net.last.parameters()]},
        ]
        return torch.optim.SGD(groups, lr=1.0, momentum=0.9)

    def learning_rate(self, k: int) -> float:
        return 0.01 / (k + 1)


def train(task: PlainTask, folder: Path, steps: int, **more: float) -> Trainer:
    settings = TrainSettings.model_validate(
        {
            "steps": steps,
            "batch_size": 4,
            "checkpoint_every": 3,
            "log_every": 1,
            "sample_every": 0,
            "tensorboard": False,
            **more,
        }
    )
    folder.mkdir(exist_ok=True)
    trainer = Trainer(settings, task, folder=folder, settings_hash="x", quiet=True, device="cpu")
    trainer.run()
    return trainer


def test_a_task_is_asked_for_its_recipe_only_if_it_has_one() -> None:
    assert isinstance(RecipeTask(), OwnRecipe)
    assert not isinstance(PlainTask(), OwnRecipe)


def test_the_tasks_own_rate_is_used_and_logged(tmp_path: Path) -> None:
    train(RecipeTask(), tmp_path, 3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["event"] == "train"]
    assert rates == pytest.approx([0.01, 0.005, 0.01 / 3])


def test_a_group_moves_at_its_own_scale(tmp_path: Path) -> None:
    task, start = RecipeTask(), Net()
    train(task, tmp_path, 1)
    batch = task.batch(0, range(4), torch.device("cpu"))
    torch.autograd.backward(start(0, batch)["loss/fit"])
    for name, before in start.named_parameters():
        assert before.grad is not None
        rate = 0.001 if name.startswith("first") else 0.01
        after = dict(task.net.named_parameters())[name]
        torch.testing.assert_close(after, before - rate * before.grad)


def test_statistics_of_norms_survive_an_interruption_to_the_bit(tmp_path: Path) -> None:
    whole, resumed = RecipeTask(), RecipeTask()
    train(whole, tmp_path / "whole", 6)
    train(RecipeTask(), tmp_path / "parts", 3)
    train(resumed, tmp_path / "parts", 6)
    assert set(buffers(whole.net)) >= {"buffer/norm.running_mean", "buffer/norm.running_var"}
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def test_gradients_are_clamped_element_by_element(tmp_path: Path) -> None:
    task = RecipeTask()
    before = {name: p.detach().clone() for name, p in task.net.named_parameters()}
    train(task, tmp_path, 1, max_gradient_value=1e-3)
    for name, p in task.net.named_parameters():
        rate = 0.001 if name.startswith("first") else 0.01
        moved = float((p.detach() - before[name]).abs().max())
        assert moved <= rate * 1e-3 + 1e-7  # float32 weights near one half move in steps of 3e-8
