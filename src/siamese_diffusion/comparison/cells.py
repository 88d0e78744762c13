"""One cell of a comparison: a generator with a seed, fitted, sampled, scored, its cost noted.

Each stage leaves a file or folder and is not repeated once that is whole.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from types import FrameType

from safetensors import safe_open

from siamese_diffusion.comparison.scores import Sets, score, wanted
from siamese_diffusion.comparison.settings import SCALES, CompareSettings
from siamese_diffusion.core.artifacts import atomic_write_json, read_json, read_jsonl
from siamese_diffusion.core.config import read_yaml
from siamese_diffusion.core.errors import EXIT_INTERRUPTED, ConfigError, Interrupted
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder

# Runs the command line with these arguments and returns its exit code.
Runner = Callable[[Sequence[str]], int]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Cell:
    """Names of one cell's files."""

    root: Path
    generator: str
    seed: int

    @property
    def folder(self) -> Path:
        return self.root / "cells" / self.generator / f"seed-{self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def synthetic(self) -> Path:
        return self.folder / "set"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def cost(self) -> Path:
        return self.folder / "cost.json"


@dataclass(frozen=True)
class Material:
    """What all cells share.

    Attributes:
        data: The data-set folder.
        train, held_out: Its training pairs, and pairs that nothing is trained on.
        reference: Pairs whose masks are sampled.
        prompt: Of every image.
    """

    data: Path
    train: PairFolder
    held_out: PairFolder
    reference: PairFolder
    prompt: str


def work(
    cell: Cell,
    settings: CompareSettings,
    material: Material,
    *,
    run: Runner,
    device: str | None = None,
) -> None:
    """Bring a cell from wherever it is to its end.

    Raises:
        Interrupted: If a stage was stopped; what is finished is kept.
        ConfigError: If the fit failed; it has told why.
    """
    takes_images = _fit(cell, settings, material, run=run, device=device)
    _sample(cell, settings, material, takes_images=takes_images, device=device)
    _score(cell, settings, material)


def _fit(
    cell: Cell, settings: CompareSettings, material: Material, *, run: Runner, device: str | None
) -> bool:
    """Train in a process of its own, so that memory is this method's; whether it takes images."""
    from siamese_diffusion.generators.fitting import resolve_settings
    from siamese_diffusion.generators.run_folder import generator_class

    kind = generator_class(cell.generator)
    paths = RunPaths(cell.run)
    if not paths.run.exists() or read_json(paths.run).get("state") != "complete":
        _, resolved = resolve_settings(
            generator=cell.generator, preset=settings.fit_presets(cell.generator)
        )
        own = kind.own_space(resolved) is not None
        arguments = ["fit", "--data", str(material.data), "--out", str(cell.run)]
        arguments += ["--generator", cell.generator]
        arguments += ["--preset", settings.fit_presets(cell.generator)]
        arguments += [] if own else ["--base", settings.base]
        arguments += [] if material.train.split is None else ["--split", material.train.split]
        arguments += [] if device is None else ["--device", device]
        for override in settings.fit_overrides(cell.seed):
            arguments += ["--set", override]
        code = run(arguments)
        if code == EXIT_INTERRUPTED:
            raise Interrupted(
                f"stopped while '{cell.generator}' was fitted (seed {cell.seed})",
                hint="repeat the same command to continue",
            )
        if code != 0:
            raise ConfigError(
                f"fitting '{cell.generator}' (seed {cell.seed}) failed with exit code {code}",
                hint="its own message stands above; mend that and repeat the command",
            )
    return kind.control == "mask+image"


def _sample(
    cell: Cell,
    settings: CompareSettings,
    material: Material,
    *,
    takes_images: bool,
    device: str | None,
) -> None:
    from siamese_diffusion.sampling.bulk import sample

    if cell.cost.exists():
        return
    done = sample(
        cell.run,
        material.reference.root,
        cell.synthetic,
        steps=settings.sampling_steps(cell.generator),
        guidance_scale=SCALES[settings.scale].guidance_scale,
        seed=cell.seed,
        prompt=material.prompt,
        images=material.reference.root if takes_images else None,
        device=device,
    )
    cost = training_cost(RunPaths(cell.run))
    if done.made:
        cost["sampling_seconds"] = done.seconds / done.made
    atomic_write_json(cell.cost, cost)


def _score(cell: Cell, settings: CompareSettings, material: Material) -> None:
    """Compute the scores that are not there yet."""
    stored = read_json(cell.scores) if cell.scores.exists() else {}
    sets = Sets(
        material.train,
        material.held_out,
        material.reference,
        PairFolder.open(SyntheticPaths(cell.synthetic).root),
        settings.extractors,
    )
    for name in wanted(settings.extractors):
        if name in stored:
            continue
        stored[name] = score(name, sets)
        atomic_write_json(cell.scores, stored)


def training_cost(paths: RunPaths) -> Numbers:
    """Parameters trained, seconds an update and peak memory of a finished run; {} untrained."""
    records = [r for r in read_jsonl(paths.log) if r.get("event") == "train"]
    if not records:
        return {"trained_parameters": 0.0}
    speeds = [float(str(r["samples_per_second"])) for r in records]
    batch = _batch_size(paths)
    return {
        "trained_parameters": float(_trained_parameters(paths)),
        # the first interval includes warming up
        "step_seconds": batch / median(speeds[1:] or speeds),
        "peak_memory_mb": max(float(str(r["peak_memory_mb"])) for r in records),
    }


def _batch_size(paths: RunPaths) -> int:
    train = read_yaml(paths.config)["train"]
    assert isinstance(train, dict)
    return int(train["batch_size"])


def _trained_parameters(paths: RunPaths) -> int:
    """Counted from the last checkpoint's header."""
    last = max(paths.checkpoints.iterdir())
    with safe_open(str(last / "weights.safetensors"), framework="numpy") as stored:
        return sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118


def siamdiff(arguments: Sequence[str]) -> int:
    """Run the command line in a child process that is stopped when this one is."""
    print("$ siamdiff " + " ".join(arguments), file=sys.stderr, flush=True)
    child = subprocess.Popen([sys.executable, "-m", "siamese_diffusion", *arguments])
    if threading.current_thread() is not threading.main_thread():
        return child.wait()

    def stop(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return child.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
