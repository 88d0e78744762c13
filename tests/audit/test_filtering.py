"""The filter: rules, reasons, audits that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from siamese_diffusion.audit.filtering import filter_set, parse_rules
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.metrics.sets import open_set


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Six pairs with a manifest and audits: Dice 0.0 to 1.0 in stem order, the last a copy."""
    root = tmp_path / "made"
    write_phantom(root, pairs=6, seed=0, size=32)
    folder = PairFolder.open(root)
    lines = [
        json.dumps({"id": stem, "stem": "m", "fold": i}) for i, stem in enumerate(folder.stems)
    ]
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    audit = tmp_path / "audit"
    audit.mkdir()
    pairs = [
        {"stem": stem, "dice": i / 5, "boundary": 0.1 - i / 50, "judges": 1}
        for i, stem in enumerate(folder.stems)
    ]
    alignment = {
        "synthetic": {"fingerprint": folder.fingerprint()},
        "pairs": pairs,
        "poor_below_dice": 0.35,
    }
    (audit / "alignment.json").write_text(json.dumps(alignment))
    memorisation = {
        "synthetic": {"fingerprint": open_set(root).fingerprint},
        "near_copies": [{"stem": folder.stems[5], "nearest": "train7"}],
    }
    (audit / "memorisation.json").write_text(json.dumps(memorisation))
    return root


def kept(made: Path, *rules: str) -> list[int]:
    """Places of the pairs that pass."""
    out = made.parent / ("out " + " ".join(rules))
    filter_set(made, made.parent / "audit", parse_rules(rules), out)
    stems = PairFolder.open(made).stems
    return [stems.index(stem) for stem in PairFolder.open(out).stems]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["dice=0.6"], [3, 4, 5]),
        (["boundary=0.05"], [3, 4, 5]),
        (["aligned"], [2, 3, 4, 5]),
        (["original"], [0, 1, 2, 3, 4]),
        (["dice=0.6", "original"], [3, 4]),
    ],
)
def test_rules_keep_what_they_say(made: Path, rules: list[str], expected: list[int]) -> None:
    assert kept(made, *rules) == expected


def test_every_pair_is_told_of_with_scores_and_reasons(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean"
    done = CliRunner().invoke(
        app,
        ["filter", str(made), "--audit", str(tmp_path / "audit"), "--keep", "dice=0.5",
         "--keep", "original", "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    assert f"{out}: 2 kept, 4 rejected" in done.stdout
    assert "3 rejected by dice=0.5" in done.stdout
    assert "1 rejected by original" in done.stdout
    lines = list(read_jsonl(out / "manifest.jsonl"))
    assert [line["fold"] for line in lines] == [3, 4]
    assert lines[0]["audit"] == {"dice": 0.6, "boundary": 0.1 - 3 / 50}
    reasons = [line["rejected"] for line in read_jsonl(out / "rejected.jsonl")]
    assert reasons[1] == ["Dice 0.2000 is below 0.5"]
    assert reasons[3] == ["near copy of training image 'train7'"]
    header = json.loads((out / "filter.json").read_text())
    assert (header["kept"], header["rejected"], header["rules"]) == (2, 4, ["dice=0.5", "original"])
    # The filtered set still knows which mask each image shows.
    assert {file.mask_stem for file in open_set(out).files} == {"m"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dise=0.5", r"unknown rule 'dise'; did you mean 'dice'\?"),
        ("dice", r"rule 'dice' needs a number"),
        ("dice=high", r"rule 'dice=high' needs a number"),
        ("dice=1.5", r"rule 'dice=1.5' must lie within 0 to 1"),
        ("original=1", r"rule 'original' takes no number, got 'original=1'"),
    ],
)
def test_rules_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rules([text])
    with pytest.raises(ConfigError, match=r"nothing says which pairs to keep"):
        parse_rules([])


def test_a_filter_that_leaves_nothing_writes_nothing(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no pair of .* passes boundary=0, original \(6 rej"):
        filter_set(
            made, tmp_path / "audit", parse_rules(["boundary=0", "original"]), tmp_path / "clean"
        )
    assert not (tmp_path / "clean").exists()


def test_missing_audits_and_audits_of_other_sets_are_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "audit/memorisation.json").unlink()
    with pytest.raises(DataError, match=r"memorisation\.json' is not there") as error:
        filter_set(made, tmp_path / "audit", parse_rules(["original"]), tmp_path / "clean")
    assert "siamdiff audit memorisation" in str(error.value.hint)
    stem = PairFolder.open(made).stems[0]
    for kind in ("images", "masks"):
        (made / kind / f"{stem}.png").unlink()
    with pytest.raises(DataError, match=r"alignment\.json' is the audit of another set"):
        filter_set(made, tmp_path / "audit", parse_rules(["aligned"]), tmp_path / "clean")


def test_a_folder_that_holds_something_is_left_alone(made: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"made' is not an empty folder"):
        filter_set(made, tmp_path / "audit", parse_rules(["aligned"]), made)
