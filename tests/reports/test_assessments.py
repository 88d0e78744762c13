"""Scores, audits and the t-SNE on the page: read, told in words, shown, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.test_html import Page, read
from siamese_diffusion.core.errors import DataError, OutputError
from siamese_diffusion.reports import write_report

STEMS = [f"{i:02d}" for i in range(6)]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of six pairs with squares of different sides."""
    for number, stem in enumerate(STEMS):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 : 10 + number, 4:20] = 255
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        for folder, content in (("images", pixels), ("masks", mask)):
            (tmp_path / "made" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(tmp_path / "made" / folder / f"{stem}.png")
    return tmp_path / "made"


@pytest.fixture
def audit(tmp_path: Path, made: Path) -> Path:
    folder = tmp_path / "audit"
    (folder / "worst_pairs").mkdir(parents=True)
    pairs = [{"stem": s, "dice": i / 5, "boundary": 0.1, "judges": 1} for i, s in enumerate(STEMS)]
    for stem in STEMS:
        Image.new("L", (32, 32), 0).save(folder / "worst_pairs" / f"{stem}.png")
    (folder / "alignment.json").write_text(json.dumps({
        "kind": "alignment", "dice_on_synthetic": 0.5, "dice_on_real": 0.9, "dice_on_shuffled": 0.1,
        "boundary_on_synthetic": 0.1, "boundary_on_real": 0.02, "poor_below_dice": 0.3,
        "poor": STEMS[:2], "n_synthetic": 6, "n_real": 2, "pairs": pairs,
        "real_pairs": [{"stem": "r", "dice": 0.9, "boundary": 0.02}] * 2,
        "segmenter": "a network", "settings": {"folds": 2}, "synthetic": {"path": str(made)},
    }))  # fmt: skip
    closest = [
        {"stem": stem, "path": str(made / f"images/{stem}.png"), "nearest": "05",
         "nearest_path": str(made / "images/05.png"), "space": "pixels", "distance": i / 10,
         "threshold": 0.05, "turn": "as is"}
        for i, stem in enumerate(STEMS)
    ]  # fmt: skip
    (folder / "memorisation.json").write_text(json.dumps({
        "kind": "memorisation", "has_copies": True, "verdict_error_rate": 0.05,
        "calibration": "hold-out images", "n_real": 9, "n_synthetic": 6, "n_holdout": 40,
        "near_copies": closest[:1], "closest": closest, "settings": {"rate": 0.025},
        "synthetic": {"path": str(made)},
        "spaces": [{"space": "pixels", "flagged": 1, "expected": 0.15, "chance": 1e-7,
                    "closer_to_train": None, "median_distance": 0.2,
                    "median_distance_of_holdout": 0.3}],
    }))  # fmt: skip
    return folder


@pytest.fixture
def score(tmp_path: Path) -> Path:
    def value(name: str, extractor: str, number: float, interval: object) -> dict[str, object]:
        return {"name": name, "value": number, "higher_is_better": False, "interval": interval,
                "real_against_real": 2.0, "real_against_holdout": None, "warnings": ["<few>"],
                "passport": {"metric": name, "extractor": extractor, "n": 9}}  # fmt: skip

    path = tmp_path / "numbers.json"
    path.write_text(json.dumps({
        "kind": "score", "format": 1, "real": {"path": "real", "n": 9},
        "synthetic": {"path": "some/made", "n": 6}, "settings": {"protocol": "all", "seed": 0},
        "warnings": ["2 images are in both sets, byte for byte"],
        "values": [value("fid", "inception-2048", 7.5, [6.0, 9.0]),
                   value("kid", "inception-2048", 2.5, [1.0, 3.0])],
    }))  # fmt: skip
    return path


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    plane = [[[0.0, 0.0], [1.0, 2.0]]] * 3
    (tmp_path / "fig4.json").write_text(json.dumps({
        "kind": "tsne", "mixing": {"real": 0.51, "ours": 0.2}, "expected": 0.5, "points": 2,
        "extractor": "random-64", "plane": plane, "settings": {"seed": 0},
    }))  # fmt: skip
    Image.new("RGB", (4, 4)).save(tmp_path / "fig4.png")
    return tmp_path / "fig4.png"


def test_all_are_known_by_their_content_in_any_order(
    audit: Path, score: Path, figure: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    page = read(write_report([figure, score, audit, audit / "alignment.json"], out))
    headings = [a["id"] for tag, a in page.tags if tag == "h2"]
    assert len(headings) == 5  # the overview, and each once
    assert "http" not in out.read_text().replace("http-equiv", "")


def test_alignment_is_told_between_its_anchors_and_its_worst_pairs_are_shown(audit: Path) -> None:
    (audit / "memorisation.json").unlink()
    page = read(write_report([audit]))
    assert "In part: 50% of the way from chance to real pairs." in page.text
    assert "2 of 6 synthetic pairs are below the worst 5 % of real pairs (Dice 0.30)" in page.text
    names = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert len(names) == 6 * 3
    assert names[0] == "Synthetic image 00 with the outline of its mask"
    assert "outline found: nothing" in page.text
    (histogram,) = [a for tag, a in page.tags if tag == "svg"]
    assert "mean 0.50" in str(histogram["aria-label"])
    edit(audit / "alignment.json", dice_on_synthetic=0.12)
    assert "No, or hardly: 2% of the way" in read(write_report([audit])).text


def test_copies_come_with_error_rate_pictures_and_distances(audit: Path) -> None:
    (audit / "alignment.json").unlink()
    page = read(write_report([audit]))
    assert "The set holds copies: 1 of 6 images are nearer to a training image" in page.text
    assert "Of sets without any copy, 5% would be accused by this test." in page.text
    assert "learnt from 40 real images" in page.text
    assert "Distance 0.000 (pixels, compared as is); below 0.050: a near copy" in page.text
    flagged = [a for _, a in page.tags if a.get("class") == "item flagged"]
    assert len(flagged) == 1
    edit(audit / "memorisation.json", has_copies=False)
    text = read(write_report([audit])).text
    assert "Not more than chance allows: 1 of 6" in text  # never "no sign" while one is listed
    edit(audit / "memorisation.json", near_copies=[])
    assert "No sign of copying: none of 6" in read(write_report([audit])).text


def test_scores_stand_beside_real_against_real_with_foldable_passports(score: Path) -> None:
    page = read(write_report([score]))
    assert "7.5 6 to 9 2 worse than real against real" in page.text
    assert "2.5 1 to 3 2 like real against real" in page.text
    assert "1 of 2 values are as good as for real images" in page.text
    assert "against each other; worse: fid" in page.text
    assert "<few>" in page.text  # a warning, escaped
    assert sum(tag == "details" for tag, _ in page.tags) == 3
    assert "untrained" not in page.text


def test_the_plane_is_drawn_and_an_untrained_network_is_named_as_such(figure: Path) -> None:
    page = read(write_report([figure]))
    assert "Seen by an untrained network" in page.text
    assert "ours: mixing 0.20" in page.text
    drawn = [tag for tag, _ in page.tags if tag in ("circle", "path")]
    assert drawn == ["circle", "circle", "path", "path"] * 2


def test_pictures_that_are_gone_are_remarked_on_or_found_in_a_set_of_the_page(
    audit: Path, made: Path
) -> None:
    moved = made.rename(made.parent / "elsewhere")
    text = read(write_report([audit])).text
    assert "The worst pairs are not shown" in text
    assert "00 is not shown" in text
    (moved.parent / "again").mkdir()
    home = moved.rename(moved.parent / "again" / "made")
    (home / "plan.json").write_text(json.dumps({"items": 6}))
    (home / "manifest.jsonl").write_text("".join(f'{{"id": "{s}"}}\n' for s in STEMS))
    text = read(write_report([audit, home])).text
    assert "The worst pairs are not shown" not in text


def test_what_lies_in_a_set_is_taken_too(audit: Path, made: Path) -> None:
    (made / "plan.json").write_text(json.dumps({"items": 6}))
    (made / "manifest.jsonl").write_text("".join(f'{{"id": "{s}"}}\n' for s in STEMS))
    (made / "alignment.json").write_text((audit / "alignment.json").read_text())
    page = read(write_report([made]))
    assert "In part: 50% of the way" in page.text
    assert "real_pairs" not in page.text


def test_other_files_and_damaged_ones_are_refused(audit: Path, score: Path, figure: Path) -> None:
    other = score.with_name("other.json")
    other.write_text("{}")
    with pytest.raises(DataError, match=r"other\.json' is a file, but none of a score"):
        write_report([other])
    picture = score.with_suffix(".png")
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(DataError, match=r"numbers\.png' is no figure of `siamdiff plot tsne`"):
        write_report([picture])
    edit(score, values=[{"name": "fid"}])
    with pytest.raises(OutputError, match=r"numbers\.json' is damaged or of another version"):
        write_report([score])
    edit(audit / "alignment.json", pairs=3)
    with pytest.raises(OutputError, match=r"alignment\.json' is damaged .*a list is expected"):
        write_report([audit])


def test_the_page_lies_beside_a_first_source_that_is_a_file(score: Path) -> None:
    out = write_report([score])
    assert out == score.parent / "report.html"
    assert Page(out.read_text()).text
