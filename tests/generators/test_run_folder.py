"""Run folders: begun, recognised, refused; weights that are what was saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import ConfigError, OutputError, WeightsError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.data.settings import DataSettings
from siamese_diffusion.generators.run_folder import (
    COMPLETE,
    RunInfo,
    begin_run,
    generator_class,
    load_model,
    load_run,
    load_strictly,
    read_run,
    recognise_run,
    save_model,
    write_run,
)
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.models.base import load_base
from siamese_diffusion.objectives.settings import SiameseSettings

INFO = RunInfo(
    generator="siamese",
    state="training",
    base={"reference": "tiny", "kind": "embedded", "sha256": "b" * 64},
    model_sha256=None,
    step=0,
    max_steps=3000,
    size=384,
    prompt="A photo of a polyp.",
    data={"root": "/data", "split": "train", "pairs": 20, "fingerprint": "f" * 64},
)
SETTINGS = SiameseFitSettings()


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def begin(paths: RunPaths) -> None:
    begin_run(paths, INFO, SETTINGS, {"data": {"size": 384}})


def test_a_run_is_read_back_as_it_was_begun(paths: RunPaths) -> None:
    assert recognise_run(paths, INFO, SETTINGS) is None
    begin(paths)
    assert read_run(paths) == (INFO, SETTINGS)
    assert recognise_run(paths, INFO, SETTINGS) == INFO
    assert paths.asked.read_text() == "data:\n  size: 384\n"
    assert "torch" in json.loads(paths.environment.read_text())["packages"]


def test_looking_at_a_folder_writes_nothing(paths: RunPaths) -> None:
    recognise_run(paths, INFO, SETTINGS)
    assert not paths.root.exists()


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_run_whose_beginning_was_killed_is_begun_again(paths: RunPaths, written: int) -> None:
    begin(paths)
    for path in [paths.environment, paths.asked, paths.config, paths.run][written:]:
        path.unlink()
    (paths.root / ".run.json.0123abcd.tmp").touch()
    assert recognise_run(paths, INFO, SETTINGS) is None
    begin(paths)
    assert read_run(paths) == (INFO, SETTINGS)
    assert not list(paths.root.glob(".*"))


@pytest.mark.parametrize("name", ["config.yaml", "holiday.jpg", "model"])
def test_a_folder_of_other_things_is_refused_with_one_of_them(paths: RunPaths, name: str) -> None:
    paths.root.mkdir()
    (paths.root / name).touch()
    with pytest.raises(OutputError, match=rf"run' is not empty .* \(it has '{name}'\)") as caught:
        recognise_run(paths, INFO, SETTINGS)
    assert caught.value.hint == "choose another --out"


def test_a_file_in_the_place_of_the_folder_is_refused(paths: RunPaths) -> None:
    paths.root.touch()
    with pytest.raises(OutputError, match=r"run' is a file"):
        recognise_run(paths, INFO, SETTINGS)


def test_other_settings_data_or_base_are_refused_with_old_and_new(paths: RunPaths) -> None:
    begin(paths)
    other = SiameseFitSettings(
        data=DataSettings(size=256), objective=SiameseSettings(consistency_weight=0.5)
    )
    info = replace(
        INFO,
        base={**INFO.base, "sha256": "c" * 64},
        data={**INFO.data, "split": None, "fingerprint": "e" * 64},
    )
    with pytest.raises(OutputError, match=r"run' belongs to another run: ") as caught:
        recognise_run(paths, info, other)
    assert caught.value.message.split("another run: ")[1].split("; ") == [
        "data.size: 384 -> 256",
        "objective.consistency_weight: 1.0 -> 0.5",
        "data.fingerprint: ffffffffffff… -> eeeeeeeeeeee…",
        "data.split: train -> None",
        "base.sha256: bbbbbbbbbbbb… -> cccccccccccc…",
    ]


def test_a_base_or_data_set_that_moved_is_the_same_run(paths: RunPaths) -> None:
    begin(paths)
    moved = replace(
        INFO, base={**INFO.base, "reference": "/new"}, data={**INFO.data, "root": "/new"}
    )
    assert recognise_run(paths, moved, SETTINGS) == INFO


def test_no_run_a_newer_format_and_a_damaged_record_are_named(paths: RunPaths) -> None:
    with pytest.raises(OutputError, match=r"run' is not a run folder"):
        read_run(paths)
    begin(paths)
    content = json.loads(paths.run.read_text())
    paths.run.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(OutputError, match=r"has format 99; this version reads 1"):
        read_run(paths)
    del content["prompt"]
    paths.run.write_text(json.dumps(content))
    with pytest.raises(OutputError, match=r"run\.json' is damaged: it lacks prompt"):
        read_run(paths)
    paths.run.write_text('{"format": 1')
    with pytest.raises(OutputError, match=r"run\.json' is missing or not readable JSON"):
        read_run(paths)


def test_a_config_with_unknown_keys_is_refused_on_reading(paths: RunPaths) -> None:
    begin(paths)
    paths.config.write_text(paths.config.read_text() + "extra: 1\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'extra'"):
        read_run(paths)


def test_an_unknown_generator_is_refused_with_the_nearest() -> None:
    assert generator_class("siamese").__name__ == "Siamese"
    with pytest.raises(ConfigError, match=r"unknown generator 'siamee'; did you mean 'siamese'"):
        generator_class("siamee")


def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"control": nn.Linear(3, 2), "decoder": nn.Linear(2, 2)}


def test_saved_networks_are_loaded_bit_for_bit_and_have_an_identity(paths: RunPaths) -> None:
    saved = modules()
    identity = save_model(paths, saved, base_sha256="b")
    record = json.loads((paths.model / "model.json").read_text())
    assert record["sha256"] == identity
    assert record["files"] == {
        name: file_sha256(paths.model / f"{name}.safetensors") for name in saved
    }
    assert save_model(RunPaths(paths.root / "again"), saved, base_sha256="b") == identity
    assert save_model(RunPaths(paths.root / "other"), saved, base_sha256="c") != identity
    loaded = {"control": nn.Linear(3, 2), "decoder": nn.Linear(2, 2)}
    load_model(paths, loaded)
    for name, module in saved.items():
        for key, value in module.state_dict().items():
            assert torch.equal(loaded[name].state_dict()[key], value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lost", r"weights '.*decoder\.safetensors' cannot be read"),
        ("cut", r"weights '.*decoder\.safetensors' cannot be read"),
        ("changed", r"weights '.*decoder\.safetensors' are not what the training saved"),
        ("record", r"model' has no readable model\.json"),
    ],
)
def test_weights_that_are_not_what_was_saved_are_refused(
    paths: RunPaths, fault: str, message: str
) -> None:
    save_model(paths, modules(), base_sha256="b")
    file = paths.model / "decoder.safetensors"
    if fault == "lost":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(file.read_bytes()[:40])
    elif fault == "changed":
        save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    else:
        (paths.model / "model.json").write_text("{}")
    with pytest.raises(WeightsError, match=message):
        load_model(paths, modules())


def test_weights_of_another_architecture_are_refused_by_tensor() -> None:
    with pytest.raises(
        WeightsError, match=r"'w' is of another architecture: weight is \(2, 3\), needs \(5, 3\)"
    ):
        load_strictly(nn.Linear(3, 5, bias=False), nn.Linear(3, 2, False).state_dict(), where="w")


def test_an_unfinished_run_cannot_be_loaded(paths: RunPaths) -> None:
    begin(paths)
    with pytest.raises(OutputError, match=r"not finished \(3000 steps asked\)") as caught:
        load_run(paths.root)
    assert "repeat its `siamdiff fit` command" in str(caught.value.hint)


def test_a_lost_or_wrong_base_is_named_with_the_way_out(
    paths: RunPaths, small_base_folder: Path
) -> None:
    begin(paths)
    gone: dict[str, str | None] = {"reference": "/gone/base", "kind": "folder", "sha256": "b" * 64}
    write_run(paths, replace(INFO, state=COMPLETE, base=gone))
    with pytest.raises(WeightsError, match=r"cannot be loaded: .*'/gone/base'") as caught:
        load_run(paths.root)
    assert "--base" in str(caught.value.hint)
    own = load_base(small_base_folder).sha256
    with pytest.raises(WeightsError, match=rf"not the one .* \({own[:12]}…, needs bbbbbbbbbbbb…\)"):
        load_run(paths.root, base=str(small_base_folder))
