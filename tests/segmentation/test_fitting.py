"""From folders to runs: identity, exact resume, refusals, and what is written."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segmentation.sets import write_synthetic
from siamese_diffusion.core.errors import (
    ConfigError,
    DataError,
    Interrupted,
    OutputError,
    WeightsError,
)
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.fitting import fit_segmenter, plan_segment, resolve_settings
from siamese_diffusion.segmentation.run_folder import load_segmenter, read_segmenter_run
from siamese_diffusion.segmentation.task import SegmentTask

TINY = ["inputs.size=64", "network.width=4", "train.batch_size=4"]


def fit(real: Path, out: Path, *overrides: str, **more: object) -> Path:
    return fit_segmenter(
        "unet",
        real,
        out,
        preset="small",
        overrides=[*TINY, *overrides],
        device="cpu",
        quiet=True,
        **more,  # type: ignore[arg-type]
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(SegmenterPaths(run).weights)


def log(run: Path, event: str) -> list[dict[str, float]]:
    lines = (json.loads(line) for line in SegmenterPaths(run).log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit(phantoms, out, "train.steps=6", "train.checkpoint_every=2")


def test_a_run_says_what_it_is_and_loads(run: Path) -> None:
    info, settings = read_segmenter_run(SegmenterPaths(run))
    assert (info.model, info.state, info.steps) == ("unet", "complete", 6)
    assert info.data["composition"] == {"real": 14, "synthetic": 0}
    assert info.data["validation"] == {"split": "val", "pairs": 3}
    model, loaded, _ = load_segmenter(run)
    assert loaded == settings and not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights(run)[name])


def test_the_composition_of_every_epoch_is_logged(run: Path) -> None:
    found = [(line["epoch/number"], line["epoch/real"]) for line in log(run, "validate")]
    assert found == [(1, 12), (2, 12)]


def test_the_same_command_leaves_a_complete_run_alone(run: Path, phantoms: Path) -> None:
    before = SegmenterPaths(run).weights.stat().st_mtime_ns
    fit(phantoms, run, "train.steps=6", "train.checkpoint_every=2")
    assert SegmenterPaths(run).weights.stat().st_mtime_ns == before


def test_an_interrupted_run_ends_with_the_same_bits(
    run: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = SegmentTask.batch

    def stopping(self: SegmentTask, step: int, *rest: object) -> dict[str, torch.Tensor]:
        if step == 3:
            raise Interrupted("here")
        return batch(self, step, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SegmentTask, "batch", stopping)
        with pytest.raises(Interrupted):
            fit(phantoms, tmp_path / "r", "train.steps=6", "train.checkpoint_every=2")
    with pytest.raises(OutputError, match="is not finished \\(6 updates asked\\)"):
        load_segmenter(tmp_path / "r")
    fit(phantoms, tmp_path / "r", "train.steps=6", "train.checkpoint_every=2")
    assert [line["step"] for line in log(tmp_path / "r", "resume")] == [2]
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, weights(tmp_path / "r")[name]), name


def test_another_seed_gives_other_weights(run: Path, phantoms: Path, tmp_path: Path) -> None:
    other = fit(phantoms, tmp_path / "r", "train.steps=1", seed=5)
    assert read_segmenter_run(SegmenterPaths(other))[1].train.seed == 5
    assert not torch.equal(weights(run)["out.weight"], weights(other)["out.weight"])


def test_another_run_in_the_folder_is_refused_with_what_differs(run: Path, phantoms: Path) -> None:
    with pytest.raises(OutputError, match=r"train\.seed: 0 -> 9"):
        fit(phantoms, run, "train.steps=6", "train.checkpoint_every=2", seed=9)
    with pytest.raises(OutputError, match=r"data\.composition\.real: 14 -> 28"):
        fit(phantoms, run, "train.steps=6", "train.checkpoint_every=2", copy_paste=True)


def test_a_folder_that_holds_something_else_is_refused(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and is no run folder"):
        fit(phantoms, tmp_path)
    with pytest.raises(OutputError, match="is not the run folder of a segmenter"):
        load_segmenter(tmp_path)


def test_real_and_synthetic_pairs_are_mixed_and_recorded(phantoms: Path, tmp_path: Path) -> None:
    real = PairFolder.open(phantoms, split="train")
    synthetic = write_synthetic(tmp_path / "s", real, folds=2)
    out = fit(phantoms, tmp_path / "r", "train.steps=7", synthetic=synthetic, ratio=2.0)
    info, _ = read_segmenter_run(SegmenterPaths(out))
    assert info.data["composition"] == {"real": 14, "synthetic": 28}
    assert info.data["synthetic"]["manifest"] is True
    last = log(out, "validate")[-1]
    assert last["epoch/real"] + last["epoch/synthetic"] == 40 and last["epoch/synthetic"] > 20


def test_a_set_without_manifest_is_warned_of(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real = PairFolder.open(phantoms, split="train")
    synthetic = write_synthetic(tmp_path / "s", real, manifest=False)
    _, settings = resolve_settings("unet", preset="small", overrides=TINY)
    with caplog.at_level(logging.WARNING):
        plan = plan_segment(phantoms, settings=settings, asked={}, synthetic=synthetic)
    assert f"'{synthetic}' has no manifest: the leakage guard is off" in caplog.text
    assert len(plan.mixture) == 28


def test_the_best_weights_are_kept_if_asked(phantoms: Path, tmp_path: Path) -> None:
    out = fit(phantoms, tmp_path / "r", "train.steps=9", "validation.select=best")
    scores = [line["dice"] for line in log(out, "validate")]
    info, _ = read_segmenter_run(SegmenterPaths(out))
    assert info.chosen == "best" and len(scores) == 3
    best = load_file(SegmenterPaths(out).best)
    assert all(torch.equal(best[name], tensor) for name, tensor in weights(out).items())


def test_pairs_are_held_out_where_a_plateau_needs_them_and_there_is_no_list(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    shutil.copytree(phantoms, root)
    (root / "val.txt").unlink()
    _, settings = resolve_settings("unet", preset="paper", overrides=TINY)
    with caplog.at_level(logging.WARNING):
        plan = plan_segment(root, settings=settings, asked={})
    assert plan.validation is not None and len(plan.validation) == 1
    assert "1 of its 14 pairs are held out" in caplog.text
    assert not set(plan.validation.stems) & set(plan.mixture.real.stems)


def test_a_validation_list_that_shares_pairs_with_training_is_refused(
    phantoms: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    shutil.copytree(phantoms, root)
    shutil.copy(root / "train.txt", root / "val.txt")
    _, settings = resolve_settings("unet", preset="small", overrides=TINY)
    with pytest.raises(DataError, match="validation split 'val' shares 14 pairs with the training"):
        plan_segment(root, settings=settings, asked={})


def test_epochs_become_updates_of_the_list_that_is_used(phantoms: Path) -> None:
    _, settings = resolve_settings("unet", preset="small", overrides=[*TINY, "train.epochs=3"])
    assert plan_segment(phantoms, settings=settings, asked={}).steps == 3 * (14 // 4)
    doubled = plan_segment(phantoms, settings=settings, asked={}, copy_paste=True)
    assert doubled.steps == 3 * (28 // 4)


def test_an_encoder_without_weights_is_warned_of(
    phantoms: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit_segmenter(
            "segformer",
            phantoms,
            tmp_path / "r",
            preset="small",
            overrides=["inputs.size=64", "train.batch_size=2", "train.steps=1"],
            device="cpu",
            quiet=True,
        )
    assert "the encoder of segformer starts from random weights" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sanet", "polyp-pvt", "ctnet"])
def test_every_other_network_trains_a_step_from_the_command(
    name: str, phantoms: Path, tmp_path: Path
) -> None:
    overrides = ["inputs.size=64", "train.batch_size=2", "train.steps=1"]
    out = fit_segmenter(
        name,
        phantoms,
        tmp_path / "r",
        preset="small",
        overrides=overrides,
        device="cpu",
        quiet=True,
    )
    assert load_segmenter(out)[2].model == name


def test_missing_or_useless_encoder_weights_are_refused_before_anything_is_written(
    phantoms: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"'absent\.pth' does not exist"):
        fit(phantoms, tmp_path / "r", encoder_weights="absent.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="UNet has no encoder"):
        fit(phantoms, tmp_path / "r", encoder_weights=tmp_path / "w.pth")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("model", "preset", "message"),
    [
        ("unett", None, "unknown segmenter 'unett'; did you mean 'unet'"),
        ("unet", "smal", "unknown preset 'smal'; did you mean 'small'"),
    ],
)
def test_unknown_names_are_refused(model: str, preset: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_settings(model, preset=preset)
