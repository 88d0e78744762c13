"""`siamdiff export`: a trained run as a folder or file that other people's code reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from diffusers import ControlNetModel
from torch import Tensor

from siamese_diffusion.core.artifacts import (
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    require_free_space,
)
from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.generators.run_folder import LoadedRun, load_run, load_strictly
from siamese_diffusion.interchange import siamese_controlnet
from siamese_diffusion.interchange.release import release_state
from siamese_diffusion.interchange.siamese_controlnet import SiameseControlNetModel
from siamese_diffusion.models import dense_hint
from siamese_diffusion.models.hints import hint_widths
from siamese_diffusion.models.siamese import SiameseNetwork

Target = Literal["diffusers", "release"]

_CLASS_FILE = Path(siamese_controlnet.__file__)
_HINT_FILE = Path(dense_hint.__file__)


def export_run(
    run: Path | str, out: Path | str, *, to: Target = "diffusers", base: str | None = None
) -> Path:
    """Write a finished run for use elsewhere.

    Args:
        run: Run folder.
        out: For `diffusers` a new folder, whole with autoencoder, text encoder and scheduler; for
            `release` a new file, a merged checkpoint in the names of the authors' release.
        to: Which of them.
        base: Where the run's base is now, if it has moved.

    Returns:
        `out`.

    Raises:
        OutputError: If `out` exists, its disk is too full, or `run` is no finished run.
        WeightsError: If the run's base cannot be found, or the target cannot hold the run.
    """
    out = Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise OutputError(f"'{out}' already exists", hint="choose a new name for the export")
    loaded = load_run(Path(run), base=base)
    parts = loaded.latent_base
    modules = (parts.vae, parts.text_encoder, loaded.generator.objective)
    require_free_space(out, sum(4 * p.numel() for module in modules for p in module.parameters()))
    writers: dict[Target, Callable[[LoadedRun, Path], None]] = {
        "diffusers": _write_diffusers,
        "release": _write_release,
    }
    writers[to](loaded, out)
    return out


def _write_release(run: LoadedRun, out: Path) -> None:
    state = release_state(run)
    with atomic_folder(out.with_name(f"{out.name}.part")) as folder:
        torch.save({"state_dict": state}, folder / out.name)
    (out.with_name(f"{out.name}.part") / out.name).replace(out)
    out.with_name(f"{out.name}.part").rmdir()


def _write_diffusers(run: LoadedRun, out: Path) -> None:
    network = getattr(run.generator, "network", None)
    # (M+I) has such a network too, but runs it on mask and image, which no stock pipeline does
    if not isinstance(network, SiameseNetwork) or run.generator.control != "mask":
        raise WeightsError(
            f"generator '{run.info.generator}' has no diffusers pipeline that samples as it does",
            hint="export runs of 'siamese' or 'controlnet'",
        )
    control = _control(network)
    with atomic_folder(out) as folder:
        run.latent_base.save(folder)
        control.save_pretrained(folder / "controlnet", safe_serialization=True)
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"] = "StableDiffusionControlNetPipeline"
        index["controlnet"] = ["diffusers", "ControlNetModel"]
        if isinstance(control, SiameseControlNetModel):
            index["controlnet"] = [_CLASS_FILE.stem, SiameseControlNetModel.__name__]
            code = _CLASS_FILE.read_text().replace(
                f"from {dense_hint.__name__} ", "from .dense_hint "
            )
            atomic_write_text(folder / "controlnet" / _CLASS_FILE.name, code)
            atomic_write_text(folder / "controlnet" / _HINT_FILE.name, _HINT_FILE.read_text())
        atomic_write_json(folder / "model_index.json", index)
        atomic_write_text(folder / "README.md", _card(run))


def _control(network: SiameseNetwork) -> ControlNetModel:
    """The control branch in the class that the export names, with its widths in the config."""
    dense = network.settings.hint == "dense"
    cls = SiameseControlNetModel if dense else ControlNetModel
    config = dict(network.control.config)
    first_width = int(config["block_out_channels"][0])
    config["conditioning_embedding_out_channels"] = hint_widths(network.settings, first_width)
    control = cls.from_config(config)
    state: dict[str, Tensor] = network.control.state_dict()
    load_strictly(control, state, where="the run's control branch")
    return control


def _card(run: LoadedRun) -> str:
    info = run.info
    data = ", ".join(f"{key} {value}" for key, value in info.data.items() if value is not None)
    return f"""# A model of Siamese-Diffusion, for diffusers

Makes images from segmentation masks. Its images are synthetic: they belong to no patient, this is
no medical device, and the terms of its base and of its training data hold for it.

```python
from diffusers import DiffusionPipeline
from PIL import Image

pipeline = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
mask = Image.open("MASK.png").convert("L").point(lambda level: 255 * (level > 127))
mask = mask.convert("RGB").resize(({info.size}, {info.size}), Image.Resampling.NEAREST)
image = pipeline(
    {info.prompt!r}, image=mask, num_inference_steps=50, guidance_scale=9.0, eta=0.0
).images[0]
```

`trust_remote_code` lets diffusers read the two files of `controlnet/`, the class of the Dense Hint
Input; they need torch and diffusers only. A model with ControlNet's own hint input has no such
files.

| | |
|---|---|
| size | {info.size} px |
| prompt | {info.prompt} |
| generator | {info.generator}, {info.step} training steps ({info.state}) |
| data | {data} |
| base | {info.base["reference"]} |
| model SHA-256 | {info.model_sha256} |
"""
