"""`siamdiff fit` killed and stopped at any moment: the same command ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from generators.tiny import RICH, TINY, command, events, model_of, run, start
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators.fitting import fit

PLAIN: tuple[str, ...] = ()
# What one process alone cannot show: only some micro-batches have samples in Eq. (12).
SCARCE = (
    "train.micro_batch_size=1",
    "objective.image_pass=false",
    "objective.consistency_weight=0",
    "objective.augment_start_fraction=0",
    "objective.augment_below_timestep=300",
)


def lines(out: Path) -> int:
    log = RunPaths(out).log
    return log.read_bytes().count(b"\n") if log.exists() else 0


def wait_for_lines(process: object, out: Path, n: int) -> None:
    deadline = time.monotonic() + 120
    while lines(out) < n:
        assert process.exitcode is None  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_until_done(
    whole: Path, line: list[str], out: Path, *, kills: int, seed: int, says: Path
) -> None:
    """Kill the command `kills` times, let it end, and compare with the uninterrupted run."""
    moments = random.Random(seed)
    for attempt in range(kills):
        process = start(line, says)
        if attempt % 2:  # in the training; otherwise perhaps before it
            wait_for_lines(process, out, lines(out) + 2)
            time.sleep(moments.uniform(0, 0.3))
        else:
            time.sleep(moments.uniform(0, 1.5))
        process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    assert run(line, says) == 0, says.read_text()
    assert model_of(out) == model_of(whole)
    for name in ("train", "validate", "sample"):
        assert events(out, name) == events(whole, name)
    assert [e["step"] for e in events(out, "train")] == list(range(1, 9))
    hidden = [path.name for path in out.rglob(".*")]
    assert hidden == [], "temporaries of killed processes stayed"


@pytest.mark.parametrize(
    ("extra", "kills"),
    [pytest.param(PLAIN, 3, marks=pytest.mark.slow, id="plain"), pytest.param(RICH, 4, id="rich")],
)
def test_a_fit_killed_at_random_moments_ends_with_the_same_bits(
    phantoms: Path, small_base_folder: Path, tmp_path: Path, extra: tuple[str, ...], kills: int
) -> None:
    options = [*TINY, *extra]
    fit(phantoms, tmp_path / "whole", base=small_base_folder, overrides=options, quiet=True)
    line = command(phantoms, small_base_folder, tmp_path / "out", *options)
    kill_until_done(
        tmp_path / "whole", line, tmp_path / "out", kills=kills, seed=kills, says=tmp_path / "says"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_a_fit_killed_very_often_ends_with_the_same_bits(
    phantoms: Path, small_base_folder: Path, tmp_path: Path, seed: int
) -> None:
    options = [*TINY, *RICH, "train.checkpoint_every=1"]
    fit(phantoms, tmp_path / "whole", base=small_base_folder, overrides=options, quiet=True)
    line = command(phantoms, small_base_folder, tmp_path / "out", *options)
    kill_until_done(
        tmp_path / "whole", line, tmp_path / "out", kills=15, seed=seed, says=tmp_path / "says"
    )


def test_a_terminated_fit_saves_exits_with_75_and_goes_on_to_the_same_bits(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    options = [*TINY, *RICH, "train.checkpoint_every=100"]
    fit(phantoms, tmp_path / "whole", base=small_base_folder, overrides=options, quiet=True)
    out, says = tmp_path / "out", tmp_path / "says"
    line = command(phantoms, small_base_folder, out, *options)
    process = start(line, says)
    wait_for_lines(process, out, 4)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    said = says.read_text()
    assert process.exitcode == 75, said
    stopped = events(out, "interrupted")[0]["step"]
    assert f"error: stopped after step {stopped} of 8; a checkpoint is written\n" in said
    assert "hint: the same command continues from there\n" in said
    assert [p.name for p in RunPaths(out).checkpoints.iterdir()] == [f"step-{stopped:08d}"]
    assert run(line, says) == 0
    assert model_of(out) == model_of(tmp_path / "whole")
    assert events(out, "train") == events(tmp_path / "whole", "train")
    assert events(out, "resume")[0]["step"] == stopped
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(line, says) == 0
    assert "is already complete" in says.read_text()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "extra", [("train.gradient_checkpointing=true", *RICH), SCARCE], ids=["rich", "scarce"]
)
def test_two_processes_train_what_one_does(
    phantoms: Path, small_base_folder: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    # Adam divides by the gradient's size: without a floor it makes rounding of tiny gradients big.
    options = [*TINY, *extra, "train.batch_size=4", "train.steps=6", "train.epsilon=1e-3"]
    fit(phantoms, tmp_path / "one", base=small_base_folder, overrides=options, quiet=True)
    line = command(phantoms, small_base_folder, tmp_path / "two", *options)
    # what torchrun sets
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    both = [
        start(
            line, tmp_path / f"says{rank}", {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    for rank, process in enumerate(both):
        process.join()
        assert process.exitcode == 0, (tmp_path / f"says{rank}").read_text()
    assert events(tmp_path / "two", "start")[0]["processes"] == 2
    for name in ("control", "decoder"):
        one, two = (
            load_file(RunPaths(tmp_path / n).model / f"{name}.safetensors") for n in ("one", "two")
        )
        # float32 sums in another order; the weights move by 1e-3 a step
        assert_close(two, one, rtol=1e-5, atol=2e-6)
    for name in ("train", "validate"):
        pairs = zip(events(tmp_path / "one", name), events(tmp_path / "two", name), strict=True)
        for left, right in pairs:
            assert left.pop("event") == right.pop("event") == name
            assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_stopped_and_repeated_ends_with_the_same_bits(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    options = [*TINY, *RICH, "train.batch_size=4", "train.checkpoint_every=100"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launch += ["-m", "siamese_diffusion"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    uninterrupted = [*launch, *command(phantoms, small_base_folder, whole, *options)]
    subprocess.run(uninterrupted, capture_output=True, check=True)
    assert events(whole, "start")[0]["processes"] == 2
    line = [*launch, *command(phantoms, small_base_folder, out, *options)]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while lines(out) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
    assert len(events(out, "interrupted")) == 1
    subprocess.run(line, capture_output=True, check=True)
    assert model_of(out) == model_of(whole)
    assert events(out, "train") == events(whole, "train")
