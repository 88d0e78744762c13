"""Plans: deterministic, and each item independent of all others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampling.painting import SIZE, write_masks
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.plan import Plan, item_mask, make_plan
from siamese_diffusion.sampling.settings import SampleSettings


def plan_of(
    folder: Path,
    settings: SampleSettings | None = None,
    *,
    size: int = SIZE,
    model_sha256: str = "m",
    prompt: str = "polyp",
) -> Plan:
    masks = PairFolder.open(folder, need="masks")
    return make_plan(
        masks,
        settings or SampleSettings(),
        size=size,
        model_sha256=model_sha256,
        prompt=prompt,
    )


@pytest.mark.parametrize("recipe", ["real", "random"])
def test_the_same_arguments_give_the_same_plan(tmp_path: Path, recipe: str) -> None:
    folder = write_masks(tmp_path / "m", 4)
    settings = SampleSettings.model_validate({"recipe": recipe, "folds": 3})
    assert plan_of(folder, settings).lines() == plan_of(folder, settings).lines()


# What plans held before their departures were named in one place; sets of then must go on.
PLANNED = {
    "recipe": "real", "folds": 1, "steps": 20, "guidance_scale": 9.0, "seed": 0, "exact": False,
    "split": None, "mask_rule": {"kind": "0/255", "threshold": 127.0}, "prompt": "polyp",
    "size": SIZE, "model_sha256": "m",
}  # fmt: skip
INTERVAL = {"guidance_interval": [200, 800]}
ALL = {"precision": "bf16", "sampler": "dpm-solver++", **INTERVAL}


@pytest.mark.parametrize(
    ("asked", "content"),
    [
        ({}, "ab5e1e86608d22d5"),
        ({"precision": "bf16"}, "097133f356c17c96"),
        ({"sampler": "dpm-solver++"}, "a14f03ded152a857"),
        (INTERVAL, "b9a92552a25232d8"),
        (ALL, "4faa569693387b0e"),
    ],
    ids=["paper", "precision", "sampler", "interval", "all"],
)
def test_a_set_begun_earlier_has_the_same_identity(
    tmp_path: Path, asked: dict[str, object], content: str
) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:24, 4:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.bmp")  # not PNG: its bytes depend on the compressor
    plan = plan_of(tmp_path, SampleSettings.model_validate({"steps": 20, **asked}))
    assert json.loads(json.dumps(plan.identity)) == {**PLANNED, **asked}
    assert plan.items[0].content.startswith(content)


@pytest.mark.parametrize("recipe", ["real", "random"])
def test_an_item_does_not_depend_on_the_other_masks(tmp_path: Path, recipe: str) -> None:
    settings = SampleSettings.model_validate({"recipe": recipe, "folds": 2})
    few = plan_of(write_masks(tmp_path / "few", 2, first=3), settings)
    many = plan_of(write_masks(tmp_path / "many", 6), settings)
    in_many = {item.id: replace(item, index=0) for item in many.items}
    assert len(few.items) == 4
    for item in few.items:
        assert in_many[item.id] == replace(item, index=0)


def test_the_batch_size_changes_no_item(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", 3)
    assert (
        plan_of(folder, SampleSettings(batch_size=1)).lines()
        == plan_of(folder, SampleSettings(batch_size=7)).lines()
    )


def test_real_folds_repeat_masks_with_other_seeds(tmp_path: Path) -> None:
    plan = plan_of(write_masks(tmp_path / "m", 2), SampleSettings(folds=3))
    assert [item.id for item in plan.items] == [
        "m00", "m01", "m00_f1", "m01_f1", "m00_f2", "m01_f2",
    ]  # fmt: skip
    assert [item.index for item in plan.items] == list(range(6))
    assert len({item.seed for item in plan.items}) == 6
    assert len({item.content for item in plan.items}) == 6
    assert all(item.transform is None for item in plan.items)


def test_random_transforms_every_mask_in_every_fold(tmp_path: Path) -> None:
    plan = plan_of(write_masks(tmp_path / "m", 2), SampleSettings(recipe="random", folds=2))
    assert [item.id for item in plan.items] == ["m00_r0", "m01_r0", "m00_r1", "m01_r1"]
    assert len({str(item.transform) for item in plan.items}) == 4


def test_both_recipes_give_a_fold_the_same_noise(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", 2)
    real = plan_of(folder, SampleSettings(folds=2))
    moved = plan_of(folder, SampleSettings(folds=2, recipe="random"))
    assert [item.seed for item in real.items] == [item.seed for item in moved.items]


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": SampleSettings(steps=49)},
        {"settings": SampleSettings(guidance_scale=8.0)},
        {"settings": SampleSettings(seed=1)},
        {"settings": SampleSettings(recipe="random")},
        {"size": 64},
        {"model_sha256": "other"},
        {"prompt": "a skin lesion"},
    ],
    ids=str,
)
def test_the_content_hash_covers(tmp_path: Path, changed: dict[str, object]) -> None:
    folder = write_masks(tmp_path / "m", 1)
    other = plan_of(folder, **changed)  # type: ignore[arg-type]
    assert other.items[0].content != plan_of(folder).items[0].content


def test_the_content_hash_covers_the_mask_file(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", 1)
    before = plan_of(folder).items[0]
    mask = np.array(Image.open(folder / "m00.png"))
    Image.fromarray(mask.T.copy()).save(folder / "m00.png")
    after = plan_of(folder).items[0]
    assert after.seed == before.seed
    assert after.content != before.content


@pytest.mark.parametrize("below", [".", "masks"])
def test_mask_files_are_recorded_relative_to_their_folder(tmp_path: Path, below: str) -> None:
    write_masks(tmp_path / "m" / below, 1)
    expected = (Path(below) / "m00.png").as_posix()
    assert plan_of(tmp_path / "m").items[0].source == expected


def test_items_of_equal_name_are_refused(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", 1)
    (folder / "m00_f1.png").write_bytes((folder / "m00.png").read_bytes())
    with pytest.raises(DataError, match=r"'m00_f1\.png' \(fold 0\).*'m00\.png' \(fold 1\)"):
        plan_of(folder, SampleSettings(folds=2))


def test_empty_and_full_masks_are_counted_and_planned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_masks(tmp_path / "m", 3)
    Image.new("L", (SIZE, SIZE), 0).save(folder / "black.png")
    Image.new("L", (SIZE, SIZE), 255).save(folder / "white.png")
    plan = plan_of(folder)
    assert len(plan.items) == 5
    assert len(plan.warnings) == 2
    assert "1 of 5 masks are empty ('black')" in caplog.text
    assert "1 of 5 masks are foreground everywhere ('white')" in caplog.text


@pytest.mark.parametrize("recipe", ["real", "random"])
def test_item_masks_are_binary_at_the_size_asked_for(tmp_path: Path, recipe: str) -> None:
    folder = PairFolder.open(write_masks(tmp_path / "m", 2, size=50), need="masks")
    settings = SampleSettings.model_validate({"recipe": recipe})
    plan = make_plan(folder, settings, size=SIZE, model_sha256="m", prompt="")
    for position, item in enumerate(plan.items):
        mask = item_mask(folder, item, position=position, size=SIZE)
        assert mask.shape == (SIZE, SIZE)
        assert set(np.unique(mask)) == {0, 255}
        if recipe == "real":
            np.testing.assert_array_equal(mask, folder.mask(position, SIZE))


def test_a_mask_changed_after_planning_is_named(tmp_path: Path) -> None:
    folder = PairFolder.open(write_masks(tmp_path / "m", 1), need="masks")
    plan = make_plan(folder, SampleSettings(), size=SIZE, model_sha256="m", prompt="")
    Image.new("L", (SIZE, SIZE), 0).save(tmp_path / "m" / "m00.png")
    with pytest.raises(DataError, match=r"m00\.png' changed"):
        item_mask(folder, plan.items[0], position=0, size=SIZE)


def test_a_prompt_of_several_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'a\\nb' has several lines"):
        plan_of(write_masks(tmp_path / "m", 1), prompt="a\nb")


def test_planning_and_bulk_sampling_import_no_torch() -> None:
    modules = ["plan", "folder", "provenance", "claims", "settings", "worker", "bulk"]
    lines = [f"import siamese_diffusion.sampling.{name}" for name in modules]
    code = "\n".join([*lines, "import sys", "assert 'torch' not in sys.modules"])
    subprocess.run([sys.executable, "-c", code], check=True)
