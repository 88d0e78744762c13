"""The whole chain on phantoms: data, fit, sample, report; killed, shared and continued."""

from __future__ import annotations

import os
import random
import re
import time
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invoking import files_of, settings, siamdiff
from siamese_diffusion.core.artifacts import read_json, read_jsonl
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder


def without_header(folder: Path) -> dict[str, bytes]:
    """All files but the plan's header, which holds paths."""
    return {name: data for name, data in files_of(folder).items() if name != "plan.json"}


def test_phantom_fit_sample_and_report(small_base_folder: Path, tmp_path: Path) -> None:
    data, run, made, page = (tmp_path / name for name in ("data", "run", "made", "page.html"))
    assert siamdiff("data", "phantom", data, "--pairs", "16", "--size", "64").code == 0
    assert siamdiff("data", "check", data).code == 0
    small = settings(
        "data.size=64", "train.steps=3", "train.batch_size=4", "preview.pairs=2", "preview.steps=2"
    )
    fit = siamdiff(
        "fit", "--data", data, "--base", small_base_folder, "--out", run, "--device", "cpu", *small
    )
    assert fit.code == 0, fit.err
    sampler = ("--split", "test", "--steps", "2", "--guidance", "1", "--device", "cpu")
    sample = siamdiff("sample", run, "--masks", data, "--out", made, "--folds", "2", *sampler)
    assert sample.code == 0, sample.err
    report = siamdiff("report", run, made, "--out", page)
    assert report.code == 0, report.err

    identity = read_json(RunPaths(run).run)["model_sha256"]
    synthetic, real = PairFolder.open(made), PairFolder.open(data, split="test")
    assert len(synthetic) == 2 * len(real)
    records = {str(r["id"]): r for r in read_jsonl(SyntheticPaths(made).manifest)}
    for index, stem in enumerate(synthetic.stems):
        source = real.stems.index(str(records[stem]["stem"]))
        np.testing.assert_array_equal(synthetic.mask(index), real.mask(source))
        with Image.open(SyntheticPaths(made).image(stem)) as image:
            assert image.info["Synthetic"] == "true"
            assert image.info["ModelSHA256"] == identity
    text = page.read_text(encoding="utf-8")
    assert "Made by the model of the training run <b>run</b>" in text
    words = " ".join(re.sub("<[^>]+>", " ", text).split())
    assert re.search(rf"\b{len(synthetic)} synthetic images ?, all that were planned", words)
    # A synthetic set is a data set: everything takes it, training included.
    again = siamdiff(
        "fit", "--data", made, "--base", small_base_folder, "--dry-run", "--device", "cpu", *small
    )
    assert again.code == 0, again.err


def sampling(run: Path, masks: Path, out: Path, said: Path, exact: bool) -> ForkProcess:
    """A process that begins as a copy of this one, in which torch is already loaded."""
    line: list[str | Path] = ["sample", run, "--masks", masks, "--out", out, "--steps", "12"]
    line += ["--guidance", "2", "--device", "cpu", "--batch-size", "3", "--recipe", "random"]

    def work() -> None:
        ran = siamdiff(*line, *(["--exact"] if exact else []))
        said.write_text(ran.out + ran.err)
        os._exit(ran.code)

    process = get_context("fork").Process(target=work)
    process.start()
    return process


def finished(process: ForkProcess) -> None:
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("exact", [False, True])
def test_a_real_set_killed_at_random_moments_ends_up_equal_byte_for_byte(
    exact: bool, tiny_run: Path, phantoms: Path, tmp_path: Path
) -> None:
    whole, out, said = tmp_path / "whole", tmp_path / "out", tmp_path / "said"
    finished(sampling(tiny_run, phantoms, whole, said, exact))
    moments = random.Random(int(exact))
    images = SyntheticPaths(out).images
    killed_at = []
    for _ in range(3):
        process = sampling(tiny_run, phantoms, out, said, exact)
        before = len(list(images.glob("phantom*.png")))
        while process.is_alive() and len(list(images.glob("phantom*.png"))) <= before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        process.join()
        killed_at.append(len(list(images.glob("phantom*.png"))))
    assert 0 < killed_at[0] < 20, "the first was not killed in the middle"
    finished(sampling(tiny_run, phantoms, out, said, exact))
    assert without_header(out) == without_header(whole)


def test_two_processes_share_a_set(tiny_run: Path, phantoms: Path, tmp_path: Path) -> None:
    alone, out = tmp_path / "alone", tmp_path / "out"
    finished(sampling(tiny_run, phantoms, alone, tmp_path / "said", False))
    says = [tmp_path / "said0", tmp_path / "said1"]
    for process in [sampling(tiny_run, phantoms, out, said, False) for said in says]:
        finished(process)
    made = [re.findall(r"20 planned, (\d+) made", said.read_text()) for said in says]
    assert sum(int(number) for (number,) in made) == 20
    assert without_header(out) == without_header(alone)
