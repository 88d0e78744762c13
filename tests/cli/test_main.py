"""Every verb of `siamdiff`, as a user types it, on phantoms and a very small base."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invoking import Ran, files_of, settings, siamdiff
from siamese_diffusion.core.artifacts import read_json, read_jsonl
from siamese_diffusion.core.config import read_yaml
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths

SMALL = (
    "--device",
    "cpu",
    *settings(
        "data.size=64",
        "train.batch_size=4",
        "train.tensorboard=false",
        "preview.pairs=2",
        "preview.steps=2",
        "preview.validation_pairs=1",
    ),
)
SAMPLER = ("--steps", "2", "--guidance", "1", "--device", "cpu")


def fit(phantoms: Path, base: Path, *options: str | Path) -> Ran:
    return siamdiff("fit", "--data", phantoms, "--base", base, *SMALL, *options)


def test_data_phantom_writes_a_set_and_says_where(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "phantoms"
    ran = siamdiff("data", "phantom", out, "--pairs", "3", "--size", "48", "--centre", "b")
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3
    assert siamdiff("data", "check", out).code == 0
    before = files_of(out)
    assert siamdiff(
        "data", "phantom", out, "--pairs", "3", "--size", "48", "--centre", "b"
    ).code == 0  # fmt: skip
    assert files_of(out) == before


def test_data_check_tells_what_is_there(phantoms: Path) -> None:
    ran = siamdiff("data", "check", phantoms)
    assert (ran.code, ran.err) == (0, "")
    assert "20 usable pairs" in ran.out and "can be used" in ran.out


def test_data_check_exits_with_2_for_a_broken_set(phantoms: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(phantoms, broken)
    victim = sorted((broken / "masks").iterdir())[0]
    victim.write_bytes(b"no picture")
    ran = siamdiff("data", "check", broken)
    assert ran.code == 2
    assert victim.name in ran.out and "cannot be used" in ran.out
    as_json = siamdiff("data", "check", broken, "--json")
    assert as_json.code == 2
    told = json.loads(as_json.out)
    assert told["ok"] is False
    assert any(victim.name in finding["message"] for finding in told["findings"])


def test_data_check_speaks_json(phantoms: Path) -> None:
    ran = siamdiff("data", "check", phantoms, "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["ok"], told["usable"]) == (True, 20)


def test_a_dry_run_tells_the_size_of_the_job_and_writes_nothing(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    before = sorted(phantoms.rglob("*"))
    ran = fit(phantoms, small_base_folder, "--out", out, "--dry-run", "--set", "train.steps=6")
    assert ran.code == 0
    settings, _, size = ran.out.partition("\n---\n")
    path = tmp_path / "told.yaml"
    path.write_text(settings)
    assert read_yaml(path)["train"]["steps"] == 6  # type: ignore[index]
    assert re.search(r"control: \d+\.\d\d M parameters, \d+\.\d\d M trained", size)
    assert re.search(r"decoder: \d+\.\d\d M parameters, \d+\.\d\d M trained", size)
    n = int(re.search(r"data: (\d+) pairs", size)[1])  # type: ignore[index]
    assert "steps: 6 of 4 (effective batch; micro-batch 4, accumulation 1 on one process)" in size
    assert f" {n // 4} steps per epoch" in size
    assert re.search(r"memory: about [\d,]+ MB", size)
    path.unlink()
    assert list(tmp_path.iterdir()) == []
    assert sorted(phantoms.rglob("*")) == before


def test_what_a_dry_run_tells_can_be_given_back_as_config(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    first = fit(phantoms, small_base_folder, "--dry-run", "--set", "train.seed=5")
    path = tmp_path / "told.yaml"
    path.write_text(first.out.partition("\n---\n")[0])
    again = siamdiff(
        "fit", "--data", phantoms, "--base", small_base_folder, "--config", path, "--dry-run"
    )
    assert again.out == first.out


def test_fit_trains_and_the_same_command_leaves_it_as_it_is(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ("--out", out, "--set", "train.steps=2", "--split", "val")
    ran = fit(phantoms, small_base_folder, *options)
    assert (ran.code, ran.out) == (0, f"{out}\n")
    paths = RunPaths(out)
    told = read_json(paths.run)
    assert (told["state"], told["step"], told["generator"]) == ("complete", 2, "siamese")
    assert told["data"]["split"] == "val"  # type: ignore[index]
    assert paths.sample_grid(2).exists()
    before = files_of(out)
    again = fit(phantoms, small_base_folder, *options)
    assert (again.code, files_of(out)) == (0, before)
    other = fit(phantoms, small_base_folder, *options, "--set", "train.seed=1")
    assert other.code == 2
    assert "belongs to another run: train.seed: 42 -> 1" in other.err
    assert files_of(out) == before


BASE = (
    "--device",
    "cpu",
    *settings(
        "size=64",
        "denoiser.steps=2",
        "denoiser.batch_size=2",
        "architecture.autoencoder_widths=[16,16,16,16]",
        "architecture.unet_widths=[16,32]",
        "architecture.text_width=32",
        "architecture.text_layers=1",
    ),
)


def test_pretrain_makes_a_base_that_fit_takes(phantoms: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    line = ["pretrain", "--data", str(phantoms), "--out", str(base), "--split", "train", *BASE]
    first = settings("autoencoder.steps=2", "autoencoder.batch_size=2")
    ran = siamdiff(*line, *first)
    assert (ran.code, ran.out) == (0, f"{base}\n"), ran.err
    found = {path.name for path in base.iterdir()}
    assert {"vae", "unet", "text_encoder", "tokenizer", "scheduler", "README.md"} <= found
    before = files_of(base)
    assert siamdiff(*line, *first).code == 0
    assert files_of(base) == before
    assert fit(phantoms, base, "--dry-run").code == 0
    other = siamdiff(*line, *first, "--set", "denoiser.seed=1")
    assert other.code == 2
    assert "belongs to another pretraining: denoiser.seed: 0 -> 1" in other.err


@pytest.mark.slow
def test_pretrain_takes_a_given_autoencoder(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    base, vae = tmp_path / "base", small_base_folder / "vae"
    ran = siamdiff(
        "pretrain",
        "--data",
        phantoms,
        "--out",
        base,
        "--split",
        "train",
        "--autoencoder",
        vae,
        *BASE,
    )
    assert ran.code == 0, ran.err
    assert not (base / "stages" / "autoencoder").exists()


@pytest.mark.parametrize("recipe", ["real", "random"])
def test_sample_makes_a_set_in_folds(
    recipe: str, tiny_run: Path, phantoms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    options = ("--recipe", recipe, "--split", "test", "--folds", "2", *SAMPLER)
    ran = siamdiff("sample", tiny_run, "--masks", phantoms, "--out", out, *options)
    assert ran.code == 0, ran.err
    n = len((phantoms / "test.txt").read_text().split())
    assert ran.out == f"{out}: {2 * n} planned, {2 * n} made, 0 were there\n"
    assert siamdiff("data", "check", out).code == 0
    again = siamdiff("sample", tiny_run, "--masks", phantoms, "--out", out, *options)
    assert again.out == f"{out}: {2 * n} planned, 0 made, {2 * n} were there\n"
    moved = [r["transform"] for r in read_jsonl(SyntheticPaths(out).manifest)]
    assert all((t is None) == (recipe == "real") for t in moved)


def test_sample_takes_masks_without_images_a_prompt_and_ranges(
    tiny_run: Path, phantoms: Path, tmp_path: Path
) -> None:
    masks, out = tmp_path / "masks", tmp_path / "made"
    masks.mkdir()
    for path in sorted((phantoms / "masks").iterdir())[:3]:
        shutil.copy(path, masks)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(masks / "nothing.png")
    ranges = tmp_path / "ranges.yaml"
    ranges.write_text("flip_horizontal: 0\nflip_vertical: 0\n")
    ran = siamdiff(
        "sample", tiny_run, "--masks", masks, "--out", out, "--recipe", "random", "--prompt",
        "A naevus.", "--config", ranges, "--set", "scale=[1,1]", "--exact", "--batch-size", "3",
        "--seed", "9", *SAMPLER,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "warning: 1 of 4 masks are empty ('nothing')" in ran.err
    records = list(read_jsonl(SyntheticPaths(out).manifest))
    assert {record["prompt"] for record in records} == {"A naevus."}
    transforms = [record["transform"] for record in records]
    assert all(isinstance(t, dict) and t["scale"] == 1 for t in transforms)
    assert not any(isinstance(t, dict) and t["flip_horizontal"] for t in transforms)
    settings = read_json(SyntheticPaths(out).plan_header)["settings"]
    assert isinstance(settings, dict)
    assert (settings["exact"], settings["seed"], settings["guidance_scale"]) == (True, 9, 1.0)


def test_report_writes_one_page_about_a_run(tiny_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = siamdiff("report", tiny_run, "--out", page)
    assert (ran.code, ran.out) == (0, f"{page}\n")
    text = page.read_text(encoding="utf-8")
    assert "Settings that differ from the paper" in text
    assert '<th scope="row">train.steps</th><td>6</td><td>3,000</td>' in text
