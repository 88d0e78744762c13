"""The run folder of a segmenter: what it is, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    make_folder,
    read_json,
)
from siamese_diffusion.core.config import changed_keys, flatten, mapping_to_yaml, resolve, to_yaml
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.segmentation import SEGMENTERS
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.checkpoints import load_exactly
from siamese_diffusion.segmentation.settings import SegmentSettings

KIND = "segmenter"
TRAINING, COMPLETE = "training", "complete"


class _Built(Protocol):
    def __call__(self, settings: object, /) -> Segmenter: ...


@dataclass(frozen=True)
class SegmenterInfo:
    """What `run.json` says; the field names are its keys.

    Attributes:
        model: Name of the network.
        state: "training" or "complete".
        steps: Updates of the whole training.
        data: Real set, synthetic set, split, composition and fingerprints.
        encoder_weights: File and hash of the encoder's start; None for random weights.
        weights_sha256: Of the trained network, once there.
        chosen: Which weights these are: "last", or "best" of the validation.
    """

    model: str
    state: str
    steps: int
    data: dict[str, Any]
    encoder_weights: dict[str, str] | None
    weights_sha256: str | None
    chosen: str


def settings_class(model: str) -> type[SegmentSettings]:
    """The settings of a network's runs.

    Raises:
        ConfigError: With all names, if the network is unknown.
    """
    return cast("type[Segmenter]", SEGMENTERS[model]).Settings


def build_segmenter(settings: SegmentSettings) -> Segmenter:
    """A network with fresh weights that depend on the seed alone."""
    built = cast("_Built", SEGMENTERS[settings.model])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return built(getattr(settings, "network"))  # noqa: B009


def read_segmenter_run(paths: SegmenterPaths) -> tuple[SegmenterInfo, SegmentSettings]:
    """What a run folder says of itself.

    Raises:
        OutputError: If it is no run of a segmenter, or one of a newer format.
    """
    if not paths.run.exists() or read_json(paths.run).get("kind") != KIND:
        raise OutputError(
            f"'{paths.root}' is not the run folder of a segmenter",
            hint="give the --out of `siamdiff segment fit`",
        )
    content = read_json(paths.run)
    if content.get("format") != FORMAT:
        raise OutputError(
            f"'{paths.root}' has format {content.get('format')}; this version reads {FORMAT}",
            hint="use the version of siamese-diffusion that wrote it",
        )
    info = SegmenterInfo(**{f.name: cast("Any", content[f.name]) for f in fields(SegmenterInfo)})
    return info, resolve(settings_class(info.model), file=paths.config)


def write_segmenter_run(paths: SegmenterPaths, info: SegmenterInfo) -> None:
    """Write `run.json`."""
    atomic_write_json(paths.run, {"kind": KIND, "format": FORMAT, **asdict(info)})


def claim_segmenter_run(
    paths: SegmenterPaths,
    info: SegmenterInfo,
    settings: SegmentSettings,
    asked: Mapping[str, object],
) -> SegmenterInfo:
    """Begin a run in a new folder, or recognise the folder as this very run.

    Raises:
        OutputError: If the folder holds something else or another run, naming the differences.
    """
    if paths.run.exists():
        before, old = read_segmenter_run(paths)
        differences = (
            changed_keys(old, settings)
            if old.model == settings.model
            else [f"model: {old.model} -> {settings.model}"]
        )
        was, now = (flatten({"data": i.data, "encoder": i.encoder_weights}) for i in (before, info))
        differences += [
            f"{key}: {was.get(key)} -> {now.get(key)}"
            for key in {**was, **now}
            if was.get(key) != now.get(key) and not key.endswith(("root", "path"))
        ]
        if differences:
            raise OutputError(
                f"'{paths.root}' belongs to another run: {'; '.join(differences)}",
                hint="choose another --out, or repeat the settings of the run to continue it",
            )
        return before
    if paths.root.exists() and any(p.name[0] != "." for p in paths.root.iterdir()):
        raise OutputError(
            f"'{paths.root}' is not empty and is no run folder", hint="choose another --out"
        )
    make_folder(paths.root)
    atomic_write_text(paths.config, to_yaml(settings))
    atomic_write_text(paths.asked, mapping_to_yaml(asked))
    atomic_write_json(paths.environment, snapshot())
    write_segmenter_run(paths, info)
    return info


def save_segmenter(paths: SegmenterPaths, model: Segmenter) -> str:
    """Write the trained network and return the hash of its file."""
    with atomic_folder(paths.model) as folder:
        state = {n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}
        save_file(state, folder / paths.weights.name)
    return file_sha256(paths.weights)


def load_segmenter(root: Path) -> tuple[Segmenter, SegmentSettings, SegmenterInfo]:
    """A trained network, ready to predict.

    Raises:
        OutputError: If the folder is no run of a segmenter, or one that is not finished.
        WeightsError: If its weights are missing or damaged.
    """
    paths = SegmenterPaths(root)
    info, settings = read_segmenter_run(paths)
    if info.state != COMPLETE:
        raise OutputError(
            f"the training in '{root}' is not finished ({info.steps} updates asked)",
            hint="repeat its `siamdiff segment fit` command to continue it",
        )
    model = build_segmenter(settings)
    load_weights(model, paths.weights)
    return model.requires_grad_(False).eval(), settings, info


def load_weights(model: Segmenter, path: Path) -> None:
    """Read weights that a run wrote.

    Raises:
        WeightsError: If the file is missing, damaged or of another network.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"weights '{path}' cannot be read: {error}") from error
    load_exactly(model, state, where=str(path))
