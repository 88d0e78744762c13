"""Reading and writing run folders: identity, settings, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import (
    FORMAT,
    RunPaths,
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    make_folder,
    read_json,
    text_sha256,
)
from siamese_diffusion.core.config import changed_keys, mapping_to_yaml, resolve, to_yaml
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.generators import GENERATORS
from siamese_diffusion.generators.base import Generator
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import Base, load_base

TRAINING, COMPLETE, IMPORTED = "training", "complete", "imported"


@dataclass(frozen=True)
class RunInfo:
    """What `run.json` says; the field names are its keys."""

    generator: str
    state: str
    base: dict[str, str | None]
    model_sha256: str | None
    step: int
    max_steps: int
    size: int
    prompt: str
    data: dict[str, object]

    def identity(self) -> dict[str, object]:
        """What must not change when a run is continued."""
        return {
            "data.fingerprint": self.data.get("fingerprint"),
            "data.split": self.data.get("split"),
            "base.sha256": self.base.get("sha256"),
        }


def generator_class(name: str) -> type[Generator]:
    """The class behind a generator's name.

    Raises:
        ConfigError: With all names, if it is unknown.
    """
    return cast("type[Generator]", GENERATORS[name])


def read_run(paths: RunPaths) -> tuple[RunInfo, FitSettings]:
    """What a run folder says of itself.

    Raises:
        OutputError: If it is no run folder, or one of a newer format.
    """
    if not paths.run.exists():
        raise OutputError(
            f"'{paths.root}' is not a run folder (it has no {paths.run.name})",
            hint="give the --out of `siamdiff fit` or `siamdiff import`",
        )
    content = read_json(paths.run)
    if content.get("format") != FORMAT:
        raise OutputError(
            f"'{paths.root}' has format {content.get('format')}; this version reads {FORMAT}",
            hint="use the version of siamese-diffusion that wrote it",
        )
    fields = {name: content[name] for name in RunInfo.__dataclass_fields__}
    info = RunInfo(**fields)  # type: ignore[arg-type]
    settings = resolve(generator_class(info.generator).Settings, file=paths.config)
    return info, settings


def write_run(paths: RunPaths, info: RunInfo) -> None:
    """Write `run.json`."""
    record = {name: getattr(info, name) for name in RunInfo.__dataclass_fields__}
    atomic_write_json(paths.run, {"kind": "run", "format": FORMAT, **record})


def claim_run(
    paths: RunPaths, info: RunInfo, settings: FitSettings, asked: Mapping[str, object]
) -> RunInfo:
    """Begin a run in a new folder, or recognise the folder as this very run.

    Returns:
        What is on disk: `info` for a new run, the stored record for a continued one.

    Raises:
        OutputError: If the folder holds something else or another run, naming the differences.
    """
    if paths.run.exists():
        before, old = read_run(paths)
        differences = (
            changed_keys(old, settings)
            if type(old) is type(settings)
            else [f"generator: {old.generator} -> {settings.generator}"]
        )
        old_identity, new_identity = before.identity(), info.identity()
        differences += [
            f"{key}: {_short(old_identity[key])} -> {_short(new_identity[key])}"
            for key in old_identity
            if old_identity[key] != new_identity[key]
        ]
        if differences:
            raise OutputError(
                f"'{paths.root}' belongs to another run: {'; '.join(differences)}",
                hint="choose another --out, or repeat the settings of the run to continue it",
            )
        return before
    if paths.root.exists() and any(
        item.name != paths.cache.name for item in paths.root.iterdir() if item.name[0] != "."
    ):
        raise OutputError(
            f"'{paths.root}' is not empty and is no run folder", hint="choose another --out"
        )
    make_folder(paths.root)
    atomic_write_text(paths.config, to_yaml(settings))
    atomic_write_text(paths.asked, mapping_to_yaml(asked))
    atomic_write_json(paths.environment, snapshot())
    write_run(paths, info)
    return info


def save_model(paths: RunPaths, modules: Mapping[str, nn.Module], *, base_sha256: str) -> str:
    """Write the trained networks, one file each, and return the model's identity (SHA-256)."""
    with atomic_folder(paths.model) as folder:
        hashes = {}
        for name, module in modules.items():
            state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            file = folder / f"{name}.safetensors"
            save_file(state, file)
            hashes[name] = file_sha256(file)
        identity = text_sha256(f"{base_sha256} {sorted(hashes.items())}")
        atomic_write_json(folder / "model.json", {"sha256": identity, "files": hashes})
    return identity


def load_model(paths: RunPaths, modules: Mapping[str, nn.Module]) -> None:
    """Read the trained networks strictly.

    Raises:
        WeightsError: Naming a file that is missing or damaged, or tensors that do not fit.
    """
    for name, module in modules.items():
        file = paths.model / f"{name}.safetensors"
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"weights '{file}' cannot be read: {error}") from error
        load_strictly(module, state, where=str(file))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load a state dict, listing every missing, unexpected or misshapen tensor.

    Raises:
        WeightsError: If anything does not fit.
    """
    own = module.state_dict()
    problems = [f"missing {n}" for n in own if n not in state]
    problems += [f"unexpected {n}" for n in state if n not in own]
    problems += [
        f"{n} is {tuple(state[n].shape)}, needs {tuple(own[n].shape)}"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (
            f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        )
        raise WeightsError(
            f"'{where}' is of another architecture: {shown}",
            hint="use the base and settings it was trained with",
        )
    module.load_state_dict(dict(state))


@dataclass
class LoadedRun:
    """A trained generator, ready to sample."""

    paths: RunPaths
    info: RunInfo
    settings: FitSettings
    base: Base
    generator: Generator


def load_run(root: Path, *, base: str | None = None) -> LoadedRun:
    """Load a finished run with its base.

    Args:
        root: The run folder.
        base: Where the base is now, if not where it was.

    Raises:
        OutputError: If the folder is no run, or one that is not finished.
        WeightsError: If the base is not the one the run was trained on.
    """
    paths = RunPaths(root)
    info, settings = read_run(paths)
    if info.state == TRAINING:
        raise OutputError(
            f"the training in '{root}' is not finished ({info.max_steps} steps asked)",
            hint="repeat its `siamdiff fit` command to continue it",
        )
    reference = base or info.base["reference"]
    assert reference is not None
    carried = paths.base
    if base is None and carried.is_dir():
        loaded = load_base(carried)
    else:
        try:
            loaded = load_base(reference)
        except WeightsError as error:
            raise WeightsError(
                f"the base of run '{root}' cannot be loaded: {error.message}",
                hint="say where it is now with --base",
            ) from error
    if loaded.sha256 != info.base["sha256"]:
        raise WeightsError(
            f"base '{reference}' is not the one that run '{root}' was trained on "
            f"({_short(loaded.sha256)}, needs {_short(info.base['sha256'])})",
            hint="give the right one with --base",
        )
    generator = generator_class(info.generator).build(settings, loaded)
    load_model(paths, generator.modules)
    generator.objective.requires_grad_(False).eval()
    return LoadedRun(paths, info, settings, loaded, generator)


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 20 else text
