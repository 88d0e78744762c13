"""`siamdiff compare`: every generator and seed, cell by cell, then one table and one panel.

All methods get the same pairs, prompts, masks, seeds, updates and effective batch. What is done is
kept: the same command continues, and generators or seeds may be added.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from siamese_diffusion.comparison.cells import Cell, Material, Runner, siamdiff, work
from siamese_diffusion.comparison.panel import panel
from siamese_diffusion.comparison.reference import write_reference
from siamese_diffusion.comparison.scores import HEADINGS, NEEDS
from siamese_diffusion.comparison.settings import CompareSettings
from siamese_diffusion.comparison.table import Row, markdown
from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    make_folder,
    read_json,
)
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import ComparePaths
from siamese_diffusion.data.images import encode_png
from siamese_diffusion.data.pairs import PairFolder

KIND = "comparison"
PROPOSED = "siamese"  # the others are held against it where it takes part
logger = logging.getLogger(__name__)


def compare(
    data: Path | str,
    out: Path | str,
    settings: CompareSettings,
    *,
    device: str | None = None,
    run: Runner = siamdiff,
) -> Path:
    """Fit, sample and score every generator with every seed; the same call continues.

    Args:
        data: Data-set folder with training and held-out pairs.
        out: New, empty, or begun by the same comparison.
        settings: The terms.
        device: "cpu" or "cuda"; None takes what is there.
        run: Runs the command line; a child process by default.

    Returns:
        The table's file.

    Raises:
        ConfigError: For an unknown generator or setting, before anything is trained.
        DataError: If there are no held-out pairs.
        OutputError: If `out` belongs to another comparison.
        Interrupted: If it was stopped; finished cells and stages are kept.
    """
    paths = ComparePaths(Path(out))
    size = check_terms(settings)
    train, held_out, masks = _folders(Path(data), settings)
    _claim(paths, settings, train, held_out, masks)
    reference = write_reference(masks, paths.reference, masks=settings.masks)
    material = Material(Path(data), train, held_out, reference, train.pairs[0].prompt)
    # seed by seed: after the first round every method has a number
    cells = [
        Cell(paths.root, name, seed)
        for seed in range(settings.seeds)
        for name in settings.generators
    ]
    for number, cell in enumerate(cells, start=1):
        logger.info("cell %d of %d: %s, seed %d", number, len(cells), cell.generator, cell.seed)
        work(cell, settings, material, run=run, device=device)
        write_results(paths, cells[:number], reference, size=size)
    return paths.table


def check_terms(settings: CompareSettings) -> int:
    """Resolve every method's settings and return the common image size.

    Raises:
        ConfigError: Naming what is unknown or impossible.
        WeightsError: If an extractor's weights are not the ones expected.
    """
    from siamese_diffusion.generators.fitting import resolve_settings
    from siamese_diffusion.metrics.extractors import loader
    from siamese_diffusion.metrics.settings import ScoreSettings

    for extractor, path in settings.extractors.items():
        if extractor not in NEEDS.values():
            raise ConfigError(
                f"extractor '{extractor}' serves no score of a comparison",
                hint=f"choose from: {', '.join(NEEDS.values())}",
            )
        loader(extractor).load(path, ScoreSettings())  # wrong weights are told of before training
    sizes = set()
    for name in settings.generators:
        _, resolved = resolve_settings(
            generator=name,
            preset=settings.fit_presets(name),
            overrides=settings.fit_overrides(0),
        )
        sizes.add(resolved.data.size)
    (size,) = sizes  # presets and overrides are the same for all
    return size


def write_results(
    paths: ComparePaths, cells: Sequence[Cell], reference: PairFolder, *, size: int
) -> None:
    """Table, its numbers and the panel of the cells that are finished."""
    names = list(dict.fromkeys(cell.generator for cell in cells))
    rows = [_row(name, [cell for cell in cells if cell.generator == name]) for name in names]
    reference_method = PROPOSED if PROPOSED in names and len(names) > 1 else None
    atomic_write_text(paths.table, markdown(rows, HEADINGS, reference=reference_method))
    numbers = {row.generator: {"scores": row.scores, "costs": row.costs} for row in rows}
    atomic_write_json(paths.numbers, numbers)
    first = {cell.generator: cell.synthetic for cell in cells if cell.seed == 0}
    atomic_write_bytes(paths.panel, encode_png(panel(reference, first, size=size)))


def _row(name: str, cells: Sequence[Cell]) -> Row:
    scores: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    for cell in cells:
        for key, value in flatten(read_json(cell.scores)).items():
            scores.setdefault(key.partition(".")[2], []).append(float(str(value)))
        for key, value in read_json(cell.cost).items():
            costs.setdefault(key, []).append(float(str(value)))
    return Row(name, scores, costs)


def _folders(data: Path, settings: CompareSettings) -> tuple[PairFolder, PairFolder, PairFolder]:
    split = settings.split
    if split is None and (data / "train.txt").exists():
        split = "train"
    train = PairFolder.open(data, split=split)
    if not (data / f"{settings.held_out}.txt").exists():
        raise DataError(
            f"'{data}' has no list '{settings.held_out}.txt' of held-out pairs",
            hint="write one with a stem a line, or name another list with --held-out",
        )
    held_out = PairFolder.open(data, split=settings.held_out)
    shared = set(train.stems) & set(held_out.stems)
    if shared:
        raise DataError(
            f"{len(shared)} held-out pairs of '{settings.held_out}' are also trained on, "
            f"e.g. '{min(shared)}'",
            hint="name the training pairs with --split, apart from the held-out ones",
        )
    mask_split = settings.mask_split
    masks = train if mask_split is None else PairFolder.open(data, split=mask_split)
    return train, held_out, masks


def _claim(
    paths: ComparePaths,
    settings: CompareSettings,
    train: PairFolder,
    held_out: PairFolder,
    masks: PairFolder,
) -> None:
    """Begin in a new folder, or recognise the folder as this comparison."""
    names = ("train", "held_out", "masks")
    fixed: dict[str, object] = {
        **settings.fixed(),
        **{
            f"fingerprint.{name}": folder.fingerprint()
            for name, folder in zip(names, (train, held_out, masks), strict=True)
        },
    }
    if paths.record.exists():
        record = read_json(paths.record)
        old = record.get("fixed")
        old = old if isinstance(old, dict) else {}
        changes = [
            f"{key}: {old.get(key)} -> {fixed.get(key)}"
            for key in {**old, **fixed}
            if old.get(key) != fixed.get(key)
        ]
        if record.get("kind") != KIND or changes:
            raise OutputError(
                f"'{paths.root}' belongs to another comparison: {'; '.join(changes)}",
                hint="choose another --out, or repeat its settings to continue it",
            )
        return
    if paths.root.exists() and any(paths.root.iterdir()):
        raise OutputError(
            f"'{paths.root}' is not empty and holds no comparison", hint="choose another --out"
        )
    make_folder(paths.root)
    record = {"kind": KIND, "format": FORMAT, "fixed": fixed, "environment": snapshot()}
    atomic_write_json(paths.record, record)
