"""`siamdiff pretrain`: a small base of one's own from images alone.

Stages that meet on disk, each resumable: an autoencoder, the latents of all images, a denoiser,
the finished base with its model card. The text encoder keeps its random initialisation: with one
prompt per data set it only has to tell prompts apart, and the model card says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
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
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError, WeightsError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.core.weights import misfits
from siamese_diffusion.data.pairs import PairFolder, load_arrays
from siamese_diffusion.generators.model_card import base_card, paint_grid
from siamese_diffusion.generators.pretraining_latents import scaled_latents
from siamese_diffusion.generators.pretraining_tasks import (
    AutoencoderTask,
    DenoiserTask,
    mean_psnr,
)
from siamese_diffusion.generators.settings import PretrainSettings
from siamese_diffusion.models.base import (
    Autoencoder,
    Base,
    check_base,
    load_autoencoder,
    load_base,
    state_sha256,
)
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training.processes import (
    choose_device,
    first_process_first,
    join_processes,
)
from siamese_diffusion.training.trainer import Trainer, check_training

_SETTINGS = "pretrain.yaml"
_LAST = "quality.json"  # written last: a folder that has it is a whole base
_STAGES = "stages"


def pretrain(
    data: Path | str,
    out: Path | str,
    settings: PretrainSettings | None = None,
    *,
    split: str | None = None,
    autoencoder: Path | str | None = None,
    start: Path | str | None = None,
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
        start: Go on from this base ("tiny", or a folder) instead of random weights: its autoencoder
            and text encoder stay, its denoiser is trained further. It has the same architecture.
        device: "cpu" or "cuda"; None takes what is there.

    Returns:
        `out`.

    Raises:
        ConfigError: If both an autoencoder and a start are given.
        DataError: If the folder holds too few images.
        OutputError: If `out` belongs to other settings or data.
        WeightsError: If the autoencoder or the start does not fit.
    """
    settings = settings or PretrainSettings()
    if autoencoder is not None and start is not None:
        raise ConfigError(
            f"both an autoencoder ('{autoencoder}') and a start ('{start}') were given",
            hint="leave one out: a start brings its own autoencoder",
        )
    out = Path(out)
    where = choose_device(device)
    processes = join_processes(where)
    for train in (settings.autoencoder, settings.denoiser):
        check_training(train, device=where, world=processes.num_processes)
    folder = PairFolder.open(Path(data), split=split, need="images", prompt=settings.prompt)
    if len(folder) < 4:
        raise DataError(f"'{data}' has {len(folder)} images; a base needs at least 4")
    base = build_small_base(settings.architecture, size=settings.size, seed=settings.denoiser.seed)
    given = load_autoencoder(Path(autoencoder)) if autoencoder is not None else None
    begun = _begin_from(start, base) if start is not None else None
    if begun is not None:
        given = begun.vae
    if given is not None:
        base.vae = given
        check_base(base)
    if settings.whiten and not isinstance(base.vae, AutoencoderKL):
        raise ConfigError(
            f"whiten=true needs an autoencoder of Stable Diffusion's kind, but '{autoencoder}' is "
            f"{type(base.vae).__name__}",
            hint="leave whiten out: the autoencoder is then kept as it is",
        )
    identity = f"data {folder.fingerprint()} autoencoder {_autoencoder_identity(given)}"
    if begun is not None:
        identity += f" start {begun.sha256}"
    with first_process_first(processes):
        if _finished(out, settings, identity):
            return out
        _claim(out, settings, identity)
    pictures, _ = load_arrays(folder, settings.size)
    assert pictures is not None
    images, held_out = _hold_out(pictures, settings)
    stages = out / _STAGES
    if given is None:
        _train_autoencoder(base, images, held_out, settings, stages, device, quiet)
    base.vae.requires_grad_(False).eval().to(processes.device)
    whiten = given is None if settings.whiten is None else settings.whiten
    with first_process_first(processes):
        mean, std = scaled_latents(
            base,
            images,
            stages / "latents.safetensors",
            processes.device,
            flips=settings.flips,
            whiten=whiten and begun is None,
            quiet=quiet,
        )
    prompt = folder.pairs[0].prompt
    _train_denoiser(base, mean, std, prompt, settings, stages, device, quiet)
    if processes.is_main_process:
        numbers = {"held_out_images": len(held_out), "training_images": len(images)}
        origin = {
            "prompt": prompt,
            "data": _origin(folder.root),
            "split": split,
            "autoencoder": str(autoencoder) if autoencoder is not None else None,
            "start": None if begun is None else f"`{begun.reference}`, SHA-256 {begun.sha256}",
            "history": _history(begun),
        }
        _finish(out, base, held_out, settings, numbers, origin)
    processes.wait_for_everyone()
    return out


def _finish(
    out: Path,
    base: Base,
    held_out: np.ndarray,
    settings: PretrainSettings,
    counts: Mapping[str, int],
    origin: Mapping[str, str | None],
) -> None:
    """Write the base with its card, look at what was written, and move it into place."""
    stages, prompt = out / _STAGES, str(origin["prompt"])
    half = torch.float16 if settings.save_dtype == "fp16" else torch.float32
    for module in (base.vae, base.unet, base.text_encoder):
        module.requires_grad_(False).eval().to(device="cpu", memory_format=torch.contiguous_format)
    with atomic_folder(stages / "base") as temporary:
        base.save(temporary, dtype=half)
    # Everything reported is measured on what was written, rounding included.
    written = load_base(stages / "base")
    numbers = {
        "psnr_db": round(mean_psnr(written.vae, held_out, torch.device("cpu")), 2),
        **counts,
    }
    grid = paint_grid(written, prompt, seed=settings.denoiser.seed)
    card = base_card(
        settings,
        numbers,
        prompt=prompt,
        data=str(origin["data"]),
        split=origin["split"],
        autoencoder=origin["autoencoder"],
        start=origin["start"],
        history=origin["history"],
        stages=stages,
        environment=snapshot(),
        parameters={
            name: sum(p.numel() for p in getattr(base, name).parameters())
            for name in ("vae", "unet", "text_encoder")
        },
    )
    grid.save(stages / "base" / "samples.png")
    atomic_write_text(stages / "base" / "README.md", card)
    atomic_write_text(stages / "base" / _LAST, json.dumps(numbers, indent=2) + "\n")
    for item in sorted((stages / "base").iterdir(), key=lambda path: path.name == _LAST):
        target = out / item.name
        if target.is_dir():
            shutil.rmtree(target)
        shutil.move(str(item), target)
    (stages / "base").rmdir()


def _begin_from(start: Path | str, base: Base) -> Base:
    """Give `base` the denoiser and the text encoder of another base of its architecture."""
    begun = load_base(start)
    for name in ("unet", "text_encoder"):
        own, found = (getattr(b, name).state_dict() for b in (base, begun))
        if problems := misfits(own, found):
            raise WeightsError(
                f"the {name} of start '{start}' is of another architecture: {problems}",
                hint="repeat the architecture of its model card with --set architecture.KEY=VALUE",
            )
        getattr(base, name).load_state_dict(found)
    base.tokenizer = begun.tokenizer
    return begun


def _history(begun: Base | None) -> str | None:
    """The model card of the base that is continued, if it has one."""
    if begun is None or begun.path is None or not (begun.path / "README.md").is_file():
        return None
    return (begun.path / "README.md").read_text(encoding="utf-8")


def _autoencoder_identity(given: Autoencoder | None) -> str:
    return state_sha256(given.state_dict()) if given is not None else "-"


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
            differences.append("data, autoencoder or start: another")
        if differences:
            raise OutputError(
                f"'{out}' belongs to another pretraining: {'; '.join(differences)}",
                hint="choose another --out, or repeat the settings to continue",
            )
        return
    if out.exists() and not out.is_dir():
        raise OutputError(f"'{out}' is a file", hint="choose a new folder for the base")
    # Nothing of ours is in there before the marker, but its folder may be.
    found = [path for path in out.glob("**/*") if path != marker.parent]
    if any(path.name[0] != "." for path in found):
        raise OutputError(f"'{out}' is not empty", hint="choose a new folder for the base")
    make_folder(marker.parent)
    import yaml

    content = {"identity": identity, "settings": yaml.safe_load(to_yaml(settings))}
    atomic_write_text(marker, yaml.safe_dump(content, sort_keys=False))


def _finished(out: Path, settings: PretrainSettings, identity: str) -> bool:
    if not (out / _LAST).exists():
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
    if settings.autoencoder.gradient_checkpointing:
        base.vae.enable_gradient_checkpointing()
    task = AutoencoderTask(
        base,
        train,
        held_out,
        folder=stages / "autoencoder",
        train=settings.autoencoder,
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
    if settings.denoiser.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    task = DenoiserTask(
        base,
        mean,
        std,
        base.embed([prompt, ""]),
        prompt=prompt,
        folder=stages / "denoiser",
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
