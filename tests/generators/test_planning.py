"""`siamdiff plan`: sizes, the rule, the quantile of gated samples, hours and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.artifacts import append_jsonl
from siamese_diffusion.core.config import resolve
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators import planning
from siamese_diffusion.generators.fitting import FitPlan, plan_fit
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.training.settings import TrainSettings

SETTINGS = resolve(SiameseFitSettings, overrides=["data.size=64", "train.batch_size=6"])


@pytest.fixture(scope="module")
def of_fit(phantoms: Path, small_base_folder: Path) -> FitPlan:
    return plan_fit(phantoms, small_base_folder, settings=SETTINGS, asked={})


def given(megabytes: float) -> float:
    """Memory of a device of which so much may be used."""
    return (megabytes + planning.RESERVED_MB) / (1 - planning.LOST_SHARE)


class Fake:
    """A step of which a sample takes 10 MB, checkpointed 2 MB; moments take 20 or 5 MB."""

    def __init__(self, *_: object) -> None: ...

    def fixed_bytes(self, train: TrainSettings) -> int:
        return (20 if train.optimizer == "adamw" else 5) * 2**20

    def peak_bytes(self, train: TrainSettings, *, samples: int, gated: int) -> int:
        return (2 if train.gradient_checkpointing else 10) * samples * 2**20


@pytest.mark.parametrize(
    ("text", "megabytes"), [("12GB", 12288), ("800 MB", 800), ("1.5GiB", 1536)]
)
def test_sizes_are_read(text: str, megabytes: float) -> None:
    assert planning.parse_memory(text) == megabytes


@pytest.mark.parametrize("text", ["12", "12TB", "0GB", "much"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"'{text}' is no size of memory"):
        planning.parse_memory(text)


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [
        (80, (6, False, "adamw")),
        (50, (6, True, "adamw")),  # three samples would fit plain: too few
        (23, (1, True, "adamw")),
        (11, (3, True, "adamw8bit")),
    ],
)
def test_the_rule_prefers_no_checkpointing_then_checkpointing_then_8_bit(
    of_fit: FitPlan,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: float,
    expected: tuple[int, bool, str],
) -> None:
    monkeypatch.setattr(planning, "FakeStep", Fake)
    chosen = planning.choose(of_fit, given(megabytes))
    train = chosen.train
    assert (train.micro_batch_size, train.gradient_checkpointing, train.optimizer) == expected
    assert chosen.needed_mb <= chosen.available_mb == pytest.approx(megabytes)
    assert train.precision == "bf16" and train.batch_size == 6


def test_too_little_memory_is_told_with_what_is_needed(
    of_fit: FitPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "FakeStep", Fake)
    with pytest.raises(ConfigError, match=r"one sample at 64 px needs about 7 MB of the 3 MB"):
        planning.choose(of_fit, given(3))


def test_the_plan_of_a_real_step_holds_against_its_own_count(of_fit: FitPlan) -> None:
    chosen = planning.choose(of_fit, given(200), precision="fp32")
    assert chosen.train.micro_batch_size == 6 and chosen.train.precision == "fp32"
    assert 0 < chosen.needed_mb <= chosen.available_mb


def test_gated_samples_are_a_quantile_over_the_whole_training() -> None:
    paper = SiameseFitSettings()
    # P(all six below T_tau) = 0.2^6 = 6.4e-5, met in 16,000 micro-batches
    assert planning.most_gated(6, paper) == 6
    assert 20 <= planning.most_gated(48, paper) <= 28  # mean 9.6, deviation 2.8
    off = resolve(SiameseFitSettings, overrides=["objective.online_augment=false"])
    assert planning.most_gated(6, off) == 0


def test_hours_come_from_a_given_speed_or_a_runs_log(of_fit: FitPlan, tmp_path: Path) -> None:
    train = SETTINGS.train.model_copy(update={"micro_batch_size": 3})
    chosen = planning.MemoryPlan(train, 2, 100.0, 200.0)
    assert "at 5 a second: 1.0 h" in planning.describe(of_fit, chosen, 5.0)
    assert "hours need a speed" in planning.describe(of_fit, chosen, None)
    assert "--set train.micro_batch_size=3" in planning.describe(of_fit, chosen, None)
    log = RunPaths(tmp_path).log
    for speed in (1.0, 9.0, 5.0):
        append_jsonl(log, {"event": "train", "step": 1, "samples_per_second": speed})
    append_jsonl(log, {"event": "validate", "step": 1})
    assert planning.samples_per_second(tmp_path) == 5.0


def test_a_run_without_speeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{tmp_path}' has no log of a training"):
        planning.samples_per_second(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", [None, "cuda", "cuda:3", "cpu", "tpu"])
def test_a_device_without_memory_to_plan_for_is_refused(name: str | None) -> None:
    with pytest.raises(ConfigError, match=f"device '{name or 'cuda'}' has no memory to plan for"):
        planning.device_memory(name)
