"""Checkpoints: whole, verified, and enough to go on with the same bits."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from siamese_diffusion.core.errors import CheckpointError, OutputError
from siamese_diffusion.training.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)


def state_of(step: int, *, size: int = 3) -> TrainingState:
    """A state after one real update, so that the optimizer has moments."""
    weight = nn.Parameter(torch.arange(float(size)) + step)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.grad = torch.ones(size)
    optimizer.step()
    return TrainingState(
        step=step,
        weights={"net.weight": weight},
        optimizer=optimizer.state_dict(),
        average={"net.weight": weight.detach() / 2},
    )


def save(folder: Path, *steps: int, keep: int = 5) -> None:
    for step in steps:
        save_checkpoint(folder, state_of(step), settings_hash="h", keep=keep)


def test_everything_comes_back(tmp_path: Path) -> None:
    state = state_of(7)
    path = save_checkpoint(tmp_path, state, settings_hash="h", keep=1)
    assert path == tmp_path / "step-00000007"
    back = load_checkpoint(path)
    assert back.step == 7 and back.scaler is None
    assert torch.equal(back.weights["net.weight"], state.weights["net.weight"])
    assert back.average is not None and state.average is not None
    assert torch.equal(back.average["net.weight"], state.average["net.weight"])
    moments, expected = back.optimizer["state"][0], state.optimizer["state"][0]
    for name in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(moments[name], expected[name])
    assert back.optimizer["param_groups"] == state.optimizer["param_groups"]


def test_no_average_and_a_scaler_come_back_too(tmp_path: Path) -> None:
    state = state_of(1)
    state.average, state.scaler = None, {"scale": 1024.0, "growth_interval": 5}
    back = load_checkpoint(save_checkpoint(tmp_path, state, settings_hash="h", keep=1))
    assert back.average is None
    assert back.scaler == {"scale": 1024.0, "growth_interval": 5}


def test_every_random_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    np.random.standard_normal()  # leaves a second normal in store
    save(tmp_path, 1)
    draws: Callable[[], list[float]] = lambda: [  # noqa: E731
        random.random(),
        random.gauss(0, 1),
        float(np.random.standard_normal()),
        float(np.random.random()),
        *torch.randn(3).tolist(),
    ]
    expected = draws()
    draws()
    load_checkpoint(tmp_path / "step-00000001")
    assert draws() == expected


def test_only_the_newest_are_kept_and_they_are_listed_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir(parents=True)  # not a name of ours
    save(tmp_path, 9, 10, 100, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert list_checkpoints(tmp_path / "none") == []


def test_what_a_killed_writer_left_is_removed_and_never_listed(tmp_path: Path) -> None:
    left = tmp_path / ".step-00000005.0123abcd.tmp"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    assert load_latest(tmp_path) == (None, [])
    save(tmp_path, 6)
    assert not left.exists()


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "average.safetensors", "optimizer.pt", "checkpoint.json"]
)
@pytest.mark.parametrize("fault", ["cut", "flipped", "lost"])
def test_a_damaged_file_is_named_and_the_one_before_taken(
    tmp_path: Path, name: str, fault: str
) -> None:
    save(tmp_path, 3, 6)
    file = tmp_path / "step-00000006" / name
    content = bytearray(file.read_bytes())
    if fault == "lost":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    state, damaged = load_latest(tmp_path)
    assert state is not None and state.step == 3
    assert len(damaged) == 1
    assert "step-00000006' is damaged" in damaged[0] and name in damaged[0]


@pytest.mark.parametrize("content", ["{}", "[]", '{"files": 1, "step": 6}', '{"files": {}}'])
def test_a_manifest_without_its_entries_is_damaged(tmp_path: Path, content: str) -> None:
    save(tmp_path, 3, 6)
    (tmp_path / "step-00000006" / "checkpoint.json").write_text(content)
    state, damaged = load_latest(tmp_path)
    assert state is not None and state.step == 3
    assert "checkpoint.json" in damaged[0]


def test_when_all_are_damaged_each_is_named_and_the_way_out(tmp_path: Path) -> None:
    save(tmp_path, 3, 6)
    for path in list_checkpoints(tmp_path):
        (path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint of this run") as caught:
        load_latest(tmp_path)
    assert "step-00000003" in caught.value.message and "step-00000006" in caught.value.message
    assert caught.value.hint == f"delete '{tmp_path}' to start the run afresh"


def test_a_disk_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    # 100,000 numbers four times (weights, average, two moments) and a tenth: 1.7 MiB
    with pytest.raises(OutputError, match=r"needs 2 MiB but its disk has 1 MiB"):
        save_checkpoint(tmp_path, state_of(1, size=100_000), settings_hash="h", keep=1)
    assert list(tmp_path.iterdir()) == []


def _save_on_a_full_disk(folder: Path, limit: int, says: Path) -> None:
    state = state_of(2, size=50_000)
    state.average = None
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save_checkpoint(folder, state, settings_hash="h", keep=2)
    except OutputError as error:
        says.write_text(error.message)


# 50,000 floats are 200 kB; the optimizer's file is twice that
@pytest.mark.parametrize(
    ("limit", "name"), [(100_000, "weights.safetensors"), (300_000, "step-00000002")]
)
def test_a_write_that_fails_midway_is_told_and_leaves_the_one_before(
    tmp_path: Path, limit: int, name: str
) -> None:
    folder, says = tmp_path / "checkpoints", tmp_path / "says"
    save(folder, 1)
    process = multiprocessing.get_context("fork").Process(
        target=_save_on_a_full_disk, args=(folder, limit, says)
    )
    process.start()
    process.join()
    assert f"{name}' cannot be written" in says.read_text()
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]
    state, damaged = load_latest(folder)
    assert state is not None and state.step == 1 and damaged == []


def test_the_manifest_records_step_settings_and_hashes(tmp_path: Path) -> None:
    save(tmp_path, 4)
    manifest = json.loads((tmp_path / "step-00000004" / "checkpoint.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["settings"]) == (1, 4, "h")
    assert set(manifest["files"]) == {
        "weights.safetensors",
        "average.safetensors",
        "optimizer.pt",
    }
