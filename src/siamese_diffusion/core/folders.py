"""Names inside the folders we write. The only module that knows file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Names inside a run folder (a fine-tuned generator)."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def asked(self) -> Path:
        return self.root / "config.asked.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def log(self) -> Path:
        return self.root / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def cache(self) -> Path:
        return self.root / "data"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def base(self) -> Path:
        """A base carried inside the run (imports of merged release checkpoints)."""
        return self.root / "base"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def sample_grid(self, step: int) -> Path:
        return self.samples / f"step-{step:08d}.png"


@dataclass(frozen=True)
class SegmenterPaths(RunPaths):
    """Names inside the run folder of a segmenter; those of every run, and its own."""

    @property
    def training(self) -> Path:
        """Which pairs it was trained on, and what is known of the synthetic ones."""
        return self.root / "training.json"

    @property
    def result(self) -> Path:
        """Scores, if no other place was asked for."""
        return self.root / "result.json"

    @property
    def best(self) -> Path:
        """Weights of the best validation so far."""
        return self.root / "best.safetensors"

    @property
    def weights(self) -> Path:
        return self.model / "segmenter.safetensors"


def worst_cases(result: Path, name: str) -> Path:
    """Picture of the worst cases of a test set, beside the file of a segmenter's scores."""
    return result.with_name(f"{result.stem}_worst_{name}.png")


@dataclass(frozen=True)
class UtilityPaths:
    """Names inside the folder of a utility curve."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def result(self) -> Path:
        return self.root / "utility.json"

    @property
    def page(self) -> Path:
        return self.root / "utility.md"

    def cell(self, name: str) -> Path:
        """Run folder of one cell."""
        return self.root / "cells" / name

    def cell_result(self, name: str) -> Path:
        return SegmenterPaths(self.cell(name)).result


@dataclass(frozen=True)
class SyntheticPaths:
    """Names inside a synthetic set, which is a data-set folder with a plan and a manifest."""

    root: Path

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def masks(self) -> Path:
        return self.root / "masks"

    @property
    def prompt(self) -> Path:
        return self.root / "prompt.txt"

    @property
    def plan_header(self) -> Path:
        return self.root / "plan.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.jsonl"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.jsonl"

    @property
    def claims(self) -> Path:
        return self.root / "claims"

    @property
    def filter(self) -> Path:
        """What a filtered set was made from; such a set has no plan."""
        return self.root / "filter.json"

    @property
    def rejected(self) -> Path:
        """Manifest lines of what a filter left out."""
        return self.root / "rejected.jsonl"

    def image(self, item: str) -> Path:
        return self.images / f"{item}.png"

    def mask(self, item: str) -> Path:
        return self.masks / f"{item}.png"


@dataclass(frozen=True)
class AuditPaths:
    """Names inside the folder of an audit."""

    root: Path

    @property
    def memorisation(self) -> Path:
        return self.root / "memorisation.json"

    @property
    def near_copies(self) -> Path:
        return self.root / "near_copies.png"

    @property
    def artefacts(self) -> Path:
        return self.root / "artefacts.json"

    @property
    def alignment(self) -> Path:
        return self.root / "alignment.json"

    @property
    def worst_pairs(self) -> Path:
        return self.root / "worst_pairs.png"

    @property
    def found(self) -> Path:
        """What segmenters found in the worst pairs, as masks."""
        return self.root / "worst_pairs"

    def found_in(self, stem: str) -> Path:
        return self.found / f"{stem}.png"


@dataclass(frozen=True)
class ComparePaths:
    """Names inside the folder of a comparison."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "compare.json"

    @property
    def reference(self) -> Path:
        return self.root / "reference"

    @property
    def table(self) -> Path:
        return self.root / "table.md"

    @property
    def numbers(self) -> Path:
        return self.root / "table.json"

    @property
    def panel(self) -> Path:
        return self.root / "panel.png"


@dataclass(frozen=True)
class StudyPaths:
    """Names inside a study folder, which holds nothing that tells a source."""

    root: Path

    @property
    def study(self) -> Path:
        return self.root / "study.json"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def store(self) -> Path:
        return self.root / "ratings.sqlite3"


@dataclass(frozen=True)
class StudyKeyPaths:
    """Names inside the folder that unblinds a study: kept apart, never served."""

    root: Path

    @property
    def key(self) -> Path:
        return self.root / "key.json"

    @property
    def links(self) -> Path:
        return self.root / "links.csv"
