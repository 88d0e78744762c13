"""Loading bases, and the message for each kind that cannot be used."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.base import COMPONENTS, load_autoencoder, load_base
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_autoencoder

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


class Payload:
    """Creates a folder when unpickled by a careless reader."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._trace),)


@pytest.fixture
def folder(small_base_folder: Path, tmp_path: Path) -> Path:
    """A base folder of the test's own."""
    copy = tmp_path / "base"
    shutil.copytree(small_base_folder, copy)
    return copy


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_is_loaded_frozen_in_float32_and_evaluation_mode(small_base_folder: Path) -> None:
    base = load_base(small_base_folder)
    assert (base.kind, base.reference) == ("folder", str(small_base_folder))
    for module in (base.vae, base.unet, base.text_encoder):
        assert not module.training
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in module.parameters())


def test_two_loads_have_one_identity(small_base_folder: Path) -> None:
    assert load_base(small_base_folder).sha256 == load_base(small_base_folder).sha256


def test_the_identity_is_kept_when_the_decoder_changes_later(small_base_folder: Path) -> None:
    base = load_base(small_base_folder)
    before = base.sha256
    with torch.no_grad():
        base.unet.conv_out.weight += 1
    assert base.sha256 == before


def test_a_half_precision_folder_is_half_the_size_and_loads_in_float32(
    small_base_folder: Path, tmp_path: Path
) -> None:
    base = load_base(small_base_folder)
    half = tmp_path / "half"
    half.mkdir()
    base.save(half, dtype=torch.float16)
    full = (small_base_folder / "unet" / WEIGHTS["unet"]).stat().st_size
    assert (half / "unet" / WEIGHTS["unet"]).stat().st_size < 0.6 * full
    assert {p.dtype for p in load_base(half).unet.parameters()} == {torch.float32}


def test_a_base_that_was_loaded_and_saved_names_no_folder_of_this_machine(
    small_base_folder: Path, tmp_path: Path
) -> None:
    load_base(small_base_folder).save(tmp_path)
    for path in tmp_path.rglob("*.json"):
        assert str(small_base_folder) not in path.read_text(encoding="utf-8"), path
    assert load_base(tmp_path).sha256 == load_base(small_base_folder).sha256


def test_saving_in_half_precision_leaves_the_base_itself_alone(
    small_base_folder: Path, tmp_path: Path
) -> None:
    base = load_base(small_base_folder)
    before = base.unet.conv_in.weight.clone()
    base.save(tmp_path, dtype=torch.float16)
    assert torch.equal(base.unet.conv_in.weight, before)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_missing_component_is_named(folder: Path, component: str) -> None:
    shutil.rmtree(folder / component)
    message = re.escape(f"base folder '{folder}' lacks {component}")
    with pytest.raises(WeightsError, match=message) as caught:
        load_base(folder)
    assert "vae, unet, text_encoder, tokenizer, scheduler" in str(caught.value.hint)


def test_all_missing_components_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="lacks vae, unet, text_encoder, tokenizer, scheduler"):
        load_base(tmp_path)


@pytest.mark.parametrize(
    ("component", "file"),
    [
        ("unet", "config.json"),
        ("unet", WEIGHTS["unet"]),
        ("vae", "config.json"),
        ("vae", WEIGHTS["vae"]),
        ("text_encoder", WEIGHTS["text_encoder"]),
        ("tokenizer", "tokenizer.json"),
        ("scheduler", "scheduler_config.json"),
    ],
)
def test_a_missing_or_damaged_file_names_the_component(
    folder: Path, component: str, file: str
) -> None:
    path = folder / component / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=re.escape(str(folder))):
        load_base(folder)
    path.unlink()
    with pytest.raises(WeightsError, match=re.escape(str(folder))):
        load_base(folder)


@pytest.mark.parametrize("component", list(WEIGHTS))
def test_weights_of_another_architecture_are_refused(folder: Path, component: str) -> None:
    save_file({"foreign.weight": torch.zeros(2)}, folder / component / WEIGHTS[component])
    with pytest.raises(WeightsError, match=component):
        load_base(folder)


def test_a_component_that_lacks_one_tensor_is_refused(folder: Path) -> None:
    from siamese_diffusion.core.weights import read_state_dict

    path = folder / "unet" / WEIGHTS["unet"]
    state = read_state_dict(path)
    del state["conv_out.bias"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"conv_out\.bias"):
        load_base(folder)


@pytest.mark.parametrize("component", list(WEIGHTS))
def test_a_component_that_is_a_pickle_with_code_is_refused_and_not_run(
    folder: Path, tmp_path: Path, component: str
) -> None:
    safe, trace = folder / component / WEIGHTS[component], tmp_path / "ran"
    safe.unlink()
    name = "pytorch_model.bin" if component == "text_encoder" else f"{safe.stem}.bin"
    torch.save({"a": Payload(trace)}, folder / component / name)
    with pytest.raises(WeightsError, match=re.escape(str(folder))):
        load_base(folder)
    assert not trace.exists()


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(WeightsError, match=r"base 'tinny' is .* did you mean 'tiny'\?") as caught:
        load_base("tinny")
    assert "hub id" in str(caught.value.hint)


@pytest.mark.parametrize("reference", ["./nowhere/base", "/nowhere", "~/nowhere/base", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(reference: str) -> None:
    message = re.escape(f"base '{reference}' is neither embedded nor a folder or file")
    with pytest.raises(WeightsError, match=message):
        load_base(reference)


def test_a_hub_id_that_is_not_cached_says_that_the_hub_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="base 'nobody/nothing' is no folder here") as caught:
        load_base("nobody/nothing")
    assert "HF_HUB_OFFLINE is set" in str(caught.value.hint)


def test_a_single_file_that_is_a_pickle_with_code_is_refused_by_name_and_not_run(
    tmp_path: Path,
) -> None:
    path, trace = tmp_path / "model.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {"a": Payload(trace)}}, path)
    with pytest.raises(WeightsError, match=re.escape(f"'{path}' is a pickle")):
        load_base(path)
    assert not trace.exists()


def test_a_single_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0" * 40)
    with pytest.raises(WeightsError, match=re.escape(f"weights file '{path}' cannot be read")):
        load_base(path)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_a_base_that_does_not_predict_epsilon_is_refused(folder: Path, kind: str) -> None:
    change(folder / "scheduler" / "scheduler_config.json", prediction_type=kind)
    with pytest.raises(WeightsError, match=rf"predicts '{kind}'; the method needs .* epsilon"):
        load_base(folder)


def test_an_autoencoder_with_other_latent_channels_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    settings = SmallBaseSettings(autoencoder_widths=(16, 16, 16, 16), latent_channels=8)
    build_autoencoder(settings, size=64).save_pretrained(folder / "vae")
    with pytest.raises(WeightsError, match="has 8 latent channels, its U-Net takes 4"):
        load_base(folder)


def test_an_autoencoder_of_another_factor_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    AutoencoderKL(
        block_out_channels=(16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
    ).save_pretrained(folder / "vae")
    with pytest.raises(WeightsError, match="has factor 4, but 8 is needed"):
        load_base(folder)


def test_a_text_encoder_of_another_width_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from siamese_diffusion.models.small import build_small_base

    settings = SmallBaseSettings(
        autoencoder_widths=(16, 16, 16, 16), unet_widths=(16,), text_width=64, text_layers=1
    )
    other = tmp_path_factory.mktemp("other")
    build_small_base(settings, size=64, seed=0).save(other)
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(other / "text_encoder", folder / "text_encoder")
    with pytest.raises(WeightsError, match=r"takes text features of width 32, .* gives 64"):
        load_base(folder)


def test_the_schedule_keeps_the_bases_betas_and_takes_the_papers_steps(folder: Path) -> None:
    change(
        folder / "scheduler" / "scheduler_config.json",
        beta_end=0.02,
        clip_sample=True,
        steps_offset=0,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    config = load_base(folder).scheduler.config
    assert config["beta_end"] == 0.02
    assert (config["clip_sample"], config["set_alpha_to_one"]) == (False, False)
    assert (config["steps_offset"], config["timestep_spacing"]) == (1, "leading")


def test_another_autoencoder_can_be_given(folder: Path, tmp_path: Path) -> None:
    AutoencoderTiny().save_pretrained(tmp_path / "taesd")
    base = load_base(folder, autoencoder=tmp_path / "taesd")
    assert isinstance(base.vae, AutoencoderTiny)
    assert not any(p.requires_grad for p in base.vae.parameters())


def test_the_weights_file_of_a_tiny_autoencoder_is_enough(tmp_path: Path) -> None:
    save_file(AutoencoderTiny().state_dict(), tmp_path / "taesd.safetensors")
    assert isinstance(load_autoencoder(tmp_path / "taesd.safetensors"), AutoencoderTiny)


def test_a_file_that_is_no_autoencoder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    message = re.escape(f"autoencoder '{path}' cannot be loaded")
    with pytest.raises(WeightsError, match=message) as caught:
        load_autoencoder(path)
    assert "TAESD" in str(caught.value.hint)
