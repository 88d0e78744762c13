"""Blinding: what leaves the sources, what is kept apart, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mos.rating import PER_SOURCE, make_study, tokens, write_sources
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.data.images import read_image, resize_image
from siamese_diffusion.mos.prepare import Prepared, encode, parse_sources, prepare
from siamese_diffusion.mos.study import Study, open_key

SECRETS = (b"patient", b"secretmethod", b"othermethod", b"hidden", b"EXIF", b"eXIf", b"tEXt")


def sequence(prepared: Prepared) -> list[list[tuple[str, str]]]:
    """The orders of all raters in terms of (source, file)."""
    study = Study.open(prepared.study)
    key = open_key(prepared.key, study)
    return [
        [(key.items[item].source, key.items[item].file) for item in plan.order]
        for plan in study.record.raters
    ]


def test_study_folder_holds_no_name_of_file_or_method_and_no_metadata(prepared: Prepared) -> None:
    files = [path for path in prepared.study.rglob("*") if path.is_file()]
    assert len(files) == 1 + 3 * PER_SOURCE
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret in content]
        assert not [secret for secret in SECRETS if secret in path.name.encode()]
        for token in tokens(prepared):
            assert token.encode() not in content


def test_images_are_bare_pixels_of_one_form(prepared: Prepared, study: Study) -> None:
    key = open_key(prepared.key, study)
    for item, entry in key.items.items():
        with Image.open(study.image(item)) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (40, 40))
            assert image.info == {}
            pixels = np.array(image)
        source = read_image(Path(key.sources[entry.source]) / entry.file)
        np.testing.assert_array_equal(pixels, source)
        assert study.image(item).stat().st_mtime == 0


def test_key_tells_every_item_and_sources_are_balanced(prepared: Prepared, study: Study) -> None:
    key = open_key(prepared.key, study)
    found = [entry.source for entry in key.items.values()]
    assert {name: found.count(name) for name in set(found)} == {
        "real": PER_SOURCE,
        "secretmethod": PER_SOURCE,
        "othermethod": PER_SOURCE,
    }
    assert len({(entry.source, entry.file) for entry in key.items.values()}) == len(found)
    assert prepared.key.stat().st_mode & 0o077 == 0  # nobody else may enter


def test_equal_seeds_give_equal_draws_and_orders_but_other_names_and_tokens(tmp_path: Path) -> None:
    first, second = make_study(tmp_path / "1"), make_study(tmp_path / "2")
    other = make_study(tmp_path / "3", seed=6)
    assert sequence(first) == sequence(second) != sequence(other)
    left, right = Study.open(first.study), Study.open(second.study)
    assert not set(left.record.items) & set(right.record.items)
    assert not set(tokens(first)) & set(tokens(second))


def test_without_a_seed_the_order_is_drawn_and_recorded_in_the_key_only(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    real = folders.pop("real")
    seeds = set()
    for name in ("a", "b"):
        done = prepare(real, folders, tmp_path / name, per_source=2, repeats=0)
        seeds.add(json.loads((done.key / "key.json").read_text())["seed"])
        assert "seed" not in json.loads((done.study / "study.json").read_text())
    assert len(seeds) == 2


def test_nothing_is_enlarged_by_default_and_larger_images_are_resized_as_for_training(
    tmp_path: Path,
) -> None:
    folders = write_sources(tmp_path)
    big = tmp_path / "big"
    big.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    for number in range(2):
        Image.fromarray(pixels + number).save(big / f"{number}.png")
    done = prepare(folders["real"], {"big": big}, tmp_path / "s", per_source=2, repeats=1)
    study = Study.open(done.study)
    assert (done.size, study.record.size) == (40, 40)
    key = open_key(done.key, study)
    item = next(i for i, e in key.items.items() if e.file == "0.png")
    np.testing.assert_array_equal(read_image(study.image(item)), resize_image(pixels, 40))
    text = "\n".join(done.notes)
    assert "images of big are not square" in text
    assert "images of real come from JPEG files and others do not" in text


def test_jpeg_compresses_all_alike_and_enlarging_is_warned_of(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    done = prepare(
        folders["real"],
        {"m": folders["othermethod"]},
        tmp_path / "s",
        per_source=2,
        repeats=0,
        size=64,
        jpeg_quality=80,
    )
    for path in (done.study / "images").iterdir():
        assert path.suffix == ".jpg"
        content = path.read_bytes()
        assert not [secret for secret in SECRETS[:-2] if secret.lower() in content.lower()]
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (64, 64))
    assert "images of m, real are enlarged to 64 px" in "\n".join(done.notes)


def test_equal_images_of_two_sources_are_noted(tmp_path: Path) -> None:
    folders = write_sources(tmp_path, images=2)
    copied = tmp_path / "copied"
    shutil.copytree(folders["secretmethod"], copied)
    done = prepare(folders["secretmethod"], {"m": copied}, tmp_path / "s", per_source=2, repeats=0)
    assert "2 drawn images equal another one" in "\n".join(done.notes)


def test_encoding_is_lossless_by_default() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert encode(pixels).startswith(b"\x89PNG")
    assert encode(pixels, 90).startswith(b"\xff\xd8")


def test_too_few_images_and_missing_folders_are_told_at_once(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "nowhere", {"m": folders["othermethod"]}, tmp_path / "s", per_source=7)
    assert "nowhere' does not exist" in error.value.message
    assert "source 'm'" in error.value.message
    assert "has 6 images; 7 are to be drawn" in error.value.message
    assert not (tmp_path / "s").exists()


def test_existing_study_is_refused_and_left_alone(prepared: Prepared, tmp_path: Path) -> None:
    before = (prepared.study / "study.json").read_bytes()
    with pytest.raises(OutputError, match=r"study' exists; a study is never written over"):
        prepare(
            tmp_path / "real",
            {"m": tmp_path / "othermethod"},
            prepared.study,
            per_source=2,
            repeats=0,
        )
    assert (prepared.study / "study.json").read_bytes() == before


def test_key_inside_the_study_is_refused(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    out = tmp_path / "s"
    with pytest.raises(OutputError, match=r"key '.*s/key' and the study .* inside one another"):
        prepare(
            folders["real"],
            {"m": folders["othermethod"]},
            out,
            key=out / "key",
            per_source=2,
            repeats=0,
        )


def test_the_same_folder_twice_is_refused(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    with pytest.raises(DataError, match=r"real' is given twice, as 'real' and as 'm'"):
        prepare(folders["real"], {"m": folders["real"]}, tmp_path / "s", per_source=2, repeats=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raters": 0}, r"--raters 0 is not possible; 1 to 100"),
        ({"per_source": 1}, r"--per-source 1 is not possible"),
        ({"per_source": 4, "repeats": 5}, r"--repeats 5 is not possible; 0 to 4"),
        ({"size": 8}, r"--size 8 is not possible; 32 to 2048"),
        ({"jpeg_quality": 101}, r"--jpeg-quality 101 is not possible"),
    ],
)
def test_impossible_requests_are_refused(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    folders = write_sources(tmp_path)
    with pytest.raises(ConfigError, match=message):
        prepare(
            folders["real"],
            {"m": folders["othermethod"]},
            tmp_path / "s",
            raters=options.get("raters", 3),
            per_source=options.get("per_source", 3),
            repeats=options.get("repeats", 1),
            size=options.get("size"),
            jpeg_quality=options.get("jpeg_quality"),
        )


def test_a_study_needs_a_synthetic_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one synthetic set"):
        prepare(write_sources(tmp_path)["real"], {}, tmp_path / "s")


def test_method_names_are_parsed_and_duplicates_refused() -> None:
    assert parse_sources(["a=x/y", "other/b"]) == {"a": Path("x/y"), "b": Path("other/b")}
    with pytest.raises(ConfigError, match=r"method name 'a' is given twice, for 'x' and 'y/a'"):
        parse_sources(["a=x", "y/a"])
    with pytest.raises(ConfigError, match="'real' cannot be the name of a method"):
        parse_sources(["real=x"])


def test_damaged_image_is_named_and_nothing_stays_behind(tmp_path: Path) -> None:
    folders = write_sources(tmp_path, images=2)
    bad = folders["othermethod"] / "images" / "patientothermethod1.png"
    bad.write_bytes(bad.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"patientothermethod1\.png' is truncated"):
        prepare(
            folders["real"], {"m": folders["othermethod"]}, tmp_path / "s", per_source=2, repeats=0
        )
    assert not [
        p for p in tmp_path.iterdir() if p.name.startswith((".s", "s-key")) or p.name == "s"
    ]
