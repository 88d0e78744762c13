"""PNG text and manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampling.painting import SIZE, PaintingPipeline, write_masks
from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import file_sha256, read_jsonl
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.plan import Plan, item_mask, make_plan
from siamese_diffusion.sampling.provenance import (
    complete_manifest,
    encode_image,
    is_finished,
    read_text,
    write_item,
)
from siamese_diffusion.sampling.settings import SampleSettings


@pytest.fixture
def paths(tmp_path: Path) -> SyntheticPaths:
    return SyntheticPaths(tmp_path / "out")


@pytest.fixture
def plan(tmp_path: Path, paths: SyntheticPaths) -> Plan:
    """A plan whose items are all written, in reverse order."""
    masks = PairFolder.open(write_masks(tmp_path / "masks", 3), need="masks")
    plan = make_plan(masks, SampleSettings(), size=SIZE, model_sha256="abc", prompt="a 'pólyp'")
    pipeline = PaintingPipeline()
    for position, item in reversed(list(enumerate(plan.items))):
        mask = item_mask(masks, item, position=position, size=SIZE)
        (image,) = pipeline([mask], [item.seed])
        write_item(item, plan, paths, mask=mask, image=image)
    return plan


def test_every_image_says_that_it_is_synthetic_and_how_it_was_made(
    plan: Plan, paths: SyntheticPaths
) -> None:
    item = plan.items[1]
    text = read_text(paths.image(item.id))
    settings = json.loads(text.pop("Settings"))
    assert text == {
        "Synthetic": "true",
        "Software": f"siamese-diffusion {__version__}",
        "ModelSHA256": "abc",
        "Seed": str(item.seed),
        "Mask": item.source_sha256,
        "Content": item.content,
    }
    assert settings["steps"] == 50
    assert settings["guidance_scale"] == 9.0
    assert settings["prompt"] == "a 'pólyp'"
    assert settings["transform"] is None


def test_masks_are_single_channel_with_two_values(plan: Plan, paths: SyntheticPaths) -> None:
    with Image.open(paths.mask(plan.items[0].id)) as mask:
        assert mask.mode == "L"
        assert mask.size == (SIZE, SIZE)
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_a_manifest_line_is_the_planned_item_and_the_hashes_of_its_files(
    plan: Plan, paths: SyntheticPaths
) -> None:
    complete_manifest(plan, paths)
    records = list(read_jsonl(paths.manifest))
    assert records == [
        {
            **item.record(),
            "image_sha256": file_sha256(paths.image(item.id)),
            "mask_sha256": file_sha256(paths.mask(item.id)),
        }
        for item in plan.items
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[1:],
        lambda lines: [*lines, lines[0]],
        lambda lines: [lines[0][:40], *lines[1:]],
        lambda lines: [lines[0], lines[1][:40] + lines[2]],
        lambda lines: [],
        lambda lines: [lines[0], '{"id": "gone"}\n', *lines[1:]],
    ],
    ids=["lost", "doubled", "torn", "torn inside", "empty", "stranger"],
)
def test_a_damaged_manifest_is_mended_from_the_files(
    plan: Plan, paths: SyntheticPaths, damage: object
) -> None:
    complete_manifest(plan, paths)
    whole = paths.manifest.read_text()
    assert callable(damage)
    paths.manifest.write_text("".join(damage(whole.splitlines(keepends=True))))
    complete_manifest(plan, paths)
    assert paths.manifest.read_text() == whole


def test_an_item_without_image_or_mask_is_not_finished(plan: Plan, paths: SyntheticPaths) -> None:
    first, second, third = plan.items
    paths.image(first.id).unlink()
    paths.mask(second.id).unlink()
    assert not is_finished(first, paths)
    assert not is_finished(second, paths)
    assert is_finished(third, paths)
    with pytest.raises(OutputError, match=rf"{first.id}\.png' or its mask vanished"):
        complete_manifest(plan, paths)


@pytest.mark.parametrize("found", ["none", "f00"])
def test_an_image_of_other_content_is_named(plan: Plan, paths: SyntheticPaths, found: str) -> None:
    item = plan.items[0]
    text = {} if found == "none" else {"Content": found}
    paths.image(item.id).write_bytes(encode_image(Image.new("RGB", (SIZE, SIZE)), text))
    with pytest.raises(OutputError, match=rf"{item.id}\.png' .*{found}, planned {item.content}"):
        is_finished(item, paths)


def test_a_file_that_is_no_png_is_named(plan: Plan, paths: SyntheticPaths) -> None:
    item = plan.items[0]
    paths.image(item.id).write_bytes(b"\x89PNG\r\n")
    with pytest.raises(OutputError, match=rf"{item.id}\.png' is not a readable PNG"):
        is_finished(item, paths)


def test_a_synthetic_set_opens_as_a_data_set(plan: Plan, paths: SyntheticPaths) -> None:
    folder = PairFolder.open(paths.root)
    assert folder.stems == tuple(sorted(item.id for item in plan.items))
