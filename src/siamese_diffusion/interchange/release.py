"""Checkpoints of the authors' release: read into our networks, imported as runs, written back.

A release file holds `control_model.*` and `model.diffusion_model.*`; a merged one also the
autoencoder (`first_stage_model.*`) and the text encoder (`cond_stage_model.*`). It never holds a
tokenizer, nor the number of attention heads, so that an import always names a base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import (
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
)
from siamese_diffusion.core.config import build, mapping_to_yaml, to_yaml
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.generators.run_folder import (
    IMPORTED,
    LoadedRun,
    RunInfo,
    save_model,
    write_run,
)
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.models.base import Base, load_base
from siamese_diffusion.models.ldm_names import (
    CONTROL,
    TEXT,
    UNET,
    VAE,
    Architecture,
    hint_of_release,
    release_names,
    text_names,
    vae_names,
)
from siamese_diffusion.models.siamese import SiameseNetwork
from siamese_diffusion.models.single_file import copy_weights

_WRAPPERS = ("_forward_module.", "module.")  # of DeepSpeed and DistributedDataParallel
# Tensors of LDM checkpoints that are no weights of ours: the schedule (a formula), moving averages
# of the original Stable Diffusion, a position table, and the autoencoder's training loss.
_NEEDLESS = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "logvar"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod"),
    *("sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped"),
    *("posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "scale_factor"),
    *("model_ema.", f"{VAE}loss.", f"{TEXT}text_model.embeddings.position_ids"),
)


@dataclass(frozen=True)
class KeyReport:
    """Where the tensors of a release file went.

    Attributes:
        used: Number of tensors by part, e.g. `control_model` -> 340.
        ignored: Names that no network needs.
    """

    used: Mapping[str, int]
    ignored: tuple[str, ...]

    def text(self) -> str:
        """One line a part."""
        lines = [f"{part}: {count} tensors" for part, count in self.used.items()]
        if self.ignored:
            shown = ", ".join(self.ignored[:4]) + (" ..." if len(self.ignored) > 4 else "")
            lines.append(f"not needed: {len(self.ignored)} tensors ({shown})")
        return "\n".join(lines)


@dataclass(frozen=True)
class ReleasedNetwork:
    """The siamese network of a release checkpoint.

    Attributes:
        network: With the checkpoint's weights.
        taken: Names of the checkpoint's tensors that it took.
        encoder_changed: Whether the frozen encoder differs from the one given.
    """

    network: SiameseNetwork
    taken: frozenset[str]
    encoder_changed: bool


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        run: The run folder.
        keys: Where the file's tensors went.
        carried: Frozen parts that differ from the base's and were therefore stored in the run.
    """

    run: Path
    keys: KeyReport
    carried: tuple[str, ...]


def read_release(path: Path) -> dict[str, Tensor]:
    """Tensors of a release file under their own names, float32; no code is executed.

    Raises:
        WeightsError: If it cannot be read, or is no checkpoint of the release.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in read_state_dict(path).items():
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        state[name] = tensor.float() if tensor.is_floating_point() else tensor
    if not any(name.startswith(CONTROL) for name in state):
        parts = sorted({name.partition(".")[0] for name in state})
        raise WeightsError(
            f"'{path}' has no tensors called '{CONTROL}*' (found: {', '.join(parts[:6])})",
            hint="give a checkpoint of the authors' release; merge the shards of DeepSpeed first "
            "(its zero_to_fp32.py)",
        )
    return state


def network_from_release(
    state: Mapping[str, Tensor], unet: UNet2DConditionModel
) -> ReleasedNetwork:
    """Load the U-Net and control branch of a release checkpoint.

    Args:
        state: From `read_release`.
        unet: A U-Net of the same architecture; its weights are replaced.

    Raises:
        WeightsError: If architectures differ, naming how; or tensors are missing or misshapen.
    """
    found = Architecture.of_release(state)
    differences = Architecture.of_config(unet.config).differences(found)
    if differences:
        raise WeightsError(
            f"the checkpoint is of another architecture than the base: {'; '.join(differences)} "
            "(base against checkpoint)",
            hint="give the base that it was trained from with --base",
        )
    settings = hint_of_release(state)
    network = SiameseNetwork(unet, settings)
    names = release_names(network.state_dict(), unet.config, hint=settings.hint)
    frozen = {n: r for n, r in names.items() if n.startswith("encoder.")}
    changed = copy_weights(network, state, frozen)
    copy_weights(network, state, {n: r for n, r in names.items() if n not in frozen})
    return ReleasedNetwork(network, frozenset(names.values()), changed)


def import_release(
    path: Path | str,
    out: Path | str,
    *,
    base: str | Path,
    size: int | None = None,
    prompt: str = "",
) -> ImportSummary:
    """Turn a checkpoint of the authors' release into a run folder that `siamdiff sample` takes.

    Args:
        path: The release's `.pth`, `.ckpt` or `.safetensors`.
        out: Run folder, new or empty.
        base: What it was trained from; gives the tokenizer and whatever the file lacks.
        size: Image size in pixels, a multiple of 8; None takes the paper's 384, or the base's
            own if that is smaller.
        prompt: The prompt it was trained with.

    Raises:
        ConfigError: If the size is impossible.
        OutputError: If `out` is not empty.
        WeightsError: If the file cannot be read without code, belongs to another architecture, or
            has tensors that are missing or unknown.
    """
    path, out = Path(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"'{out}' is not an empty folder", hint="choose another --out")
    state = read_release(path)
    loaded = load_base(base)
    identity = loaded.sha256  # before the file's weights take the base's place
    released = network_from_release(state, loaded.unet)
    network, taken = released.network, set(released.taken)
    carried = ["U-Net encoder"] if released.encoder_changed else []
    for part, module, names in (
        ("autoencoder", loaded.vae, _vae_names(loaded, state)),
        ("text encoder", loaded.text_encoder, _text_names(loaded, state)),
    ):
        carried += [part] if copy_weights(module, state, names) else []
        taken |= set(names.values())
    keys = _report(path, state, taken)
    hint = hint_of_release(state)
    asked = {
        "data": {"size": size or min(384, loaded.size), "prompt": prompt},
        "model": hint.model_dump(mode="json"),
        "objective": {"augment_below_timestep": 201},  # the release's gate
    }
    settings = build(SiameseFitSettings, asked)
    with atomic_folder(out) as folder:
        paths = RunPaths(folder)
        reference, kind = loaded.lasting_reference, loaded.kind
        if carried:
            paths.base.mkdir()
            loaded.save(paths.base)
            identity, reference, kind = load_base(paths.base).sha256, paths.base.name, "folder"
        modules: dict[str, nn.Module] = {"control": network.control, "decoder": network.decoder}
        info = RunInfo(
            generator=settings.generator,
            state=IMPORTED,
            base={"reference": reference, "kind": kind, "sha256": identity},
            model_sha256=save_model(paths, modules, base_sha256=identity),
            step=0,
            max_steps=settings.train.steps,
            size=settings.data.size,
            prompt=prompt,
            data={"imported": path.name, "imported_sha256": file_sha256(path)},
        )
        atomic_write_text(paths.config, to_yaml(settings))
        atomic_write_text(paths.asked, mapping_to_yaml(asked))
        atomic_write_json(paths.environment, snapshot())
        write_run(paths, info)
    return ImportSummary(out, keys, tuple(carried))


def release_state(run: LoadedRun) -> dict[str, Tensor]:
    """A run as one merged checkpoint in the release's names.

    Raises:
        WeightsError: If the run has parts that the release cannot name.
    """
    network = getattr(run.generator, "network", None)
    if not isinstance(network, SiameseNetwork) or run.generator.control != "mask":
        raise WeightsError(
            f"generator '{run.info.generator}' has no names in the authors' release",
            hint="export runs of 'siamese' or 'controlnet'",
        )
    base = run.latent_base
    unet = base.unet
    names = release_names(network.state_dict(), unet.config, hint=network.settings.hint)
    state = {names[n]: t for n, t in network.state_dict().items()}
    if not isinstance(base.vae, AutoencoderKL):
        raise WeightsError(
            f"the autoencoder of this run is {type(base.vae).__name__}, which the release's "
            "code cannot hold",
            hint="choose --to diffusers",
        )
    vae = vae_names(base.vae.state_dict(), base.vae.config)
    for name, tensor in base.vae.state_dict().items():
        # LDM writes the projections of the autoencoder's attention as 1x1 convolutions
        pointwise = ".attentions." in name and name.endswith(".weight") and tensor.ndim == 2
        state[vae[name]] = tensor[:, :, None, None] if pointwise else tensor
    text = base.text_encoder.state_dict()
    state |= {new: text[old] for old, new in text_names(text).items() if "position_ids" not in old}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _vae_names(base: Base, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of the autoencoder's tensors in the file; none if the file has no autoencoder."""
    if not any(name.startswith(VAE) for name in state):
        return {}
    if not isinstance(base.vae, AutoencoderKL):
        raise WeightsError(
            f"the checkpoint holds an autoencoder of Stable Diffusion's kind, but base "
            f"'{base.reference}' has {type(base.vae).__name__}",
            hint="give the base that it was trained from with --base",
        )
    return vae_names(base.vae.state_dict(), base.vae.config)


def _text_names(base: Base, state: Mapping[str, Tensor]) -> dict[str, str]:
    if not any(name.startswith(TEXT) for name in state):
        return {}
    names = text_names(base.text_encoder.state_dict())
    return {ours: theirs for ours, theirs in names.items() if "position_ids" not in ours}


def _report(path: Path, state: Mapping[str, Tensor], taken: set[str]) -> KeyReport:
    rest = [name for name in state if name not in taken]
    ignored = [name for name in rest if name.startswith(_NEEDLESS)]
    unknown = [name for name in rest if not name.startswith(_NEEDLESS)]
    if unknown:
        raise WeightsError(
            f"'{path}' holds {len(unknown)} tensors that have no place here: {_some(unknown)}",
            hint="it is not a checkpoint of the authors' release at this architecture",
        )
    parts = (CONTROL, UNET, VAE, TEXT)
    counts = Counter(next(p for p in parts if n.startswith(p)) for n in state if n in taken)
    return KeyReport({p.rstrip("."): counts[p] for p in parts if counts[p]}, tuple(ignored))


def _some(things: Iterable[str]) -> str:
    listed = list(things)
    more = f"; and {len(listed) - 10} more" if len(listed) > 10 else ""
    return "; ".join(listed[:10]) + more
