"""`fit`: what it asks, refuses, leaves behind, and repeats."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from generators.tiny import RICH, TINY, events, model_of
from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.config import flatten, read_yaml
from siamese_diffusion.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NumericsError,
    OutputError,
    WeightsError,
)
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.generators.fitting import FitPlan, fit, plan_fit, resolve_settings
from siamese_diffusion.generators.run_folder import (
    generator_class,
    load_run,
    read_run,
    write_run,
)
from siamese_diffusion.generators.settings import PRESETS, SiameseFitSettings


@pytest.fixture(scope="module")
def whole(
    phantoms: Path, small_base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run with all that keeps a state; do not write into it."""
    out = tmp_path_factory.mktemp("fit") / "whole"
    options = [*TINY, *RICH]
    return fit(phantoms, out, base=small_base_folder, overrides=options, quiet=True)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> RunPaths:
    """The finished run, to be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return RunPaths(tmp_path / "run")


def unfinish(paths: RunPaths) -> None:
    """As if killed between the last checkpoint and the weights."""
    info, _ = read_run(paths)
    fields = {name: getattr(info, name) for name in info.__dataclass_fields__}
    write_run(paths, type(info)(**{**fields, "state": "training", "model_sha256": None}))
    shutil.rmtree(paths.model)


def again(phantoms: Path, base: Path, out: Path, *more: str) -> Path:
    return fit(phantoms, out, base=base, overrides=[*TINY, *RICH, *more], quiet=True)


def test_without_a_preset_the_settings_are_the_papers() -> None:
    asked, settings = resolve_settings()
    assert asked == {} and settings == SiameseFitSettings()
    assert settings.data.size == 384 and settings.train.steps == 3000


def test_preset_file_and_overrides_come_in_this_order(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train:\n  steps: 7\n  seed: 3\n")
    asked, settings = resolve_settings(preset="small", config=file, overrides=["train.seed=4"])
    assert (settings.data.size, settings.train.steps, settings.train.seed) == (128, 7, 4)
    assert settings.train.batch_size == 16
    assert asked["train"] == {**PRESETS["small"]["train"], "steps": 7, "seed": 4}  # type: ignore[dict-item]
    _, alone = resolve_settings(config=file)
    assert alone.train.batch_size == 48


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "smal"}, r"unknown preset 'smal'; did you mean 'small'\?"),
        ({"generator": "siamse"}, r"unknown generator 'siamse'; did you mean 'siamese'\?"),
        ({"overrides": ["train.step=5"]}, r"unknown setting 'train\.step'; did you mean 'steps'"),
        ({"overrides": ["objectives.mask_weight=5"]}, r"'objectives'; did you mean 'objective'"),
        ({"overrides": ["data.size=100"]}, r"size 100 is not a multiple of 8; use 104"),
        ({"overrides": ["generator=x"]}, r"unknown generator 'x'"),
        ({"config": Path("none.yaml")}, r"config file 'none\.yaml' cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_settings(**arguments)  # type: ignore[arg-type]


def plan_of(data: Path, base: Path, *overrides: str, split: str | None = None) -> FitPlan:
    asked, settings = resolve_settings(overrides=[*TINY, *overrides])
    return plan_fit(data, base, settings=settings, asked=asked, split=split)


def test_the_training_list_is_taken_if_there_is_one(
    phantoms: Path, small_base_folder: Path
) -> None:
    plan = plan_of(phantoms, small_base_folder)
    assert plan.folder.split == "train"
    assert len(plan.folder) == len((phantoms / "train.txt").read_text().split())
    assert plan.preview is not None and plan.preview.split == "val" and len(plan.preview) == 1


def test_a_validation_list_that_is_trained_on_or_missing_means_the_training_pairs(
    phantoms: Path, small_base_folder: Path
) -> None:
    assert plan_of(phantoms, small_base_folder, split="val").preview is None
    missing = plan_of(phantoms, small_base_folder, "preview.validation_split=none")
    assert missing.preview is None


def test_a_broken_validation_pair_is_told_before_anything_is_done(
    small_base_folder: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "data", pairs=8, seed=0, size=64)
    stem = (tmp_path / "data" / "val.txt").read_text().split()[0]
    (tmp_path / "data" / "masks" / f"{stem}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=rf"{stem}\.png"):
        fit(tmp_path / "data", tmp_path / "out", base=small_base_folder, overrides=TINY)
    assert not (tmp_path / "out").exists()


def test_degenerate_masks_are_counted_and_dropped_if_asked(
    small_base_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    write_phantom(data, pairs=8, seed=0, size=64)
    stems = (data / "train.txt").read_text().split()
    for stem, value in zip(stems, (0, 0, 255), strict=False):
        Image.new("L", (64, 64), value).save(data / "masks" / f"{stem}.png")
    with caplog.at_level(logging.WARNING, logger="siamese_diffusion"):
        kept = plan_of(data, small_base_folder).folder
    assert len(kept) == len(stems)
    assert f"3 masks are degenerate (2 empty, 1 full), e.g. '{stems[0]}'" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="siamese_diffusion"):
        dropped = plan_of(data, small_base_folder, "data.degenerate=drop").folder
    assert set(dropped.stems) == set(stems) - set(stems[:3])
    assert "dropped 3 pairs with degenerate masks (2 empty, 1 full)" in caplog.text


def test_a_set_of_empty_masks_alone_cannot_be_dropped(
    small_base_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_phantom(data, pairs=4, seed=0, size=64)
    for mask in (data / "masks").iterdir():
        Image.new("L", (64, 64)).save(mask)
    with pytest.raises(DataError, match=r"no pair of '.*data' is left after dropping"):
        plan_of(data, small_base_folder, "data.degenerate=drop")
    # and empty validation masks stop no training
    assert plan_of(data, small_base_folder).preview is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.precision=fp16"], r"precision=fp16 needs a GPU"),
        (["train.optimizer=adamw8bit"], r"adamw8bit needs bitsandbytes"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_the_folder_is_taken(
    phantoms: Path,
    small_base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=message):
        fit(
            phantoms,
            tmp_path / "out",
            base=small_base_folder,
            overrides=[*TINY, *overrides],
            device="cpu",
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_device_is_refused(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"unknown device 'gpu'"):
        fit(phantoms, tmp_path / "out", base=small_base_folder, overrides=TINY, device="gpu")


def test_a_disk_too_small_is_refused_before_anything_is_written(
    phantoms: Path, small_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(OutputError, match=r"out' needs \d+ MiB but its disk has 1 MiB"):
        fit(phantoms, tmp_path / "out", base=small_base_folder, overrides=TINY)
    assert not (tmp_path / "out").exists()


def test_the_disk_asked_for_is_what_a_run_takes(whole: Path, phantoms: Path) -> None:
    from siamese_diffusion.generators.fitting import _bytes_of_run

    base = load_run(whole).base
    asked, settings = resolve_settings(overrides=[*TINY, *RICH])
    plan = plan_fit(phantoms, str(base.path), settings=settings, asked=asked)
    taken = sum(
        path.stat().st_size
        for part in ("data", "checkpoints", "model")
        for path in (whole / part).rglob("*")
        if path.is_file()
    )
    checkpoint = sum(
        path.stat().st_size for path in RunPaths(whole).checkpoint(8).rglob("*") if path.is_file()
    )
    estimate = _bytes_of_run(plan, generator_class("siamese").build(settings, base))
    assert estimate == pytest.approx(taken + checkpoint, rel=0.1)


def test_a_read_only_disk_is_named(
    phantoms: Path, small_base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(Read-only file system\)"):
        fit(phantoms, tmp_path / "out", base=small_base_folder, overrides=TINY)


def test_an_output_inside_a_file_is_refused(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file' is a file"):
        fit(phantoms, tmp_path / "file", base=small_base_folder, overrides=TINY)


def test_an_absurd_learning_rate_is_stopped_with_the_term_and_saves_nothing_bad(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    options = [*TINY, "train.learning_rate=1e18", "train.checkpoint_every=1"]
    with pytest.raises(NumericsError, match=r"loss/mask.* became (nan|inf) at step \d") as caught:
        fit(phantoms, tmp_path / "out", base=small_base_folder, overrides=options, quiet=True)
    assert "lower train.learning_rate" in str(caught.value.hint)


def test_a_finished_run_says_what_it_is(whole: Path, phantoms: Path) -> None:
    paths = RunPaths(whole)
    info, settings = read_run(paths)
    assert (info.state, info.step, info.max_steps, info.size) == ("complete", 8, 8, 64)
    assert info.data["pairs"] == len((phantoms / "train.txt").read_text().split())
    assert info.model_sha256 == read_json(paths.model / "model.json")["sha256"]
    assert settings.train.ema_decay == 0.9
    assert flatten(read_yaml(paths.asked))["train.ema_decay"] == 0.9
    assert "train.seed" not in flatten(read_yaml(paths.asked))
    assert [e["step"] for e in events(whole, "validate")] == [3, 6, 8]
    assert paths.sample_grid(5).exists() and paths.sample_grid(8).exists()
    assert not list(whole.rglob(".*"))


def test_the_weights_of_a_run_are_its_averages(whole: Path) -> None:
    from siamese_diffusion.training.checkpoint import load_latest

    state, _ = load_latest(RunPaths(whole).checkpoints)
    assert state is not None and state.average is not None
    loaded = dict(load_run(whole).generator.objective.named_parameters())
    for name, average in state.average.items():
        assert torch.equal(loaded[f"network.{name}"].detach(), average)
    live = torch.cat([t.flatten() for t in state.weights.values()])
    assert not torch.equal(live, torch.cat([t.flatten() for t in state.average.values()]))


def test_online_augmentation_counts_after_k_tau_only(whole: Path) -> None:
    shares = [float(str(e["weight/augment"])) for e in events(whole, "train")]
    terms = [float(str(e["loss/augment"])) for e in events(whole, "train")]
    # k > 8 / 3, k from 0: the first three steps have none
    assert shares[:3] == [0, 0, 0] and max(shares[3:]) > 0
    assert [t > 0 for t in terms] == [s > 0 for s in shares]


def test_a_finished_run_repeated_changes_nothing(
    whole: Path, phantoms: Path, small_base_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with caplog.at_level(logging.INFO, logger="siamese_diffusion"):
        again(phantoms, small_base_folder, whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert "is already complete" in caplog.text


def test_its_config_repeats_a_run_to_the_same_bits(
    whole: Path, phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    config = RunPaths(whole).config
    fit(phantoms, tmp_path / "out", base=small_base_folder, config=config, quiet=True)
    assert model_of(tmp_path / "out") == model_of(whole)
    assert events(tmp_path / "out", "validate") == events(whole, "validate")


def test_a_run_killed_after_its_last_step_writes_the_same_weights(
    copy: RunPaths, whole: Path, phantoms: Path, small_base_folder: Path
) -> None:
    unfinish(copy)
    again(phantoms, small_base_folder, copy.root)
    assert model_of(copy.root) == model_of(whole)
    assert [e["step"] for e in events(copy.root, "train")] == list(range(1, 9))


def test_a_damaged_last_checkpoint_and_cache_end_in_the_same_bits(
    copy: RunPaths,
    whole: Path,
    phantoms: Path,
    small_base_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unfinish(copy)
    (copy.checkpoint(8) / "optimizer.pt").write_bytes(b"x")
    for cache in copy.cache.iterdir():
        cache.write_bytes(cache.read_bytes()[:100])
    again(phantoms, small_base_folder, copy.root)
    assert "step-00000008' is damaged" in capsys.readouterr().err
    assert model_of(copy.root) == model_of(whole)
    assert events(copy.root, "train") == events(whole, "train")
    assert events(copy.root, "validate") == events(whole, "validate")


def test_nothing_but_damaged_checkpoints_is_an_error(
    copy: RunPaths, phantoms: Path, small_base_folder: Path
) -> None:
    unfinish(copy)
    for path in copy.checkpoints.rglob("weights.safetensors"):
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no checkpoint of this run can be read"):
        again(phantoms, small_base_folder, copy.root)


def test_another_config_in_its_folder_is_refused(
    whole: Path, phantoms: Path, small_base_folder: Path
) -> None:
    with pytest.raises(OutputError, match=r"another run: train\.seed: 42 -> 1") as caught:
        again(phantoms, small_base_folder, whole, "train.seed=1")
    assert "another --out" in str(caught.value.hint)


def test_another_data_set_in_its_folder_is_refused(
    whole: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    write_phantom(tmp_path / "data", pairs=8, seed=5, size=64)
    with pytest.raises(OutputError, match=r"another run: data\.fingerprint: \w{12}… -> \w{12}…"):
        again(tmp_path / "data", small_base_folder, whole)


def test_weights_of_a_run_on_another_base_are_refused(whole: Path) -> None:
    with pytest.raises(WeightsError, match=r"base 'tiny' is not the one that run '.*whole'"):
        load_run(whole, base="tiny")


@pytest.mark.slow
def test_gradient_checkpointing_trains_the_same(
    whole: Path, phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    again(phantoms, small_base_folder, tmp_path / "out", "train.gradient_checkpointing=true")
    for left, right in zip(events(whole, "train"), events(tmp_path / "out", "train"), strict=True):
        assert left.pop("event") == right.pop("event")
        assert left == pytest.approx(right, rel=1e-5)
    one, two = (load_run(p).generator.modules["control"] for p in (whole, tmp_path / "out"))
    # Adam makes the rounding of gradients near zero as large as its rate
    assert_close(one.state_dict(), two.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_trains_on_the_cpu_close_to_float32(
    whole: Path, phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    again(phantoms, small_base_folder, tmp_path / "out", "train.precision=bf16")
    for left, right in zip(events(whole, "train"), events(tmp_path / "out", "train"), strict=True):
        assert float(str(left["loss/mask"])) == pytest.approx(
            float(str(right["loss/mask"])), rel=0.02
        )
    state = load_run(tmp_path / "out").generator.modules["control"].state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
