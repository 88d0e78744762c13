"""Checkpoints of the authors' release become runs, and runs become such checkpoints."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from siamese_diffusion.core.errors import ConfigError, OutputError, WeightsError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators.run_folder import load_run, read_run
from siamese_diffusion.interchange.export import export_run
from siamese_diffusion.interchange.release import import_release, read_release
from siamese_diffusion.models.base import load_base
from siamese_diffusion.models.ldm_names import CONTROL, TEXT, UNET, VAE
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

PROMPT = "A photo of a polyp."
ENCODER_BIAS = f"{UNET}input_blocks.0.0.bias"


@pytest.fixture(scope="session")
def merged(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a merged checkpoint of the release."""
    return export_run(trained_run, tmp_path_factory.mktemp("release") / "model.pth", to="release")


def edited(merged: Path, out: Path, edit: Callable[[dict[str, Tensor]], None]) -> Path:
    state = read_release(merged)
    edit(state)
    torch.save(state, out)
    return out


def drop(*parts: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(state: dict[str, Tensor]) -> None:
        for name in [n for n in state if n.startswith(parts)]:
            del state[name]

    return edit


def drawn(run: Path) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 16:44] = 255
    pipeline = SiameseDiffusionPipeline.from_pretrained(run, device="cpu")
    return np.asarray(pipeline([mask], seeds=[3], steps=2)[0])


def test_export_and_import_return_the_same_images(
    trained_run: Path, merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    done = import_release(merged, tmp_path / "run", base=small_base_folder, prompt=PROMPT)
    assert done.carried == ()
    assert set(done.keys.used) == {p.rstrip(".") for p in (CONTROL, UNET, VAE, TEXT)}
    assert sum(done.keys.used.values()) == len(read_release(merged))
    before, after = load_run(trained_run), load_run(tmp_path / "run")
    for name, module in before.generator.modules.items():
        state = after.generator.modules[name].state_dict()
        for key, tensor in module.state_dict().items():
            assert torch.equal(state[key], tensor), key
    np.testing.assert_array_equal(drawn(tmp_path / "run"), drawn(trained_run))


def test_the_run_says_where_it_came_from(
    merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    import_release(merged, tmp_path / "run", base=small_base_folder, prompt=PROMPT)
    info, settings = read_run(RunPaths(tmp_path / "run"))
    assert (info.state, info.step, info.prompt) == ("imported", 0, PROMPT)
    assert info.data["imported"] == "model.pth"
    assert (info.size, settings.data.size) == (64, 64)  # the base's own, below the paper's 384
    assert settings.model_dump()["objective"]["augment_below_timestep"] == 201


def test_a_file_of_trained_parts_alone_takes_the_rest_from_the_base(
    trained_run: Path, merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    file = edited(merged, tmp_path / "part.pth", drop(VAE, TEXT))
    done = import_release(file, tmp_path / "run", base=small_base_folder, prompt=PROMPT)
    assert set(done.keys.used) == {CONTROL.rstrip("."), UNET.rstrip(".")}
    np.testing.assert_array_equal(drawn(tmp_path / "run"), drawn(trained_run))


def test_frozen_parts_that_differ_from_the_base_travel_with_the_run(
    merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        for name in (ENCODER_BIAS, f"{VAE}decoder.conv_in.bias", f"{TEXT}text_model."):
            for full in [n for n in state if n.startswith(name)]:
                state[full] = state[full] + 0.5

    file = edited(merged, tmp_path / "other.pth", edit)
    done = import_release(file, tmp_path / "run", base=small_base_folder, prompt=PROMPT)
    assert done.carried == ("U-Net encoder", "autoencoder", "text encoder")
    loaded = load_run(tmp_path / "run")
    bias = load_base(small_base_folder).unet.conv_in.bias
    torch.testing.assert_close(loaded.latent_base.unet.conv_in.bias, bias + 0.5)
    assert drawn(tmp_path / "run").shape == (64, 64, 3)


@pytest.mark.parametrize("wrapper", ["module.", "_forward_module."])
@pytest.mark.parametrize("nested", [True, False], ids=["state_dict", "flat"])
def test_wrapped_names_and_half_precision_are_read(
    merged: Path, tmp_path: Path, wrapper: str, nested: bool
) -> None:
    state = {f"{wrapper}{name}": tensor.half() for name, tensor in read_release(merged).items()}
    torch.save({"state_dict": state} if nested else state, tmp_path / "wrapped.pth")
    read = read_release(tmp_path / "wrapped.pth")
    assert read.keys() == read_release(merged).keys()
    assert all(tensor.dtype == torch.float32 for tensor in read.values())


def test_safetensors_are_read_too(merged: Path, tmp_path: Path) -> None:
    save_file(read_release(merged), tmp_path / "model.safetensors")
    assert read_release(tmp_path / "model.safetensors").keys() == read_release(merged).keys()


def test_needless_tensors_are_counted_and_unknown_ones_refused(
    merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    def schedule(state: dict[str, Tensor]) -> None:
        state |= {"betas": torch.zeros(3), "model_ema.decay": torch.zeros(())}

    file = edited(merged, tmp_path / "a.pth", schedule)
    done = import_release(file, tmp_path / "a", base=small_base_folder)
    assert done.keys.ignored == ("betas", "model_ema.decay")
    assert "not needed: 2 tensors (betas, model_ema.decay)" in done.keys.text()

    def strange(state: dict[str, Tensor]) -> None:
        state[f"{CONTROL}third_arm.weight"] = torch.zeros(3)

    file = edited(merged, tmp_path / "b.pth", strange)
    with pytest.raises(WeightsError, match=r"1 tensors .*control_model\.third_arm\.weight"):
        import_release(file, tmp_path / "b", base=small_base_folder)
    assert not (tmp_path / "b").exists()


def test_missing_and_misshapen_tensors_are_all_named(
    merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    def edit(state: dict[str, Tensor]) -> None:
        del state[f"{CONTROL}zero_convs.0.0.bias"]
        state[f"{CONTROL}zero_convs.1.0.bias"] = torch.zeros(7)

    file = edited(merged, tmp_path / "bad.pth", edit)
    with pytest.raises(
        WeightsError,
        match=r"missing control_model\.zero_convs\.0\.0\.bias; control_model\.zero_convs\.1\.0"
        r"\.bias is \(7,\), the base needs \(16,\)",
    ):
        import_release(file, tmp_path / "run", base=small_base_folder)
    assert not (tmp_path / "run").exists()


def test_a_base_of_another_architecture_is_refused_with_the_difference(
    merged: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        WeightsError, match=r"widths: \(64, 128, 144\) against \(16, 32\).*base against checkpoint"
    ):
        import_release(merged, tmp_path / "run", base="tiny")


def test_a_file_that_is_no_release_is_refused(tmp_path: Path, small_base_folder: Path) -> None:
    torch.save({"net.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"no tensors called 'control_model\.\*' \(found: net\)"):
        import_release(tmp_path / "other.pth", tmp_path / "run", base=small_base_folder)


def test_a_pickle_with_code_is_refused(tmp_path: Path, small_base_folder: Path) -> None:
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"state_dict": print}))
    with pytest.raises(WeightsError, match=r"code\.pth"):
        import_release(tmp_path / "code.pth", tmp_path / "run", base=small_base_folder)


def test_an_occupied_folder_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"run' is not an empty folder"):
        import_release(tmp_path / "absent.pth", tmp_path / "run", base="tiny")


def test_an_impossible_size_is_refused_with_the_next_one(
    merged: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="size 60 is not a multiple of 8; use 64"):
        import_release(merged, tmp_path / "run", base=small_base_folder, size=60)
    assert not (tmp_path / "run").exists()
