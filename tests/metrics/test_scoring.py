"""`score` and its verb, with random features: order, floors, passports, every refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from metrics.pictures import write_images
from siamese_diffusion.cli.main import app
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError, WeightsError
from siamese_diffusion.metrics import METRICS
from siamese_diffusion.metrics.base import Metric
from siamese_diffusion.metrics.fid import fid_singular
from siamese_diffusion.metrics.passport import compare
from siamese_diffusion.metrics.scoring import ScoreReport, default_cache, parse_weights, score
from siamese_diffusion.metrics.settings import ScoreSettings

SETTINGS = ScoreSettings(
    fidelity="random", similarity="random", size=48, bootstrap=10, floor_splits=2, batch_size=8
)
FREE = ("fid", "kid", "clip-i", "clip-i-paired", "cmmd", "prdc", "mixing")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images, others of the same kind, and the real ones blurred."""
    root = tmp_path_factory.mktemp("sets")
    write_images(root / "real", 24, seed=0)
    write_images(root / "alike", 24, seed=1)
    (root / "blurred/images").mkdir(parents=True)
    for path in (root / "real/images").iterdir():
        Image.open(path).filter(ImageFilter.GaussianBlur(4)).save(
            root / "blurred/images" / path.name
        )
    return root


def run(folders: Path, synthetic: str, cache: Path, **options: object) -> ScoreReport:
    arguments: dict[str, object] = {
        "metrics": FREE,
        "settings": SETTINGS,
        "cache": cache,
        "progress": False,
        **options,
    }
    return score(folders / "real", folders / synthetic, **arguments)  # type: ignore[arg-type]


def values(report: ScoreReport) -> dict[str, float]:
    return {v.measurement.name: v.measurement.value for v in report.values}


@pytest.mark.parametrize("name", list(METRICS))
def test_every_entry_is_a_metric(name: str) -> None:
    made = METRICS[name]
    assert isinstance(made, type)
    assert issubclass(made, Metric)
    assert made().role in ("fidelity", "similarity", "perceptual")
    assert made().least(SETTINGS) >= 1


def test_blurred_images_score_worse_than_others_of_the_same_kind(
    folders: Path, tmp_path: Path
) -> None:
    alike, blurred = (values(run(folders, name, tmp_path)) for name in ("alike", "blurred"))
    for name in ("fid", "kid", "cmmd_random-64"):
        assert alike[name] < blurred[name]
    for name in ("mixing", "coverage"):
        assert alike[name] > blurred[name]


def test_a_set_against_itself_is_perfect_and_said_to_be_so(folders: Path, tmp_path: Path) -> None:
    report = run(folders, "real", tmp_path)
    found = values(report)
    assert abs(found["fid"]) < 1e-6
    assert found["sim_random-64-paired"] == pytest.approx(1)
    assert any("hold the same images" in warning for warning in report.warnings)


def test_every_value_has_a_passport_a_floor_and_an_interval(folders: Path, tmp_path: Path) -> None:
    report = run(folders, "alike", tmp_path, holdout=folders / "blurred")
    for value in report.values:
        passport = value.passport
        assert passport.metric == value.measurement.name
        assert (passport.n, passport.m, passport.seed) == (24, 24, 0)
        assert passport.extractor == "random-64"
        assert passport.resize == "bicubic-48 > bicubic-64"
        assert passport.real == report.real.fingerprint != passport.synthetic
        assert value.measurement.interval is not None
        assert value.floor is not None
        assert (value.holdout is None) == value.measurement.name.endswith("paired")
    kid = next(v for v in report.values if v.measurement.name == "kid")
    assert kid.passport.settings == {"kid_blocks": 100, "kid_block_size": 1000}


def test_floor_is_the_mean_over_halves_of_the_real_set(folders: Path, tmp_path: Path) -> None:
    from siamese_diffusion.metrics.features import NetworkBench

    report = run(folders, "alike", tmp_path, metrics=["fid"])
    import torch

    bench = NetworkBench(SETTINGS, {}, cache=tmp_path, device=torch.device("cpu"), progress=False)
    splits = [report.real.halves(0, number) for number in range(2)]
    expected = [
        fid_singular(bench.features("fidelity", a), bench.features("fidelity", b))
        for a, b in splits
    ]
    assert report.values[0].floor == pytest.approx(np.mean(expected))


def test_score_files_of_two_sets_are_compared_and_other_real_sets_are_refused(
    folders: Path, tmp_path: Path
) -> None:
    for name in ("alike", "blurred"):
        run(folders, name, tmp_path, out=tmp_path / f"{name}.json", metrics=["kid"])
    (row,) = compare([tmp_path / "alike.json", tmp_path / "blurred.json"])
    assert row.values[0] is not None
    assert row.values[1] is not None
    assert row.values[0] < row.values[1]
    score(
        folders / "alike",
        folders / "blurred",
        metrics=["kid"],
        settings=SETTINGS,
        cache=tmp_path,
        out=tmp_path / "other.json",
        progress=False,
    )
    with pytest.raises(ConfigError, match=r"kid of .*: real: [0-9a-f]{12}\.\.\. / [0-9a-f]{12}"):
        compare([tmp_path / "alike.json", tmp_path / "other.json"])


def test_protocol_paper_is_one_image_per_training_mask(folders: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    shutil.copytree(folders / "real", real)
    (real / "train.txt").write_text("".join(f"p{i:03d}\n" for i in range(12)))
    made = tmp_path / "made"
    (made / "images").mkdir(parents=True)
    records = []
    for number in range(24):
        stem, fold = f"p{number % 12:03d}", number // 12
        item = stem if fold == 0 else f"{stem}_f1"
        shutil.copy(folders / f"alike/images/p{number:03d}.png", made / f"images/{item}.png")
        records.append(json.dumps({"id": item, "stem": stem, "fold": fold}))
    (made / "manifest.jsonl").write_text("\n".join(records) + "\n")
    settings = SETTINGS.model_copy(update={"protocol": "paper"})
    report = score(
        real,
        made,
        metrics=["kid", "clip-i-paired"],
        settings=settings,
        cache=tmp_path / "c",
        progress=False,
    )
    assert {(v.passport.n, v.passport.m, v.passport.protocol) for v in report.values} == {
        (12, 12, "paper")
    }
    everything = score(
        real, made, metrics=["kid"], settings=SETTINGS, cache=tmp_path / "c", progress=False
    )
    assert everything.values[0].passport.m == 24


def test_sets_that_a_metric_cannot_use_are_refused_before_any_network_runs(
    folders: Path, tmp_path: Path
) -> None:
    few = write_images(tmp_path / "few", 3)
    with pytest.raises(DataError, match=r"'prdc' needs 6 images in each set, but '.*few' has 3"):
        score(folders / "real", few, metrics=["prdc"], settings=SETTINGS, cache=tmp_path / "c")
    with pytest.raises(DataError, match=r"'fid' needs 2 images in each set, but '.*one' has 1"):
        score(
            folders / "real",
            write_images(tmp_path / "one", 1),
            metrics=["fid"],
            settings=SETTINGS,
            cache=tmp_path / "c",
        )
    stranger = tmp_path / "stranger"
    shutil.copytree(few, stranger)
    (stranger / "images/p002.png").rename(stranger / "images/zzz.png")
    with pytest.raises(DataError, match=r"1 of 3 images .* no real image of the same mask .*zzz"):
        score(
            folders / "real",
            stranger,
            metrics=["clip-i-paired"],
            settings=SETTINGS,
            cache=tmp_path / "c",
        )
    assert not (tmp_path / "c").exists()


def test_wrong_names_are_refused_with_the_nearest(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown metric 'fidd'; did you mean 'fid'\?"):
        run(folders, "alike", tmp_path, metrics=["fidd"])
    with pytest.raises(ConfigError, match=r"metric 'kid' is asked for twice"):
        run(folders, "alike", tmp_path, metrics=["kid", "fid", "kid"])
    with pytest.raises(ConfigError, match=r"no metric was asked for"):
        run(folders, "alike", tmp_path, metrics=[])
    with pytest.raises(ConfigError, match=r"unknown extractor 'clib'; did you mean 'clip'\?"):
        run(folders, "alike", tmp_path, weights={"clib": tmp_path})
    with pytest.raises(ConfigError, match=r"unknown device 'gpu'"):
        run(folders, "alike", tmp_path, device="gpu")


def test_missing_weights_and_impossible_outputs_are_told_first(
    folders: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"metric 'fid' needs the weights of 'inception'"):
        run(folders, "alike", tmp_path, settings=ScoreSettings())
    with pytest.raises(OutputError, match=rf"'{tmp_path}' is a folder"):
        run(folders, "alike", tmp_path, out=tmp_path)


def test_sets_of_other_sizes_and_formats_are_warned_of(folders: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    (small / "images").mkdir(parents=True)
    for path in (folders / "alike/images").iterdir():
        Image.open(path).resize((40, 40)).save(small / "images" / f"{path.stem}.bmp")
    report = score(
        folders / "real",
        small,
        metrics=["kid"],
        settings=SETTINGS,
        cache=tmp_path / "c",
        progress=False,
    )
    warnings = " ".join(report.warnings)
    assert "24 of 24 images of" in warnings
    assert "smaller than 48 pixels" in warnings
    assert "real images are .png, synthetic ones .bmp" in warnings


def test_extractor_options_are_read(tmp_path: Path) -> None:
    assert parse_weights(["clip=a/b", " vision = c=d "]) == {
        "clip": Path("a/b"),
        "vision": Path("c=d"),
    }
    for text in ("clip", "=a", "clip="):
        with pytest.raises(ConfigError, match=rf"'{text}' is not an extractor"):
            parse_weights([text])
    with pytest.raises(ConfigError, match=r"extractor 'clip' is given twice"):
        parse_weights(["clip=a", "clip=b"])


def test_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMDIFF_CACHE", "/x")
    assert default_cache() == Path("/x")
    monkeypatch.delenv("SIAMDIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/y")
    assert default_cache() == Path("/y/siamdiff/features")


def test_verbs_write_a_table_and_a_file_and_compare_them(folders: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    for name in ("alike", "blurred"):
        done = runner.invoke(
            app,
            [
                "score",
                "--real",
                str(folders / "real"),
                "--synthetic",
                str(folders / name),
                "--metrics",
                "kid, mixing",
                "--set",
                "fidelity=random",
                "--set",
                "size=48",
                "--set",
                "bootstrap=5",
                "--cache",
                str(tmp_path / "c"),
                "--out",
                str(tmp_path / f"{name}.json"),
            ],
        )
        assert done.exit_code == 0, done.exception
        assert "24 real, 24 synthetic images, protocol 'all'" in done.stdout
    content = json.loads((tmp_path / "alike.json").read_text())
    assert [v["name"] for v in content["values"]] == ["kid", "mixing"]
    assert content["settings"]["fidelity"] == "random"
    assert content["environment"]["command"]
    done = runner.invoke(
        app, ["compare-scores", *(str(tmp_path / f"{n}.json") for n in ("alike", "blurred"))]
    )
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[0] == "kid"
