"""Reading and writing run folders: identity, settings, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    make_folder,
    read_json,
    remove_leftovers,
    text_sha256,
)
from siamese_diffusion.core.config import changed_keys, mapping_to_yaml, resolve, to_yaml
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.weights import misfits, write_tensors
from siamese_diffusion.generators import GENERATORS
from siamese_diffusion.generators.base import Generator
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import Base, load_base
from siamese_diffusion.models.pixels import Space

TRAINING, COMPLETE, IMPORTED = "training", "complete", "imported"
_MODEL = "model.json"


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
    missing = [name for name in RunInfo.__dataclass_fields__ if name not in content]
    if missing:
        raise OutputError(
            f"'{paths.run}' is damaged: it lacks {', '.join(missing)}",
            hint="choose another folder, or bring back the file",
        )
    fields = {name: content[name] for name in RunInfo.__dataclass_fields__}
    info = RunInfo(**fields)  # type: ignore[arg-type]
    settings = resolve(generator_class(info.generator).Settings, file=paths.config)
    return info, settings


def write_run(paths: RunPaths, info: RunInfo) -> None:
    """Write `run.json`."""
    record = {name: getattr(info, name) for name in RunInfo.__dataclass_fields__}
    atomic_write_json(paths.run, {"kind": "run", "format": FORMAT, **record})


def recognise_run(paths: RunPaths, info: RunInfo, settings: FitSettings) -> RunInfo | None:
    """What is on disk if the folder is of this very run, None if a run may begin there.

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
    if paths.root.exists() and not paths.root.is_dir():
        raise OutputError(f"'{paths.root}' is a file", hint="choose another --out")
    strangers = {item.name for item in paths.root.glob("[!.]*")} - {paths.cache.name}
    if paths.environment.exists():  # `begin_run` was killed before the end
        strangers -= {path.name for path in (paths.environment, paths.asked, paths.config)}
    if strangers:
        raise OutputError(
            f"'{paths.root}' is not empty and is no run folder (it has '{min(strangers)}')",
            hint="choose another --out",
        )
    return None


def begin_run(
    paths: RunPaths, info: RunInfo, settings: FitSettings, asked: Mapping[str, object]
) -> None:
    """Write what makes a folder a run; `run.json` comes last, see `recognise_run`."""
    make_folder(paths.root)
    remove_leftovers(paths.root)
    atomic_write_json(paths.environment, snapshot())
    atomic_write_text(paths.asked, mapping_to_yaml(asked))
    atomic_write_text(paths.config, to_yaml(settings))
    write_run(paths, info)


def save_model(paths: RunPaths, modules: Mapping[str, nn.Module], *, base_sha256: str) -> str:
    """Write the trained networks, one file each, and return the model's identity (SHA-256)."""
    with atomic_folder(paths.model) as folder:
        hashes = {}
        for name, module in modules.items():
            file = folder / f"{name}.safetensors"
            write_tensors(file, module.state_dict())
            hashes[name] = file_sha256(file)
        identity = text_sha256(f"{base_sha256} {sorted(hashes.items())}")
        atomic_write_json(folder / _MODEL, {"sha256": identity, "files": hashes})
    return identity


def load_model(paths: RunPaths, modules: Mapping[str, nn.Module]) -> None:
    """Read the trained networks strictly.

    Raises:
        WeightsError: Naming a file that is missing or not what was saved, or tensors that do not
            fit.
    """
    try:
        saved = read_json(paths.model / _MODEL)["files"]
        assert isinstance(saved, dict)
    except (OutputError, KeyError, AssertionError) as error:
        raise WeightsError(f"'{paths.model}' has no readable {_MODEL}") from error
    for name, module in modules.items():
        file = paths.model / f"{name}.safetensors"
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"weights '{file}' cannot be read: {error}") from error
        if file_sha256(file) != saved.get(name):
            raise WeightsError(
                f"weights '{file}' are not what the training saved",
                hint="bring back the file of this run, or train it again with a new --out",
            )
        load_strictly(module, state, where=str(file))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load a state dict, listing every missing, unexpected or misshapen tensor.

    Raises:
        WeightsError: If anything does not fit.
    """
    if problems := misfits(module.state_dict(), state):
        raise WeightsError(
            f"'{where}' is of another architecture: {problems}",
            hint="use the base and settings it was trained with",
        )
    module.load_state_dict(dict(state))


@dataclass
class LoadedRun:
    """A trained generator, ready to sample."""

    paths: RunPaths
    info: RunInfo
    settings: FitSettings
    base: Space
    generator: Generator

    @property
    def latent_base(self) -> Base:
        """The base, for what only a generator on a base can do.

        Raises:
            WeightsError: If the generator works on pixels.
        """
        if not isinstance(self.base, Base):
            raise WeightsError(
                f"run '{self.paths.root}' ('{self.info.generator}') works on pixels, without a base"
            )
        return self.base


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
    own = generator_class(info.generator).own_space(settings)
    loaded = own if own is not None else _base_of(paths, info, base)
    reference = loaded.reference
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


def _base_of(paths: RunPaths, info: RunInfo, base: str | None) -> Base:
    """The base of a run: where it is said to be, carried inside the run, or where it was."""
    reference = base or info.base["reference"]
    assert reference is not None
    if base is None and paths.base.is_dir():
        return load_base(paths.base)
    try:
        return load_base(reference)
    except WeightsError as error:
        raise WeightsError(
            f"the base of run '{paths.root}' cannot be loaded: {error.message}",
            hint="say where it is now with --base",
        ) from error


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 20 else text
