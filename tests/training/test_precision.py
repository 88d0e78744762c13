"""Precision by what the device computes fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.training import precision
from siamese_diffusion.training.precision import autocast_dtype, chosen_precision, multiplies_bf16
from siamese_diffusion.training.settings import TrainSettings
from training.toy import ToyTask, settings_of, trainer_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_device_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: has_bf16)
    assert chosen_precision(TrainSettings(precision="auto"), CPU) == expected
    assert chosen_precision(TrainSettings(precision="fp32"), CPU) == "fp32"
    assert chosen_precision(TrainSettings(precision="bf16"), CPU) == "bf16"


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, None)])
def test_autocast_computes_in_what_the_device_decides(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: has_bf16)
    for device in (CPU, None):
        assert autocast_dtype(TrainSettings(precision="auto"), device) is expected
        assert autocast_dtype(TrainSettings(precision="fp32"), device) is None
        assert autocast_dtype(TrainSettings(precision="fp16"), device) is torch.float16


def test_without_onednn_no_processor_is_said_to_compute_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert multiplies_bf16(CPU) is False


def test_emulated_bf16_is_warned_of_and_the_log_names_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: False)
    trainer_of(ToyTask(), tmp_path / "auto", settings_of(precision="auto")).run()
    assert not caplog.records
    (start,) = [r for r in read_jsonl(tmp_path / "auto" / "log.jsonl") if r["event"] == "start"]
    assert start["precision"] == "fp32"
    trainer_of(ToyTask(), tmp_path / "bf16", settings_of(precision="bf16"))
    assert "no instructions for bf16" in caplog.text and "use auto or fp32" in caplog.text
