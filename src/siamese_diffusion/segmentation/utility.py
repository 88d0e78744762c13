"""`utility`: the curve of score against folds of synthetic data, cell by cell (Figure 7).

A cell is one training set and one seed: a run folder and its result. Killed at any moment, the
same command goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_write_json,
    atomic_write_text,
    make_folder,
    read_json,
)
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import SegmenterPaths, UtilityPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.definitions import PER_IMAGE, find_protocols
from siamese_diffusion.segmentation.evaluation import evaluate
from siamese_diffusion.segmentation.fitting import plan_segment, resolve_settings, run_segment
from siamese_diffusion.segmentation.mixture import MAX_RATIO
from siamese_diffusion.segmentation.provenance import read_provenance
from siamese_diffusion.segmentation.utility_curve import (
    Curve,
    Floats,
    conclusions,
    describe_curve,
    make_curve,
)

logger = logging.getLogger(__name__)
REAL = "real"
COPY_PASTE = "copy-paste"
AUGMENTED = "classical augmentation"
BASELINES = (COPY_PASTE, AUGMENTED)
# Of the baseline with classical augmentation, on top of the recipe's own.
_AUGMENT = (
    "augment.flip_horizontal=0.5",
    "augment.flip_vertical=0.5",
    "augment.quarter_turns=0.5",
    "augment.rotation=30",
    "augment.photometric=true",
)


@dataclass(frozen=True)
class Cell:
    """One training set and one seed."""

    arm: str
    folds: float
    seed: int
    synthetic: Path | None = None

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.arm.replace(' ', '-')}-{self.folds:g}-seed{self.seed}"


def measure_utility(
    model: str,
    real: Path | str,
    synthetic: Sequence[Path | str],
    out: Path | str,
    *,
    folds: Sequence[float] = (0, 0.5, 1, 2, 3, 4),
    seeds: int = 3,
    test: Path | str | None = None,
    splits: Sequence[str] = ("test",),
    protocol: str = "polyp",
    baselines: bool = True,
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    encoder_weights: Path | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Curve:
    """Train and score every cell that is missing, then write the curve.

    Args:
        model: Name in the table of segmenters.
        real: Real pairs.
        synthetic: Synthetic sets, for instance one of real and one of random masks.
        out: Folder of the curve; the same command continues it.
        folds: Synthetic pairs for each real one; 0 is always part of it.
        seeds: How many; 0, 1, ...
        test: Where the test lists are; None takes `real`.
        splits: Test lists, scored as one set of images.
        protocol: "polyp" or "segformer", whose mDice has values for each image.
        baselines: Also train on the real set duplicated and with classical augmentation.
        preset, config, overrides, encoder_weights: As for `segment fit`. Under `train.epochs`
            more folds mean more updates, as in the paper; `train.steps` keeps their number.
        device: "cpu" or "cuda"; None takes what is there.
        quiet: No progress bars.

    Raises:
        ConfigError: For folds or seeds out of range, or a protocol without values per image.
        OutputError: If `out` holds another curve.
        SiamDiffError: Whatever a cell meets.
    """
    measure, size = _measure(protocol)
    wanted = _folds(folds)
    if not 1 <= seeds <= 100:
        raise ConfigError(f"--seeds {seeds} is out of range; 1 to 100 are allowed")
    if not synthetic:
        raise ConfigError("utility needs a synthetic set", hint="add --synthetic FOLDER")
    sets = _labelled([Path(s) for s in synthetic])
    asked, settings = resolve_settings(model, preset=preset, config=config, overrides=overrides)
    # The largest set of every label must exist before the first cell is trained.
    for path in sets.values():
        plan_segment(real, settings=settings, asked=asked, synthetic=path, ratio=max(wanted))
    where = Path(test) if test is not None else Path(real)
    for split in splits:
        PairFolder.open(where, split=split)
    cells = [
        Cell(arm, fold, seed, path)
        for arm, fold, path in _arms(sets, wanted, baselines=baselines)
        for seed in range(seeds)
    ]
    paths = UtilityPaths(Path(out))
    _claim(
        paths,
        {
            "model": model,
            "settings": settings.model_dump(mode="json"),
            "real": str(Path(real).resolve()),
            "synthetic": {label: str(path.resolve()) for label, path in sets.items()},
            "test": str(where.resolve()),
            "splits": list(splits),
            "protocol": protocol,
            "encoder_weights": None if encoder_weights is None else str(encoder_weights.resolve()),
            "folds": wanted,
            "seeds": seeds,
            "baselines": baselines,
        },
    )
    for number, cell in enumerate(cells, start=1):
        result = paths.cell_result(cell.name)
        if result.is_file():
            continue
        logger.info("cell %d of %d: %s", number, len(cells), cell.name)
        extra = _AUGMENT if cell.arm == AUGMENTED else ()
        asked, settings = resolve_settings(
            model,
            preset=preset,
            config=config,
            overrides=[*overrides, *extra],
            seed=cell.seed,
        )
        plan = plan_segment(
            real,
            settings=settings,
            asked=asked,
            synthetic=cell.synthetic,
            ratio=cell.folds if cell.synthetic is not None else None,
            copy_paste=cell.arm == COPY_PASTE,
            encoder_weights=encoder_weights,
        )
        run = run_segment(plan, paths.cell(cell.name), device=device, quiet=quiet)
        evaluate(
            run, where, result, splits=splits, worst=False, resamples=0, device=device, quiet=quiet
        )
        shutil.rmtree(SegmenterPaths(run).checkpoints, ignore_errors=True)
    curve = make_curve(_collect(paths, cells, measure, size), real=(REAL, 0.0), baselines=BASELINES)
    atomic_write_json(
        paths.result,
        {
            "kind": "utility",
            "format": FORMAT,
            **read_json(paths.plan),
            "measure": measure,
            "size": size,
            "curve": asdict(curve),
            "conclusions": conclusions(curve),
            "environment": snapshot(),
        },
    )
    atomic_write_text(paths.page, describe_curve(curve, f"Dice ({measure}, {size} size)"))
    return curve


def _arms(
    sets: Mapping[str, Path], folds: Sequence[float], *, baselines: bool
) -> list[tuple[str, float, Path | None]]:
    arms: list[tuple[str, float, Path | None]] = [(REAL, 0.0, None)]
    if baselines:
        arms += [(COPY_PASTE, 1.0, None), (AUGMENTED, 0.0, None)]
    return arms + [(label, f, path) for label, path in sets.items() for f in folds if f > 0]


def _folds(folds: Sequence[float]) -> list[float]:
    wrong = [f for f in folds if not 0 <= f <= MAX_RATIO]
    if wrong:
        raise ConfigError(
            f"--folds {', '.join(f'{f:g}' for f in wrong)} is out of range; 0 to {MAX_RATIO:g} "
            "synthetic pairs for each real one are allowed"
        )
    found = sorted({float(f) for f in folds} | {0.0})
    if len(found) == 1:
        raise ConfigError("--folds has no value above 0", hint="for instance --folds 0,1,2")
    return found


def _measure(protocol: str) -> tuple[str, str]:
    found = find_protocols(protocol)
    if len(found) != 1 or next(iter(found.values())).dice not in PER_IMAGE:
        raise ConfigError(
            f"protocol '{protocol}' has no score of its own for each image to pair",
            hint="choose polyp or segformer",
        )
    chosen = found[protocol]
    return chosen.dice, chosen.resolution


def _labelled(paths: Sequence[Path]) -> dict[str, Path]:
    """Synthetic sets by what their masks are, or by the folder's name where that is not unique."""
    recipes = []
    for path in paths:
        known = read_provenance(PairFolder.open(path))
        recipes.append(path.resolve().name if known is None else f"{known.recipe} masks")
    unique = len(set(recipes)) == len(recipes)
    labels = recipes if unique else [path.resolve().name for path in paths]
    taken = {REAL, *BASELINES}
    if len(set(labels)) < len(labels) or taken & set(labels):
        raise ConfigError(
            f"the synthetic sets {', '.join(labels)} cannot be told apart by their names",
            hint="rename one of the folders",
        )
    return dict(zip(labels, paths, strict=True))


def _claim(paths: UtilityPaths, plan: dict[str, object]) -> None:
    plan = json.loads(json.dumps(plan))
    if paths.plan.exists():
        old, new = flatten(read_json(paths.plan)), flatten(plan)
        differences = [
            f"{key}: {old.get(key)} -> {new.get(key)}"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
        if differences:
            raise OutputError(
                f"'{paths.root}' holds another curve: {'; '.join(differences)}",
                hint="choose another --out, or repeat the old command to continue it",
            )
        return
    if paths.root.exists() and any(paths.root.iterdir()):
        raise OutputError(
            f"'{paths.root}' is not empty and holds no utility curve", hint="choose another --out"
        )
    make_folder(paths.root)
    atomic_write_json(paths.plan, plan)


def _collect(
    paths: UtilityPaths, cells: Sequence[Cell], measure: str, size: str
) -> dict[tuple[str, float], Floats]:
    """Scores (seeds, images) of each training set."""
    rows: dict[tuple[str, float], list[list[float]]] = {}
    for cell in cells:
        sets = read_json(paths.cell_result(cell.name))["sets"]
        assert isinstance(sets, dict)
        values = [
            float(image[size][measure][0]) for part in sets.values() for image in part["images"]
        ]
        rows.setdefault((cell.arm, cell.folds), []).append(values)
    found = {key: np.array(values, np.float64) for key, values in rows.items()}
    if next(iter(found.values())).shape[1] < 2:
        raise DataError("a utility curve needs two test images or more")
    return found
