"""The folder of a synthetic set: begun, continued, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sampling.painting import SIZE, write_masks
from siamese_diffusion.core.artifacts import read_json, text_sha256
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.folder import (
    refuse_foreign_folder,
    refuse_strangers,
    settle_plan,
)
from siamese_diffusion.sampling.plan import Plan, make_plan
from siamese_diffusion.sampling.settings import SampleSettings


def plan_of(masks: Path, settings: SampleSettings | None = None, *, prompt: str = "polyp") -> Plan:
    return make_plan(
        PairFolder.open(masks, need="masks"),
        settings or SampleSettings(),
        size=SIZE,
        model_sha256="m",
        prompt=prompt,
    )


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "masks", 3)


@pytest.fixture
def paths(tmp_path: Path) -> SyntheticPaths:
    return SyntheticPaths(tmp_path / "out")


def test_the_plan_is_written_before_any_work(masks: Path, paths: SyntheticPaths) -> None:
    plan = plan_of(masks)
    settle_plan(paths, plan)
    header = read_json(paths.plan_header)
    assert header["kind"] == "synthetic"
    assert header["items"] == 3
    assert header["plan_sha256"] == text_sha256(paths.plan.read_text())
    assert [json.loads(line) for line in paths.plan.read_text().splitlines()] == [
        item.record() for item in plan.items
    ]
    assert paths.prompt.read_text() == "polyp\n"


def test_the_same_plan_again_changes_nothing(masks: Path, paths: SyntheticPaths) -> None:
    settle_plan(paths, plan_of(masks))
    before = paths.plan_header.read_bytes(), paths.plan.read_bytes()
    settle_plan(paths, plan_of(masks, SampleSettings(batch_size=2)))
    assert (paths.plan_header.read_bytes(), paths.plan.read_bytes()) == before


def test_a_blank_prompt_writes_no_prompt_file(masks: Path, paths: SyntheticPaths) -> None:
    settle_plan(paths, plan_of(masks, prompt=""))
    assert not paths.prompt.exists()


def test_a_lost_list_of_items_is_written_again(masks: Path, paths: SyntheticPaths) -> None:
    settle_plan(paths, plan_of(masks))
    before = paths.plan.read_bytes()
    paths.plan.write_bytes(before[:50])
    settle_plan(paths, plan_of(masks))
    assert paths.plan.read_bytes() == before


def test_a_folder_whose_worker_died_while_planning_is_continued(
    masks: Path, paths: SyntheticPaths
) -> None:
    settle_plan(paths, plan_of(masks))
    paths.plan_header.unlink()
    paths.claims.mkdir()
    (paths.root / ".plan.json.0123abcd.tmp").touch()
    settle_plan(paths, plan_of(masks))
    assert paths.plan_header.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SampleSettings(guidance_scale=7.0), r"guidance_scale: 9\.0 -> 7\.0"),
        (SampleSettings(folds=2, steps=20), r"folds: 1 -> 2; steps: 50 -> 20"),
        (SampleSettings(exact=True), r"exact: False -> True"),
        (
            SampleSettings(recipe="random"),
            r"recipe: real -> random; .*random\.max_cut: \(not there",
        ),
    ],
)
def test_other_settings_are_refused_with_old_and_new_value(
    masks: Path, paths: SyntheticPaths, settings: SampleSettings, message: str
) -> None:
    settle_plan(paths, plan_of(masks))
    before = paths.plan.read_bytes()
    with pytest.raises(OutputError, match=message) as caught:
        settle_plan(paths, plan_of(masks, settings))
    assert "another output folder" in str(caught.value.hint)
    assert paths.plan.read_bytes() == before


def test_changed_masks_are_refused_by_name(masks: Path, paths: SyntheticPaths) -> None:
    settle_plan(paths, plan_of(masks))
    (masks / "m00.png").unlink()
    write_masks(masks, 1, first=7)
    Image.new("L", (SIZE, SIZE), 0).save(masks / "m01.png")
    with pytest.raises(
        OutputError,
        match=r"masks added: 'm07\.png'; masks removed: 'm00\.png'; masks changed: 'm01\.png'",
    ):
        settle_plan(paths, plan_of(masks))


def test_a_folder_of_other_things_is_refused(paths: SyntheticPaths) -> None:
    paths.images.mkdir(parents=True)
    with pytest.raises(OutputError, match=r"out' is not empty .*'images'"):
        refuse_foreign_folder(paths)


def test_a_file_in_the_place_of_the_folder_is_refused(paths: SyntheticPaths) -> None:
    paths.root.touch()
    with pytest.raises(OutputError, match=r"out' is a file"):
        refuse_foreign_folder(paths)


def test_a_plan_of_another_kind_is_refused(paths: SyntheticPaths) -> None:
    paths.root.mkdir()
    paths.plan_header.write_text('{"kind": "holiday"}')
    with pytest.raises(OutputError, match=r"plan\.json' .*'holiday'"):
        refuse_foreign_folder(paths)


def test_a_new_or_empty_folder_is_accepted(paths: SyntheticPaths) -> None:
    refuse_foreign_folder(paths)
    paths.root.mkdir()
    refuse_foreign_folder(paths)


def test_pictures_outside_the_plan_are_refused(masks: Path, paths: SyntheticPaths) -> None:
    plan = plan_of(masks)
    paths.images.mkdir(parents=True)
    (paths.images / "m00.png").touch()
    (paths.images / ".m01.png.0123abcd.tmp").touch()
    refuse_strangers(plan, paths)
    (paths.images / "cat.png").touch()
    with pytest.raises(OutputError, match=r"cat\.png' is not part of the plan"):
        refuse_strangers(plan, paths)
