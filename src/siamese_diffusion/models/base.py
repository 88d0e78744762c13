"""The base model: autoencoder, U-Net, text encoder, tokenizer and noise schedule.

One loader for the embedded small base, a diffusers folder, a single Stable Diffusion file and a
hub id. Nothing is fetched unless a hub id was given.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from siamese_diffusion.core.config import nearest
from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.models.scheduler import SD_SCHEDULE
from siamese_diffusion.models.single_file import read_single_file
from siamese_diffusion.models.tokenizer import read_tokenizer

EMBEDDED = ("tiny",)
COMPONENTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_ORIGIN = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
LATENT_FACTOR = 8  # of Stable Diffusion's autoencoder; the hint inputs downsample by the same
Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny


@dataclass
class Base:
    """A loaded base.

    Attributes:
        reference: What the user gave: "tiny", a path or a hub id.
        kind: "embedded", "folder", "file" or "hub".
    """

    vae: Autoencoder
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    reference: str
    kind: str
    path: Path | None = None

    @property
    def size(self) -> int:
        """Native image size in pixels."""
        return int(self.unet.config["sample_size"]) * LATENT_FACTOR

    @property
    def first_width(self) -> int:
        """Channels of the U-Net's first level, 320 for SD 1.5."""
        return int(self.unet.config["block_out_channels"][0])

    @property
    def lasting_reference(self) -> str:
        """A reference that holds from any working directory."""
        if self.path is not None and self.kind in ("folder", "file"):
            return str(self.path.resolve())
        return self.reference

    @cached_property
    def sha256(self) -> str:
        """Identity of all weights, independent of where they were loaded from.

        Taken when first asked for: ask before training changes the decoder.
        """
        digest = hashlib.sha256()
        for name in ("vae", "unet", "text_encoder"):
            digest.update(state_sha256(getattr(self, name).state_dict()).encode())
        return digest.hexdigest()

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """Prompt embeddings, (P, L, D) float32 on the text encoder's device."""
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        embedded: Tensor = self.text_encoder(ids)[0].float()
        return embedded

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write a diffusers folder (safetensors) that `load_base` reads."""
        for name in ("vae", "unet", "text_encoder"):
            module = getattr(self, name)
            stored = module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)
            stored.save_pretrained(folder / name, safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        for name in ("vae", "unet", "text_encoder", "tokenizer"):
            _forget_origin(folder / name)
        index = {
            "_class_name": "StableDiffusionPipeline",
            "vae": ["diffusers", type(self.vae).__name__],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _forget_origin(component: Path) -> None:
    """Drop what the libraries note of where a component was loaded from: paths of this machine."""
    for name in ("config.json", "tokenizer_config.json"):
        path = component / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: v for k, v in content.items() if k not in _ORIGIN}
        if kept != content:
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def embedded_folder(name: str) -> Path:
    """Where the package keeps an embedded base."""
    return Path(str(resources.files("siamese_diffusion"))) / "bases" / name


def load_base(reference: str | Path, *, autoencoder: Path | None = None) -> Base:
    """Load a base from "tiny", a diffusers folder, a single file or a hub id.

    Args:
        reference: What to load. A path is tried first; `owner/name` that is no path is a hub id.
        autoencoder: Take the autoencoder from this folder or file instead (e.g. a TAESD).

    Raises:
        WeightsError: Naming the missing component, the unreadable file or the unknown name.
    """
    text = str(reference)
    path = Path(text).expanduser()
    if text in EMBEDDED and not path.exists():
        base = _from_folder(embedded_folder(text), text, "embedded")
    elif path.is_dir():
        base = _from_folder(path, text, "folder")
    elif path.is_file():
        base = _from_file(path, text)
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")):
        base = _from_hub(text)
    else:
        raise WeightsError(
            f"base '{text}' is neither embedded nor a folder or file"
            f"{nearest(text, list(EMBEDDED))}",
            hint=f"give one of {', '.join(EMBEDDED)}, a diffusers folder, a .safetensors file, "
            "or a hub id like stable-diffusion-v1-5/stable-diffusion-v1-5",
        )
    if autoencoder is not None:
        base.vae = load_autoencoder(autoencoder)
    check_base(base)
    for module in (base.vae, base.unet, base.text_encoder):
        module.requires_grad_(False).eval()
    return base


def load_autoencoder(path: Path) -> Autoencoder:
    """An autoencoder from a diffusers folder or a weights file of a TAESD.

    Raises:
        WeightsError: If neither fits.
    """
    try:
        if path.is_dir():
            config = json.loads((path / "config.json").read_text())
            tiny = config.get("_class_name") == "AutoencoderTiny"
            return _strictly(AutoencoderTiny if tiny else AutoencoderKL, path)
        state = {name: value.float() for name, value in read_state_dict(path).items()}
        vae = AutoencoderTiny()
        vae.load_state_dict(state, strict=True)
        return vae
    except WeightsError:
        raise
    except Exception as error:  # as for base folders
        raise WeightsError(
            f"autoencoder '{path}' cannot be loaded: {_first_line(error)}",
            hint="give a diffusers autoencoder folder, or the weights file of a TAESD "
            "(latent factor 8)",
        ) from error


def state_sha256(state: dict[str, Tensor]) -> str:
    """Hash of names, shapes and float32 values, equal for equal weights in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        value = tensor.float() if tensor.is_floating_point() else tensor
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _from_folder(folder: Path, reference: str, kind: str) -> Base:
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise WeightsError(
            f"base folder '{folder}' lacks {', '.join(missing)}",
            hint=f"a base is a diffusers folder with {', '.join(COMPONENTS)}",
        )
    try:
        return Base(
            vae=load_autoencoder(folder / "vae"),
            unet=_strictly(UNet2DConditionModel, folder / "unet"),
            text_encoder=_strictly(CLIPTextModel, folder / "text_encoder"),
            tokenizer=read_tokenizer(folder / "tokenizer"),
            scheduler=_schedule(
                DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
            ),
            reference=reference,
            kind=kind,
            path=folder,
        )
    except WeightsError:
        raise
    except Exception as error:  # the libraries' readers raise many kinds; all mean "damaged"
        raise WeightsError(
            f"base folder '{folder}' cannot be loaded: {_first_line(error)}",
            hint="every component needs its config.json and a .safetensors file",
        ) from error


def _strictly(cls: Any, folder: Path) -> Any:
    """Load a component in float32; refuse a file that lacks tensors or holds others."""
    dtype = {"dtype" if cls is CLIPTextModel else "torch_dtype": torch.float32}
    module, info = cls.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, **dtype
    )
    problems = [
        f"{kind.removesuffix('_keys')} {name}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for name in sorted(map(str, info.get(kind) or ()))
    ]
    # buffers that old files carry and new classes compute
    problems = [p for p in problems if not p.endswith("position_ids")]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError(
            f"the weights in '{folder}' do not fit its config: {'; '.join(problems[:5])}{more}",
            hint="use config.json and weights of the same model",
        )
    return module


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _from_file(path: Path, reference: str) -> Base:
    return Base(**read_single_file(path), reference=reference, kind="file", path=path)


def _from_hub(name: str) -> Base:
    from diffusers import StableDiffusionPipeline

    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            name, safety_checker=None, local_files_only=offline, torch_dtype=torch.float32
        )
    except Exception as error:  # the hub client raises many kinds; all mean "not to be had"
        raise WeightsError(
            f"base '{name}' is no folder here and could not be had from the hub: "
            f"{_first_line(error)}",
            hint="give the path of a local folder, or check the id and the network"
            + (" (HF_HUB_OFFLINE is set)" if offline else ""),
        ) from error
    parts = {component: getattr(pipeline, component) for component in COMPONENTS}
    parts["scheduler"] = _schedule(parts["scheduler"])
    return Base(**parts, reference=name, kind="hub", path=None)


def _schedule(scheduler: object) -> DDIMScheduler:
    """DDIM under the base's betas, with the step rule of the authors' sampler."""
    config = dict(getattr(scheduler, "config"))  # noqa: B009  (diffusers types it loosely)
    keep = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    return DDIMScheduler(**{**SD_SCHEDULE, **{k: config[k] for k in keep if k in config}})


def check_base(base: Base) -> None:
    """Refuse parts that do not fit together, or a base that the method cannot use.

    Raises:
        WeightsError: Naming the parts and their numbers.
    """
    if isinstance(base.vae, AutoencoderKL):
        factor = 2 ** (len(base.vae.config["block_out_channels"]) - 1)
        if factor != LATENT_FACTOR:
            raise WeightsError(
                f"the autoencoder of base '{base.reference}' has factor {factor}, "
                f"but {LATENT_FACTOR} is needed"
            )
    latent, expected = int(base.vae.config["latent_channels"]), int(base.unet.config["in_channels"])
    if latent != expected:
        raise WeightsError(
            f"the autoencoder of base '{base.reference}' has {latent} latent channels, "
            f"its U-Net takes {expected}"
        )
    kind = base.scheduler.config["prediction_type"]
    if kind != "epsilon":
        raise WeightsError(
            f"base '{base.reference}' predicts '{kind}'; the method needs a base that predicts "
            "epsilon, as Stable Diffusion 1.5 does"
        )
    width, text = base.unet.config["cross_attention_dim"], base.text_encoder.config.hidden_size
    if width != text:
        raise WeightsError(
            f"the U-Net of base '{base.reference}' takes text features of width {width}, "
            f"its text encoder gives {text}"
        )
