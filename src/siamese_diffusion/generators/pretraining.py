"""`siamdiff pretrain`: a small base of one's own from images alone.

Stages that meet on disk, each resumable: an autoencoder, the latents of all images, a denoiser,
the finished base with its model card. The text encoder keeps its random initialisation: with one
prompt per data set it only has to tell prompts apart, and the model card says so.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from siamese_diffusion.core.artifacts import (
    atomic_folder,
    atomic_write_text,
    make_folder,
    read_json,
    text_sha256,
)
from siamese_diffusion.core.config import changed_keys, read_yaml, resolve, to_yaml
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import DataError, OutputError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.pairs import PairFolder, load_arrays
from siamese_diffusion.generators.model_card import base_card, paint_grid
from siamese_diffusion.generators.pretraining_tasks import (
    AutoencoderTask,
    DenoiserTask,
    mean_psnr,
    to_model,
)
from siamese_diffusion.generators.settings import PretrainSettings
from siamese_diffusion.models.base import Base, load_autoencoder, load_base
from siamese_diffusion.models.latents import encode_moments
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training.trainer import Trainer

_SETTINGS = "pretrain.yaml"
_STAGES = "stages"


def pretrain(
    data: Path | str,
    out: Path | str,
    settings: PretrainSettings | None = None,
    *,
    split: str | None = None,
    autoencoder: Path | str | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Path:
    """Train a small base on the images of a folder; the same call continues an interrupted one.

    Args:
        data: Folder with `images/` (masks are not needed).
        out: The base, a diffusers folder with a model card and a sample grid.
        settings: Architecture and both trainings.
        split: Use only the stems of this list.
        autoencoder: Use this autoencoder instead of training one.
        device: "cpu" or "cuda"; None takes what is there.

    Returns:
        `out`.

    Raises:
        DataError: If the folder holds too few images.
        OutputError: If `out` belongs to other settings or data.
    """
    settings = settings or PretrainSettings()
    out = Path(out)
    folder = PairFolder.open(Path(data), split=split, need="images", prompt=settings.prompt)
    if len(folder) < 4:
        raise DataError(f"'{data}' has {len(folder)} images; a base needs at least 4")
    identity = f"data {folder.fingerprint()} autoencoder {autoencoder or '-'}"
    if _finished(out, settings, identity):
        return out
    _claim(out, settings, identity)
    images, _ = load_arrays(folder, settings.size)
    assert images is not None
    train, held_out = _hold_out(images, settings)
    base = build_small_base(settings.architecture, size=settings.size, seed=settings.denoiser.seed)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    stages = out / _STAGES
    if autoencoder is not None:
        base.vae = load_autoencoder(Path(autoencoder))
    else:
        _train_autoencoder(base, train, held_out, settings, stages, device, quiet)
    base.vae.requires_grad_(False).eval().to(where)
    mean, std = _latents(base, train, settings, stages, where)
    prompt = folder.pairs[0].prompt
    _train_denoiser(base, mean, std, prompt, settings, stages, device, quiet)
    half = torch.float16 if settings.save_dtype == "fp16" else torch.float32
    for module in (base.vae, base.unet, base.text_encoder):
        module.requires_grad_(False).eval().to(device="cpu", memory_format=torch.contiguous_format)
    with atomic_folder(stages / "base") as temporary:
        base.save(temporary, dtype=half)
    # Everything reported is measured on what was written, rounding included.
    written = load_base(stages / "base")
    numbers = {
        "psnr_db": round(mean_psnr(written.vae, held_out, torch.device("cpu")), 2),
        "held_out_images": len(held_out),
        "training_images": len(train),
    }
    grid = paint_grid(written, prompt, seed=settings.denoiser.seed)
    card = base_card(
        settings,
        numbers,
        prompt=prompt,
        data=_origin(folder.root),
        split=split,
        autoencoder=str(autoencoder) if autoencoder else None,
        stages=stages,
        environment=snapshot(),
        parameters={
            name: sum(p.numel() for p in getattr(base, name).parameters())
            for name in ("vae", "unet", "text_encoder")
        },
    )
    grid.save(stages / "base" / "samples.png")
    atomic_write_text(stages / "base" / "README.md", card)
    atomic_write_text(stages / "base" / "quality.json", json.dumps(numbers, indent=2) + "\n")
    for item in sorted((stages / "base").iterdir()):
        target = out / item.name
        if target.is_dir():
            shutil.rmtree(target)
        shutil.move(str(item), target)
    (stages / "base").rmdir()
    return out


def _origin(root: Path) -> str:
    """How the data set is called, and for phantoms how to make it again."""
    recipe = root / "phantom.json"
    if not recipe.exists():
        return f"`{root.name}`"
    made = read_json(recipe)
    return (
        f"phantoms, `siamdiff data phantom {root.name} --pairs {made['pairs']} "
        f"--seed {made['seed']} --size {made['size']}`"
    )


def _claim(out: Path, settings: PretrainSettings, identity: str) -> None:
    """Make `out` ours, or recognise it as this very training."""
    marker = out / _STAGES / _SETTINGS
    if marker.exists():
        before = resolve(PretrainSettings, read_yaml(marker)["settings"])  # type: ignore[arg-type]
        differences = changed_keys(before, settings)
        if read_yaml(marker)["identity"] != identity:
            differences.append("data or autoencoder: another")
        if differences:
            raise OutputError(
                f"'{out}' belongs to another pretraining: {'; '.join(differences)}",
                hint="choose another --out, or repeat the settings to continue",
            )
        return
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"'{out}' is not empty", hint="choose a new folder for the base")
    make_folder(marker.parent)
    import yaml

    content = {"identity": identity, "settings": yaml.safe_load(to_yaml(settings))}
    atomic_write_text(marker, yaml.safe_dump(content, sort_keys=False))


def _finished(out: Path, settings: PretrainSettings, identity: str) -> bool:
    if not (out / "quality.json").exists():
        return False
    if not (out / _STAGES / _SETTINGS).exists():
        raise OutputError(f"'{out}' already holds a base", hint="choose another --out")
    _claim(out, settings, identity)
    return True


def _hold_out(images: np.ndarray, settings: PretrainSettings) -> tuple[np.ndarray, np.ndarray]:
    """A seeded split; at least one image on either side."""
    order = np.random.default_rng(derive_seed(0, "hold-out")).permutation(len(images))
    n = max(1, round(settings.hold_out * len(images)))
    return images[np.sort(order[n:])], images[np.sort(order[:n])]


def _identity(settings: PretrainSettings) -> str:
    return text_sha256(to_yaml(settings))


def _train_autoencoder(
    base: Base,
    train: np.ndarray,
    held_out: np.ndarray,
    settings: PretrainSettings,
    stages: Path,
    device: str | None,
    quiet: bool,
) -> None:
    task = AutoencoderTask(
        base,
        train,
        held_out,
        batch_size=settings.autoencoder.batch_size,
        seed=settings.autoencoder.seed,
        edge_weight=settings.edge_weight,
        kl_weight=settings.kl_weight,
        flips=settings.flips,
    )
    _run(
        Trainer(
            settings.autoencoder,
            task,
            folder=stages / "autoencoder",
            settings_hash=_identity(settings),
            label="autoencoder",
            quiet=quiet,
            device=device,
        )
    )


def _run(trainer: Trainer) -> None:
    """Train, and leave the averaged weights in the network."""
    trainer.run()
    if trainer.average is not None:
        trainer.average.finish()


def _latents(
    base: Base, train: np.ndarray, settings: PretrainSettings, stages: Path, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Moments of every image (and its mirror image), scaled to unit variance; kept on disk."""
    path = stages / "latents.safetensors"
    if not path.exists():
        means, stds = [], []
        mirrored = [False, True] if settings.flips else [False]
        for mirror in mirrored:
            for start in range(0, len(train), 16):
                image = to_model(np.ascontiguousarray(train[start : start + 16]))
                image = image.flip(-1) if mirror else image
                mean, std = encode_moments(base.vae, image.to(device))
                means.append(mean.cpu())
                stds.append(std.cpu())
        mean, std = torch.cat(means).contiguous(), torch.cat(stds).contiguous()
        spread = (mean.var() + std.square().mean()).sqrt()
        with atomic_folder(stages / "latents.part") as part:
            save_file({"mean": mean, "std": std, "spread": spread}, part / "latents.safetensors")
        (stages / "latents.part" / "latents.safetensors").replace(path)
        (stages / "latents.part").rmdir()
    stored = load_file(path)
    # The factor that brings latents to unit variance, SD's 0.18215; it goes with the autoencoder.
    factor = float(base.vae.config["scaling_factor"]) / float(stored["spread"])
    base.vae.register_to_config(scaling_factor=factor)
    return stored["mean"] / stored["spread"], stored["std"] / stored["spread"]


def _train_denoiser(
    base: Base,
    mean: Tensor,
    std: Tensor,
    prompt: str,
    settings: PretrainSettings,
    stages: Path,
    device: str | None,
    quiet: bool,
) -> None:
    task = DenoiserTask(
        base,
        mean,
        std,
        base.embed([prompt, ""]),
        batch_size=settings.denoiser.batch_size,
        seed=settings.denoiser.seed,
        empty_prompt_probability=settings.empty_prompt_probability,
    )
    _run(
        Trainer(
            settings.denoiser,
            task,
            folder=stages / "denoiser",
            settings_hash=_identity(settings),
            label="denoiser",
            quiet=quiet,
            device=device,
        )
    )
