"""Bulk sampling as a whole: killed, shared, repeated, refused."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampling import painting
from sampling.painting import SIZE, PaintingPipeline, files_of, write_masks
from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.bulk import sample, sample_with
from siamese_diffusion.sampling.settings import SampleSettings

SCRIPT = str(Path(painting.__file__))


def worker(masks: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A process that imports everything and waits for `start`."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(masks), str(out), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "masks", 6)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_set_killed_at_random_moments_ends_up_equal_byte_for_byte(
    tmp_path: Path, n_workers: int
) -> None:
    folder = write_masks(tmp_path / "masks", 12)
    options = ("--folds", "4", "--rounds")
    # Slow painting against the kill delay: the workers must not finish before they are killed.
    slowly = (*options, "--seconds", "0.05")
    settings = SampleSettings(recipe="random", folds=4, batch_size=4)
    sample_with(
        PaintingPipeline(rounds=True), folder, tmp_path / "whole", settings=settings, progress=False
    )
    moments = random.Random(n_workers)
    images = SyntheticPaths(tmp_path / "out").images
    found = 0
    for attempt in range(5 - n_workers):
        workers = [worker(folder, tmp_path / "out", *slowly) for _ in range(n_workers)]
        for process in workers:
            start(process)
        if attempt % 2 == 0:  # kill while images are made; otherwise perhaps while planning
            while len(list(images.glob("m*.png"))) <= found:
                assert workers[0].poll() is None
                time.sleep(0.001)
        for process in workers:
            time.sleep(moments.uniform(0.0, 0.03))
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        found = len(list(images.glob("m*.png")))
    assert 0 < found < 48
    last = worker(folder, tmp_path / "out", *options)
    start(last)
    last.communicate()
    assert last.returncode == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert len(files_of(tmp_path / "out")) == 2 * 48 + 3  # pairs; plan, manifest, prompt


def test_workers_that_start_together_share_the_items(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", 20)
    options = ("--seconds", "0.01", "--batch-size", "2")
    workers = [worker(folder, tmp_path / "out", *options) for _ in range(3)]
    for process in workers:
        start(process)
    made = []
    for process in workers:
        said, _ = process.communicate()
        assert process.returncode == 0
        made.append(int(said))
    assert sum(made) == 20
    assert sum(n > 0 for n in made) > 1
    settings = SampleSettings(recipe="random", batch_size=2)
    sample_with(PaintingPipeline(), folder, tmp_path / "one", settings=settings, progress=False)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "one")


def test_a_terminated_worker_exits_with_75(masks: Path, tmp_path: Path) -> None:
    process = worker(masks, tmp_path / "out", "--seconds", "0.3", "--batch-size", "1")
    start(process)
    while not list((tmp_path / "out").glob("images/*.png")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75


def test_a_flat_folder_of_masks_becomes_a_data_set(masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = sample_with(PaintingPipeline(), masks, out, progress=False)
    assert (summary.planned, summary.made, summary.already_there) == (6, 6, 0)
    assert summary.images_per_second > 0
    folder = PairFolder.open(out)
    assert folder.stems == tuple(f"m{index:02d}" for index in range(6))
    assert folder.pairs[0].prompt == PaintingPipeline().prompt
    source = PairFolder.open(masks, need="masks")
    for index in range(6):
        np.testing.assert_array_equal(folder.mask(index), source.mask(index))


def test_a_finished_set_is_left_as_it_is(masks: Path, tmp_path: Path) -> None:
    sample_with(PaintingPipeline(), masks, tmp_path / "out", progress=False)
    before = files_of(tmp_path / "out")
    pipeline = PaintingPipeline()
    summary = sample_with(pipeline, masks, tmp_path / "out", progress=False)
    assert (summary.made, summary.already_there, summary.images_per_second) == (0, 6, 0.0)
    assert pipeline.seeds == []
    assert files_of(tmp_path / "out") == before


def test_an_image_does_not_depend_on_batch_size_or_company(masks: Path, tmp_path: Path) -> None:
    few = write_masks(tmp_path / "few", 2, first=4)
    one, all_ = SampleSettings(batch_size=1), SampleSettings(batch_size=6)
    sample_with(PaintingPipeline(), few, tmp_path / "a", settings=one, progress=False)
    sample_with(PaintingPipeline(), masks, tmp_path / "b", settings=all_, progress=False)
    for stem in ("m04", "m05"):
        left = SyntheticPaths(tmp_path / "a").image(stem).read_bytes()
        assert left == SyntheticPaths(tmp_path / "b").image(stem).read_bytes()


def test_the_random_recipe_never_loses_the_lesion(masks: Path, tmp_path: Path) -> None:
    settings = SampleSettings(recipe="random", folds=5)
    out = tmp_path / "out"
    pipeline = PaintingPipeline()
    sample_with(pipeline, masks, out, settings=settings, progress=False)
    paths = SyntheticPaths(out)
    shapes = set()
    for index in range(6):
        for fold in range(5):
            mask = np.asarray(Image.open(paths.mask(f"m{index:02d}_r{fold}")))
            assert mask.any()
            shapes.add(mask.tobytes())
    assert len(shapes) == 30
    assert {mask.tobytes() for mask in pipeline.masks} == shapes


def test_masks_of_another_size_are_resized_to_the_model(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", 1, size=100)
    sample_with(PaintingPipeline(), folder, tmp_path / "out", progress=False)
    with Image.open(SyntheticPaths(tmp_path / "out").mask("m00")) as mask:
        assert mask.size == (SIZE, SIZE)


@pytest.mark.parametrize("recipe", ["real", "random"])
def test_an_empty_mask_is_warned_of_and_sampled(masks: Path, tmp_path: Path, recipe: str) -> None:
    Image.new("L", (SIZE, SIZE)).save(masks / "none.png")
    summary = sample_with(
        PaintingPipeline(),
        masks,
        tmp_path / "out",
        settings=SampleSettings.model_validate({"recipe": recipe}),
        progress=False,
    )
    assert summary.made == 7
    assert re.search(r"1 of 7 masks are empty \('none'\)", summary.warnings[0])


def test_a_split_list_and_a_prompt_are_taken(masks: Path, tmp_path: Path) -> None:
    (masks / "val.txt").write_text("m01\nm03\n")
    out = tmp_path / "out"
    sample_with(PaintingPipeline(), masks, out, split="val", prompt="a naevus", progress=False)
    records = list(read_jsonl(SyntheticPaths(out).manifest))
    assert [record["id"] for record in records] == ["m01", "m03"]
    assert {record["prompt"] for record in records} == {"a naevus"}
    assert (out / "prompt.txt").read_text() == "a naevus\n"


def test_another_model_in_the_same_folder_is_refused(masks: Path, tmp_path: Path) -> None:
    sample_with(PaintingPipeline(), masks, tmp_path / "out", progress=False)
    other = PaintingPipeline()
    other.model_sha256 = "n" * 64
    with pytest.raises(OutputError, match=r"model_sha256: m+ -> n+"):
        sample_with(other, masks, tmp_path / "out", progress=False)
    assert other.seeds == []


def test_a_foreign_picture_under_a_planned_name_is_an_error(masks: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sample_with(PaintingPipeline(), masks, out, progress=False)
    Image.new("RGB", (SIZE, SIZE)).save(out / "images" / "m02.png")
    with pytest.raises(OutputError, match=r"m02\.png' is not the image that the plan asks for"):
        sample_with(PaintingPipeline(), masks, out, progress=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folds": 0}, r"'folds'.*given: 0"),
        ({"steps": 1001}, r"'steps'.*given: 1001"),
        ({"batch_size": 0}, r"'batch_size'.*given: 0"),
        ({"recipe": "mirror"}, r"'recipe'.*given: 'mirror'"),
        ({"guidance_scale": float("nan")}, r"'guidance_scale'.*given: nan"),
    ],
)
def test_impossible_settings_are_named(
    masks: Path, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(tmp_path / "run", masks, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_with_the_folders_is_said_before_a_model_is_loaded(
    masks: Path, tmp_path: Path
) -> None:
    no_run = tmp_path / "run"
    with pytest.raises(DataError, match=r"nowhere' does not exist"):
        sample(no_run, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match=r"test\.txt"):
        sample(no_run, masks, tmp_path / "out", split="test")
    with pytest.raises(OutputError, match=r"masks' is not empty"):
        sample(no_run, masks, masks)
    assert not (tmp_path / "out").exists()


def test_the_plan_names_the_run_so_that_it_is_found_from_any_folder(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", 2)
    sample_with(PaintingPipeline(), masks, tmp_path / "out", progress=False)
    origin = json.loads((tmp_path / "out" / "plan.json").read_text())["origin"]
    assert origin["run"] == str(Path("runs/phantom").resolve())
