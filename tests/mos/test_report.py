"""`siamdiff mos analyse` from study, key and store to JSON, CSV and text; the verbs themselves."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mos.rating import make_study, opened, write_sources
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.report import analyse_study
from siamese_diffusion.mos.store import Rating, default_url
from siamese_diffusion.mos.study import Study, open_key


def rate_all(prepared: Prepared, study: Study, *, raters: int = 3) -> None:
    """Real ones are called real; images of the first method by rater 1 too; the rest is not."""
    key = open_key(prepared.key, study)
    with opened(study) as store:
        for number, plan in enumerate(study.record.raters[:raters]):
            for position, item in enumerate(plan.order):
                source = key.items[item].source
                real = source == "real" or (source == "secretmethod" and number == 0)
                store.add(Rating(plan.rater, position, item, real, 4 + number, 1.0))


def test_a_whole_study_gives_the_hand_computed_table(
    prepared: Prepared, study: Study, tmp_path: Path
) -> None:
    rate_all(prepared, study)
    out = tmp_path / "mos.json"
    text = analyse_study(prepared.study, out=out, csv=tmp_path / "csv", resamples=200)
    content = json.loads(out.read_text())
    found = content["sources"]
    assert {n: (s["real"], s["n"]) for n, s in found.items()} == {
        "real": (12, 12),
        "secretmethod": (4, 12),
        "othermethod": (0, 12),
    }
    assert found["secretmethod"]["mos"] == pytest.approx(1 / 3)
    assert found["secretmethod"]["confidence"] == 5.0
    assert found["secretmethod"]["interval_images"]["low"] == pytest.approx(1 / 3)
    assert content["consistency"]["n"] == content["consistency"]["same"] == 6
    assert content["raters"]["rater-1"]["right"] == 8
    # Each image of secretmethod is split one to two: kappa -1/2 (observed 1/3, chance 5/9).
    assert content["agreement"]["secretmethod"]["kappa"] == pytest.approx((1 / 3 - 5 / 9) / (4 / 9))
    assert content["study"]["per_source"] == 4
    assert content["study"]["plan_sha256"] == study.fingerprint
    for line in (
        "Two methods: 3 raters, 42 of 42 screens answered",
        "0.333  0.333 to 0.333",
        "12 = 4 images x 3 raters",
        "false alarms: 0.000 of them called synthetic (n = 12)",
        "14 of 14",
    ):
        assert line in text
    with (tmp_path / "csv" / "rater-2.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["rater", "item", "is_real", "confidence", "seconds", "timestamp"]
    assert [row["item"] for row in rows] == study.record.raters[1].order
    assert {row["confidence"] for row in rows} == {"5"}


def test_a_running_study_can_be_analysed_and_tells_what_is_missing(
    prepared: Prepared, study: Study
) -> None:
    rate_all(prepared, study, raters=2)
    text = analyse_study(prepared.study, resamples=100)
    assert "28 of 42 screens answered" in text
    assert "8 = 4 images x 2 raters" in text
    assert "0 of 14" in text


def test_the_key_may_lie_anywhere(prepared: Prepared, study: Study, tmp_path: Path) -> None:
    rate_all(prepared, study)
    moved = tmp_path / "safe"
    shutil.move(prepared.key, moved)
    with pytest.raises(DataError, match=r"no key at '.*study-key'"):
        analyse_study(prepared.study)
    assert "42 of 42" in analyse_study(prepared.study, key=moved, resamples=100)


def test_unrated_studies_and_foreign_stores_are_refused(
    prepared: Prepared, study: Study, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no ratings at"):
        analyse_study(prepared.study)
    with opened(study):
        pass
    with pytest.raises(DataError, match=r"no image of study .* is rated yet"):
        analyse_study(prepared.study)
    other = make_study(tmp_path / "other")
    rate_all(other, Study.open(other.study))
    with pytest.raises(DataError, match=r"no image of study .* is rated yet"):
        analyse_study(prepared.study, store=default_url(other.study / "ratings.sqlite3"))


def test_mistakes_are_told_before_anything_is_computed(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resamples 5 is too few"):
        analyse_study(prepared.study, resamples=5)
    with pytest.raises(OutputError, match=r"is a folder; --out is one JSON file"):
        analyse_study(prepared.study, out=tmp_path)


def test_the_verbs_prepare_and_analyse(tmp_path: Path) -> None:
    folders = write_sources(tmp_path)
    out = tmp_path / "s"
    runner = CliRunner()
    done = runner.invoke(
        app,
        ["mos", "prepare", "--real", str(folders["real"]), "--out", str(out), "--per-source", "4"]
        + [f"--synthetic={name}={folders[name]}" for name in ("secretmethod", "othermethod")]
        + ["--repeats", "1", "--raters", "2"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert "12 images at 40 px, 13 screens a rater" in done.output
    assert "traces of the compression may give them away" in done.output
    study = Study.open(out)
    with opened(study) as store:
        for position, item in enumerate(study.record.raters[0].order):
            store.add(Rating("rater-1", position, item, True, 10, 1.0))
    done = runner.invoke(
        app, ["mos", "analyse", str(out), "--resamples", "100"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "13 of 26 screens answered" in done.output
