"""Mistakes: one line and a hint, exit code 2, nothing half-written; other exit codes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from invoking import settings, siamdiff
from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import DataError

MISTAKES = [
    ("fit --data {data} --out {out} --set train.stepz=3", r"setting 'train\.stepz'; .*'steps'"),
    ("fit --data {data} --out {out} --set trian.steps=3", r"'trian'; did you mean 'train'"),
    ("fit --data {data} --out {out} --set train.steps", r"'train\.steps' is not a setting"),
    ("fit --data {data} --out {out} --set train.steps=0", r"'train\.steps': .*given: 0"),
    ("fit --data {data} --out {out} --set data.size=60", r"size 60 is not a multiple of 8; use 64"),
    ("fit --data {data} --out {out} --preset smal", r"unknown preset 'smal'; .*'small'"),
    ("fit --data {data} --out {out} --generator siamse", r"generator 'siamse'; .*'siamese'"),
    ("fit --data {data} --out {out} --config {none}", r"'.*nowhere' cannot be read"),
    ("fit --data {data} --out {out} --base tinny", r"base 'tinny' is neither .*'tiny'"),
    ("fit --data {none} --out {out}", r"'.*nowhere' does not exist"),
    ("fit --data {data} --out {out} --split trian", r"'trian.*'train'|trian\.txt"),
    ("fit --data {data} --base {base}", r"fit needs a run folder"),
    ("fit --data {data} --base {base} --out {out} --device gpu", r"unknown device 'gpu'"),
    ("fit --data {data} --base {base} --out {data}", r"'.*phantoms' is not empty"),
    ("pretrain --data {none} --out {out}", r"'.*nowhere' does not exist"),
    ("pretrain --data {data} --out {out} --set size=50", r"multiple of 32; the next is 64"),
    ("pretrain --data {data} --out {out} --set denoiser.step=1", r"'denoiser\.step'; .*'steps'"),
    ("pretrain --data {data} --out {out} --device gpu", r"unknown device 'gpu'"),
    ("sample {none} --masks {data} --out {out}", r"'.*nowhere' is not a run folder"),
    ("sample {run} --masks {none} --out {out}", r"'.*nowhere' does not exist"),
    ("sample {run} --masks {data} --out {data}", r"'.*phantoms' is not empty"),
    ("sample {run} --masks {data} --out {out} --folds 0", r"'folds'.*given: 0"),
    ("sample {run} --masks {data} --out {out} --steps 1001", r"'steps'.*given: 1001"),
    ("sample {run} --masks {data} --out {out} --set scail=2", r"'scail'; did you mean 'scale'"),
    ("sample {run} --masks {data} --out {out} --set scale=[2,3]", r"must hold 1\.0 .* got 2\.0"),
    ("sample {run} --masks {data} --out {out} --split tst", r"tst\.txt|'tst'"),
    ("sample {run} --masks {data} --out {out} --device gpu", r"unknown device 'gpu'"),
    ("sample {run} --masks {data} --out {out} --base {data}", r"base folder '.*phantoms' lacks"),
    ("report {data}", r"phantoms' holds centre-a\.txt.*; expected a run folder"),
    ("report {none}", r"'.*nowhere' does not exist"),
    ("report {run} --out {data}", r"phantoms' is a folder; the report is one file"),
    ("data phantom {out} --pairs 0", r"pairs=0 is out of range"),
    ("data phantom {out} --size 7", r"size=7"),
    ("data phantom {out} --centre z", r"unknown centre 'z'"),
    ("data phantom {data} --pairs 3", r"phantoms was written with other arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_a_mistake_is_told_and_leaves_nothing_behind(
    command: str,
    message: str,
    tmp_path: Path,
    phantoms: Path,
    small_base_folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    needs_run = "{run}" in command
    run = request.getfixturevalue("tiny_run") if needs_run else tmp_path
    before = sorted(phantoms.rglob("*"))
    line = command.format(
        data=phantoms,
        base=small_base_folder,
        run=run,
        out=tmp_path / "out",
        none=tmp_path / "nowhere",
    )
    ran = siamdiff(*line.split())
    assert ran.code == 2, ran
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert re.search(message, ran.err), ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []
    assert sorted(phantoms.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--nope"], "No such option: --nope"),
        (["fit"], "Missing option '--data'"),
        (["sample"], "Missing argument 'run'"),
        (["nope"], "No such command 'nope'"),
        (["data", "nope"], "No such command 'nope'"),
        (["sample", "r", "--masks", "m", "--out", "o", "--recipe", "mirror"], "'mirror' is not"),
        (["sample", "r", "--masks", "m", "--out", "o", "--folds", "many"], "'--folds'"),
        ([], "Usage: "),
        (["data"], "Usage: "),
    ],
)
def test_mistakes_on_the_line_itself_exit_with_2_as_well(
    arguments: list[str], message: str
) -> None:
    ran = siamdiff(*arguments)
    assert ran.code == 2
    assert message in ran.err + ran.out


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_anywhere_shows_the_traceback(place: int, tmp_path: Path) -> None:
    arguments = ["fit", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    arguments.insert(place, "--debug")
    with pytest.raises(DataError, match="nowhere"):
        siamdiff(*arguments)


def test_a_hint_has_its_own_line(tmp_path: Path, phantoms: Path) -> None:
    ran = siamdiff("fit", "--data", phantoms, "--preset", "smal", "--out", tmp_path / "out")
    error, hint = ran.err.splitlines()
    assert error == "error: unknown preset 'smal'; did you mean 'small'?"
    assert hint.startswith("hint: choose from: paper, small, ")


def test_a_fault_of_the_package_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import siamese_diffusion.data.check as check

    def broken(folder: Path) -> None:
        raise ZeroDivisionError(str(folder))

    monkeypatch.setattr(check, "check_folder", broken)
    with pytest.raises(ZeroDivisionError):
        siamdiff("data", "check", tmp_path)


def test_ctrl_c_where_nothing_is_saved_exits_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import siamese_diffusion.data.check as check

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_folder", interrupted)
    assert siamdiff("data", "check", tmp_path).code == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_fit_exits_with_75_and_the_same_command_ends_it(
    number: signal.Signals,
    tmp_path: Path,
    phantoms: Path,
    small_base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from siamese_diffusion.generators.task import PairTask

    out = tmp_path / "run"
    line = ["fit", "--data", str(phantoms), "--base", str(small_base_folder), "--out", str(out)]
    line += ["--device", "cpu", *settings("data.size=64", "train.steps=4", "train.batch_size=2")]
    line += settings("train.tensorboard=false", "preview.pairs=1", "preview.steps=1")
    real = PairTask.batch

    def batch(
        self: PairTask, step: int, positions: Sequence[int], device: torch.device
    ) -> dict[str, torch.Tensor]:
        if step == 1:
            os.kill(os.getpid(), number)
        return real(self, step, positions, device)

    with monkeypatch.context() as patch:
        patch.setattr(PairTask, "batch", batch)
        ran = siamdiff(*line)
    assert ran.code == 75, ran.err
    assert "error: stopped after step 2 of 4; a checkpoint is written\n" in ran.err
    assert "hint: the same command continues from there\n" in ran.err
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    assert siamdiff("sample", out, "--masks", phantoms, "--out", tmp_path / "made").code == 2
    assert siamdiff(*line).code == 0
    events = [record["event"] for record in read_jsonl(out / "log.jsonl")]
    assert "resume" in events and events[-1] == "complete"


def test_a_stopped_sample_exits_with_75(
    tmp_path: Path, phantoms: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

    real = SiameseDiffusionPipeline._embed

    def embed(self: SiameseDiffusionPipeline, prompt: str) -> torch.Tensor:
        if prompt:  # once: a second signal would be obeyed at once
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, prompt)

    monkeypatch.setattr(SiameseDiffusionPipeline, "_embed", embed)
    ran = siamdiff(
        "sample", tiny_run, "--masks", phantoms, "--out", tmp_path / "made", "--steps", "1",
        "--batch-size", "1", "--device", "cpu", "--guidance", "1",
    )  # fmt: skip
    assert ran.code == 75
    assert "error: stopped by SIGTERM: 1 of 20 images are finished" in ran.err
    assert "hint: repeat the same command to continue" in ran.err
