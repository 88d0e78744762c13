"""Exported folders run in diffusers' own pipeline, without this package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.generators.fitting import fit
from siamese_diffusion.interchange.export import export_run
from siamese_diffusion.interchange.siamese_controlnet import SiameseControlNetModel
from siamese_diffusion.models.dense_hint import DenseHintInput
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

STEPS, SEED = 3, 5

# Run by another interpreter, in which this package cannot be imported.
FOREIGN = """
import sys
sys.modules["siamese_diffusion"] = None
import numpy as np, torch
torch.set_num_threads(1)
from diffusers import DiffusionPipeline
from PIL import Image
folder, mask, latents, out = sys.argv[1:]
pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
pipeline.set_progress_bar_config(disable=True)
image = pipeline(
    "A photo of a polyp.", image=Image.open(mask).convert("RGB"),
    num_inference_steps=3, guidance_scale=9.0, eta=0.0,
    latents=torch.from_numpy(np.load(latents)),
).images[0]
image.save(out)
"""


def mask_of(size: int = 64) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[20:40, 16:44] = 255
    return mask


@pytest.fixture(scope="session")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(trained_run, tmp_path_factory.mktemp("exported") / "model")


def test_diffusers_draws_our_image_without_our_package(
    trained_run: Path, exported: Path, tmp_path: Path
) -> None:
    ours = SiameseDiffusionPipeline.from_pretrained(trained_run, device="cpu")
    image = ours([mask_of()], seeds=[SEED], steps=STEPS, prompts=["A photo of a polyp."])[0]
    Image.fromarray(mask_of()).save(tmp_path / "mask.png")
    np.save(tmp_path / "latents.npy", normal((1, 4, 8, 8), SEED, "sample").numpy())
    names = (exported, tmp_path / "mask.png", tmp_path / "latents.npy", tmp_path / "image.png")
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN, *map(str, names)],
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = np.asarray(Image.open(tmp_path / "image.png")).astype(int)
    difference = np.abs(theirs - np.asarray(image).astype(int))
    # the same sums in another order, then rounding to 8 bit
    assert difference.max() <= 1
    assert np.asarray(image).std() > 1


def test_the_class_of_the_dense_hint_input_travels_with_the_weights(exported: Path) -> None:
    files = {path.name for path in (exported / "controlnet").iterdir()}
    assert {"siamese_controlnet.py", "dense_hint.py", "config.json"} <= files
    code = (exported / "controlnet" / "siamese_controlnet.py").read_text()
    assert "from .dense_hint import DenseHintInput" in code
    assert not re.search(r"^(from|import) siamese_diffusion", code, re.MULTILINE)
    control = SiameseControlNetModel.from_pretrained(exported / "controlnet")
    assert isinstance(control.controlnet_cond_embedding, DenseHintInput)
    assert control.config["conditioning_embedding_out_channels"] == [4, 4, 4, 8, 16]


def test_a_control_branch_survives_saving_and_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    control = SiameseControlNetModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        norm_num_groups=8,
        attention_head_dim=2,
        conditioning_embedding_out_channels=(4, 4, 8, 8, 16),
    )
    control.save_pretrained(tmp_path)
    again = SiameseControlNetModel.from_pretrained(tmp_path)
    state = again.state_dict()
    assert state.keys() == control.state_dict().keys()
    assert all(torch.equal(state[name], t) for name, t in control.state_dict().items())


def test_a_plain_hint_input_needs_no_code_of_ours(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    overrides = ["train.steps=1", "train.batch_size=2", "data.size=64", "model.hint=sparse"]
    overrides += ["preview.steps=1", "preview.pairs=1", "train.tensorboard=false"]
    run = fit(phantoms, tmp_path / "run", base=small_base_folder, overrides=overrides, quiet=True)
    out = export_run(run, tmp_path / "out")
    assert not list(out.rglob("*.py"))
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(out)
    assert type(pipeline.controlnet) is ControlNetModel


def test_the_readme_shows_how_to_draw(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    assert 'DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)' in text
    assert "'A photo of a polyp.', image=mask" in text
    assert "no medical device" in text


@pytest.mark.parametrize("target", ["diffusers", "release"])
def test_what_is_there_is_not_overwritten(trained_run: Path, tmp_path: Path, target: str) -> None:
    out = tmp_path / "model"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"model' already exists"):
        export_run(trained_run, out, to="release" if target == "release" else "diffusers")
    assert out.read_text() == "mine"


def test_an_export_that_fails_leaves_nothing_behind(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ControlNetModel, "save_pretrained", full)
    with pytest.raises(OutputError, match=r"the disk of .* is full"):
        export_run(trained_run, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
