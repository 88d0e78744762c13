"""`pretrain`: a base from images alone, killed, repeated, refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

from generators.tiny import run, start
from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.config import build, to_yaml
from siamese_diffusion.core.errors import (
    ConfigError,
    DataError,
    OutputError,
    SiamDiffError,
    WeightsError,
)
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.data.phantom import write_phantom
from siamese_diffusion.generators import pretraining
from siamese_diffusion.generators.pretraining import pretrain
from siamese_diffusion.generators.pretraining_tasks import AutoencoderObjective
from siamese_diffusion.generators.settings import PretrainSettings
from siamese_diffusion.models.base import load_base
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_autoencoder

TRAIN = {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "log_every": 1, "warmup_steps": 1}
PLAIN = {**TRAIN, "precision": "fp32", "tensorboard": False, "validate_every": 2}
ARCHITECTURE = {
    "autoencoder_widths": (16, 16, 16, 16),
    "unet_widths": (16, 32),
    "text_width": 32,
    "text_layers": 1,
}


class Begun(Exception):
    """Raised where a test has seen enough."""


def settings_of(**changes: object) -> PretrainSettings:
    return build(
        PretrainSettings,
        {
            "size": 64,
            "hold_out": 0.1,
            "save_dtype": "fp32",
            "architecture": ARCHITECTURE,
            "autoencoder": PLAIN,
            "denoiser": PLAIN,
            **changes,
        },
    )


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two DDIM steps instead of fifty, but for the base that all tests look at."""
    from siamese_diffusion.generators import model_card

    monkeypatch.setattr(model_card, "_GRID_STEPS", 2)


@pytest.fixture(scope="module")
def whole(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished base; do not write into it."""
    return pretrain(phantoms, tmp_path_factory.mktemp("base") / "whole", settings_of(), quiet=True)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "base")


def weights_of(base: Path) -> dict[str, bytes]:
    """What makes up a base, without the card, which has dates."""
    parts = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
    files = [path for part in parts for path in sorted((base / part).rglob("*"))]
    files += [base / "quality.json", base / "model_index.json"]
    return {path.relative_to(base).as_posix(): path.read_bytes() for path in files}


def test_what_comes_out_is_a_base(whole: Path) -> None:
    base = load_base(whole)
    assert (base.kind, base.size, base.first_width) == ("folder", 64, 16)
    assert sorted(path.name for path in whole.iterdir() if path.is_file()) == [
        "README.md",
        "model_index.json",
        "quality.json",
        "samples.png",
    ]
    assert not list(whole.rglob(".*"))


def test_the_latents_of_a_base_have_unit_variance(whole: Path, phantoms: Path) -> None:
    from siamese_diffusion.data.pairs import load_arrays
    from siamese_diffusion.generators.pretraining_tasks import to_model
    from siamese_diffusion.models.latents import encode_moments

    images, _ = load_arrays(PairFolder.open(phantoms, need="images"), 64)
    assert images is not None
    mean, std = encode_moments(load_base(whole).vae, to_model(images))
    # two images are held out, and their mirror images count too
    assert float(mean.var() + std.square().mean()) == pytest.approx(1, rel=0.05)


def test_the_card_says_what_it_is_made_of_and_how_good_it_is(whole: Path) -> None:
    card = (whole / "README.md").read_text()
    quality = json.loads((whole / "quality.json").read_text())
    assert (quality["held_out_images"], quality["training_images"]) == (2, 18)
    assert f"PSNR {quality['psnr_db']} dB, mean of 2 held-out images" in card
    assert "siamdiff data phantom phantoms --pairs 20 --seed 0 --size 64" in card
    assert "18 images, masks not used" in card
    assert "| autoencoder | trained from scratch |" in card
    assert "random and frozen" in card and "no medical device" in card
    for name, module in (("vae", load_base(whole).vae), ("unet", load_base(whole).unet)):
        count = sum(p.numel() for p in module.parameters())
        assert f"{name} {count / 1e6:.2f} M" in card
    assert to_yaml(settings_of()).strip() in card
    assert "18 samples, DDIM 50 steps, no guidance" in card
    with Image.open(whole / "samples.png") as grid:
        assert grid.size == (6 * 66 + 2, 3 * 66 + 2)


def test_both_trainings_left_their_logs(whole: Path) -> None:
    for stage in ("autoencoder", "denoiser"):
        log = list(read_jsonl(whole / "stages" / stage / "log.jsonl"))
        assert [r["step"] for r in log if r["event"] == "train"] == [1, 2, 3, 4]
    psnr = [r for r in read_jsonl(whole / "stages" / "autoencoder" / "log.jsonl") if "psnr" in r]
    assert [r["step"] for r in psnr] == [2, 4]


def test_grids_are_drawn_when_asked_for(phantoms: Path, tmp_path: Path) -> None:
    asked = {**PLAIN, "steps": 2, "sample_every": 1}
    pretrain(
        phantoms, tmp_path / "base", settings_of(autoencoder=asked, denoiser=asked), quiet=True
    )
    for stage, rows in (("autoencoder", 2), ("denoiser", 3)):
        folder = tmp_path / "base" / "stages" / stage
        grids = [r["file"] for r in read_jsonl(folder / "log.jsonl") if r["event"] == "sample"]
        assert grids == ["samples/step-00000001.png", "samples/step-00000002.png"]
        pictures = []
        for grid in grids:
            with Image.open(folder / str(grid)) as picture:
                assert picture.height == rows * 66 + 2
                pictures.append(picture.tobytes())
        assert pictures[0] != pictures[1]


def test_a_finished_pretraining_repeated_changes_nothing(whole: Path, phantoms: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    pretrain(phantoms, whole, settings_of(), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_pretraining_killed_at_random_moments_ends_with_the_same_bits(
    whole: Path, phantoms: Path, tmp_path: Path
) -> None:
    out, says, config = tmp_path / "out", tmp_path / "says", tmp_path / "base.yaml"
    config.write_text(to_yaml(settings_of()))
    line = ["pretrain", "--data", str(phantoms), "--out", str(out), "--config", str(config)]
    line += ["--device", "cpu"]
    moments = random.Random(0)
    for stage in ("autoencoder", "denoiser"):
        process = start(line, says)
        deadline = time.monotonic() + 120
        while not list((out / "stages" / stage).glob("checkpoints/step*")):
            assert process.exitcode is None and time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert run(line, says) == 0, says.read_text()
    assert weights_of(out) == weights_of(whole)


@pytest.mark.parametrize("moved", [4, pytest.param(0, marks=pytest.mark.slow)])
def test_a_kill_while_the_base_is_moved_into_place_leaves_no_half_base(
    copy: Path, whole: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    for item in copy.iterdir():
        if item.name != "stages":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    moves: list[str] = []
    move = shutil.move

    def killed(source: str, target: Path) -> None:
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(target.name)
        move(source, target)

    monkeypatch.setattr(shutil, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(phantoms, copy, settings_of(), quiet=True)
    monkeypatch.setattr(shutil, "move", move)
    assert "quality.json" not in moves
    pretrain(phantoms, copy, settings_of(), quiet=True)
    assert weights_of(copy) == weights_of(whole)


def test_torn_latents_are_computed_again(copy: Path, whole: Path, phantoms: Path) -> None:
    (copy / "quality.json").unlink()
    latents = copy / "stages" / "latents.safetensors"
    latents.write_bytes(latents.read_bytes()[:200])
    pretrain(phantoms, copy, settings_of(), quiet=True)
    assert weights_of(copy) == weights_of(whole)


def test_a_given_autoencoder_is_kept_as_it_is(whole: Path, phantoms: Path, tmp_path: Path) -> None:
    given = whole / "vae"
    out = pretrain(phantoms, tmp_path / "out", settings_of(), autoencoder=given, quiet=True)
    own, used = (load_base(folder).vae.state_dict() for folder in (whole, out))
    assert all(torch.equal(own[name], used[name]) for name in own)
    assert not (out / "stages" / "autoencoder").exists()
    assert "taken from a file, not trained here" in (out / "README.md").read_text()
    # the same weights from elsewhere are the same; others are not
    elsewhere = shutil.copytree(given, tmp_path / "elsewhere")
    pretrain(phantoms, out, settings_of(), autoencoder=elsewhere, quiet=True)
    with pytest.raises(OutputError, match=r"data, autoencoder or start: another"):
        pretrain(phantoms, out, settings_of(), quiet=True)


@pytest.mark.parametrize(
    ("channels", "message"),
    [(8, r"has 8 latent channels, its U-Net takes 4"), (None, r"none' does not exist")],
)
def test_an_autoencoder_that_does_not_fit_is_refused_before_anything_is_written(
    phantoms: Path, tmp_path: Path, channels: int | None, message: str
) -> None:
    given = tmp_path / "none"
    if channels is not None:
        widths = (16, 16, 16, 16)
        settings = SmallBaseSettings(latent_channels=channels, autoencoder_widths=widths)
        build_autoencoder(settings, size=64).save_pretrained(given)
    with pytest.raises(WeightsError, match=message):
        pretrain(phantoms, tmp_path / "out", settings_of(), autoencoder=given, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_base_can_be_continued(whole: Path, phantoms: Path, tmp_path: Path) -> None:
    short = settings_of(denoiser={**PLAIN, "steps": 1, "learning_rate": 1e-12})
    base = pretrain(phantoms, tmp_path / "base", short, start=whole, quiet=True)
    first, second = load_base(whole), load_base(base)
    for name in ("vae", "text_encoder"):
        state = getattr(second, name).state_dict()
        for key, tensor in getattr(first, name).state_dict().items():
            assert torch.equal(state[key], tensor), key
    # a step of nearly no length leaves the denoiser where it began: not at random weights
    for old, new in zip(first.unet.parameters(), second.unet.parameters(), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-9)
    card = (base / "README.md").read_text()
    assert f"| continues | `{whole}`, SHA-256 {first.sha256} |" in card
    assert "## The base that it continues" in card
    assert "### A small latent-diffusion base for 64 px images" in card
    assert "nothing: the denoiser starts from random weights" in card  # of the first one
    with pytest.raises(OutputError, match="data, autoencoder or start: another"):
        pretrain(phantoms, base, short, quiet=True)


def test_a_start_of_another_architecture_is_refused_before_anything_is_written(
    phantoms: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"the unet of start 'tiny' is of another architecture"):
        pretrain(phantoms, tmp_path / "base", settings_of(), start="tiny", quiet=True)
    with pytest.raises(ConfigError, match=r"both an autoencoder \('a'\) and a start \('tiny'\)"):
        pretrain(phantoms, tmp_path / "base", settings_of(), autoencoder="a", start="tiny")
    assert not (tmp_path / "base").exists()


@pytest.mark.slow
def test_gradient_checkpointing_trains_the_same(
    whole: Path, phantoms: Path, tmp_path: Path
) -> None:
    stage = {**PLAIN, "gradient_checkpointing": True}
    settings = settings_of(autoencoder=stage, denoiser=stage)
    out = pretrain(phantoms, tmp_path / "out", settings, quiet=True)
    for stage_name in ("autoencoder", "denoiser"):
        losses = [
            [
                float(str(r["loss/total"]))
                for r in read_jsonl(folder / "stages" / stage_name / "log.jsonl")
                if r["event"] == "train"
            ]
            for folder in (whole, out)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_other_settings_or_data_are_refused_with_old_and_new(
    whole: Path, phantoms: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"another pretraining: flips: True -> False") as caught:
        pretrain(phantoms, whole, settings_of(flips=False), quiet=True)
    assert "another --out" in str(caught.value.hint)
    write_phantom(tmp_path / "data", pairs=6, seed=3, size=64)
    with pytest.raises(OutputError, match=r"data, autoencoder or start: another"):
        pretrain(tmp_path / "data", whole, settings_of(), quiet=True)


def test_folders_of_other_things_are_refused(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    cases: list[tuple[Path, str]] = [
        (small_base_folder, r"small' is not empty"),
        (tmp_path / "file", r"file' is a file"),
        (tmp_path / "base", r"base' already holds a base"),
    ]
    (tmp_path / "file").touch()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "quality.json").write_text("{}")
    for out, message in cases:
        with pytest.raises(OutputError, match=message):
            pretrain(phantoms, out, settings_of(), quiet=True)


def test_a_folder_whose_beginning_was_killed_is_begun_again(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "stages").mkdir(parents=True)
    (tmp_path / "out" / "stages" / ".pretrain.yaml.0123abcd.tmp").touch()

    def stop(*_: object, **__: object) -> None:
        raise Begun

    monkeypatch.setattr(pretraining, "load_arrays", stop)
    with pytest.raises(Begun):
        pretrain(phantoms, tmp_path / "out", settings_of(), quiet=True)
    assert (tmp_path / "out" / "stages" / "pretrain.yaml").exists()


def test_too_few_images_are_counted(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", pairs=3, seed=0, size=64)
    with pytest.raises(DataError, match=r"data' has 3 images; a base needs at least 4"):
        pretrain(tmp_path / "data", tmp_path / "out", settings_of(), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100}, r"'size': must be a multiple of 32; the next is 128 \(given: 100\)"),
        ({"hold_out": 0.6}, r"'hold_out'.*given: 0\.6"),
        ({"architecture": {"unet_widths": (16, 30)}}, r"multiples of 16, got 30"),
        ({"denoisr": {}}, r"unknown setting 'denoisr'; did you mean 'denoiser'"),
    ],
)
def test_impossible_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(**changes)


@pytest.mark.parametrize(
    ("asked", "innermost"), [(None, True), (True, True), (False, False)], ids=str
)
def test_the_autoencoder_is_laid_out_as_its_settings_say(
    asked: bool | None,
    innermost: bool,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []

    def look(self: AutoencoderObjective, step: int, batch: Mapping[str, torch.Tensor]) -> None:
        seen.extend((self.vae.get_parameter("encoder.conv_in.weight"), batch["image"]))
        raise Begun

    monkeypatch.setattr(AutoencoderObjective, "forward", look)
    settings = settings_of(autoencoder={**PLAIN, "channels_last": asked})
    with pytest.raises(Begun):
        pretrain(phantoms, tmp_path / "out", settings, device="cpu", quiet=True)
    laid_out = [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen]
    assert laid_out == [innermost] * 2


def test_what_this_machine_cannot_do_is_refused_at_once(phantoms: Path, tmp_path: Path) -> None:
    half = settings_of(denoiser={**PLAIN, "precision": "fp16"})
    with pytest.raises(SiamDiffError, match=r"fp16 needs a GPU"):
        pretrain(phantoms, tmp_path / "out", half, device="cpu", quiet=True)
    assert not (tmp_path / "out").exists()
