"""The log of a run: one line an event, rewound to the checkpoint when a run goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.training.log import RunLog


def log_of(path: Path, *, active: bool = True, tensorboard: Path | None = None) -> RunLog:
    return RunLog(path, tensorboard=tensorboard, active=active)


def test_an_event_is_one_line_with_step_seconds_and_values(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    with log_of(path) as log:
        log.event("train", 3, {"loss/mask": 0.25, "device": "cpu"})
        log.event("complete", 4)
    first, second = path.read_text().splitlines()
    record = json.loads(first)
    assert record.pop("seconds") >= 0
    assert record == {"event": "train", "step": 3, "loss/mask": 0.25, "device": "cpu"}
    assert set(json.loads(second)) == {"event", "step", "seconds"}


def test_rewinding_drops_what_came_after_the_checkpoint_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with log_of(path) as log:
        for step in range(6):
            log.event("train", step, {"note": "é"})
        with path.open("a") as handle:
            handle.write('{"event": "tra')
        log.rewind(3)
        log.event("train", 4)
    assert [record["step"] for record in read_jsonl(path)] == [0, 1, 2, 3, 4]
    assert "é" in path.read_text(encoding="utf-8")


def test_rewinding_without_a_log_makes_none(tmp_path: Path) -> None:
    with log_of(tmp_path / "log.jsonl") as log:
        log.rewind(0)
    assert list(tmp_path.iterdir()) == []


def test_processes_other_than_the_first_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 9}\n')
    with log_of(tmp_path / "log.jsonl", active=False, tensorboard=tmp_path / "board") as log:
        log.rewind(0)
        log.event("train", 1)
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 9}\n'
    assert not (tmp_path / "board").exists()


def test_a_broken_tensorboard_does_not_stop_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with log_of(tmp_path / "log.jsonl", tensorboard=tmp_path / "board") as log:
        log.event("train", 1, {"loss": 1.0})
    assert len(list(read_jsonl(tmp_path / "log.jsonl"))) == 1


def test_numbers_go_to_tensorboard_under_their_event(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with log_of(tmp_path / "log.jsonl", tensorboard=tmp_path / "board") as log:
        log.event("train", 3, {"loss/mask": 0.5, "device": "cpu"})
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss/mask"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss/mask")] == [(3, 0.5)]
