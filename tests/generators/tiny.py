"""The smallest useful `fit`, in this process or as the command line in one of its own."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from siamese_diffusion.core.artifacts import read_jsonl

TINY = (
    "data.size=64",
    "train.steps=8",
    "train.batch_size=2",
    "train.learning_rate=1e-3",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.validate_every=0",
    "train.sample_every=0",
    "train.tensorboard=false",
    "preview.pairs=1",
    "preview.steps=2",
    "preview.validation_pairs=1",
)
# Everything that keeps a state or could move one. K_tau is at step 8 / 3.
RICH = (
    "train.ema_decay=0.9",
    "train.warmup_steps=3",
    "train.decay=cosine",
    "train.micro_batch_size=1",
    "train.max_gradient_norm=1.0",
    "train.validate_every=3",
    "train.sample_every=5",
    "objective.augment_below_timestep=600",
)


def processes() -> ForkServerContext:
    """Processes that start with everything imported, off a server that has never trained."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["siamese_diffusion.generators.fitting", "siamese_diffusion.generators.siamese"]
    )
    return context


def command(data: Path, base: Path, out: Path, *overrides: str, verb: str = "fit") -> list[str]:
    """The command line of a tiny fit."""
    line = [verb, "--data", str(data), "--base", str(base), "--out", str(out), "--device", "cpu"]
    for override in overrides:
        line += ["--set", override]
    return line


def start(
    line: Sequence[str], says: Path, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Run `siamdiff` with these arguments; `says` gets what it prints."""
    process = processes().Process(target=_main, args=(list(line), says, dict(environment or {})))
    process.start()
    return process


def run(line: Sequence[str], says: Path) -> int:
    """Run `siamdiff` to its end and give its exit code."""
    process = start(line, says)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _main(line: list[str], says: Path, environment: Mapping[str, str]) -> None:
    import torch

    from siamese_diffusion.cli.main import main

    torch.set_num_threads(1)
    os.environ.update(environment)
    sys.argv = ["siamdiff", *line]
    with says.open("w", buffering=1) as handle:
        sys.stdout = sys.stderr = handle
        main()


def model_of(run: Path) -> dict[str, bytes]:
    """The weights files of a run."""
    files = sorted((run / "model").iterdir())
    assert [file.name for file in files] == [
        "control.safetensors",
        "decoder.safetensors",
        "model.json",
    ]
    return {file.name: file.read_bytes() for file in files}


def events(run: Path, name: str) -> list[dict[str, object]]:
    """The lines of a run's log of one kind, without what the clock says."""
    clock = ("seconds", "samples_per_second", "peak_memory_mb")
    return [
        {key: value for key, value in record.items() if key not in clock}
        for record in read_jsonl(run / "log.jsonl")
        if record["event"] == name
    ]
