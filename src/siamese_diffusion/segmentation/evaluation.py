"""Score a trained segmenter on test sets: every definition, at both sizes, in one pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from siamese_diffusion.core.artifacts import FORMAT, atomic_write_bytes, atomic_write_json
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.folders import SegmenterPaths, worst_cases
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.images import encode_png, resize_mask
from siamese_diffusion.data.pairs import PairFolder, read_image
from siamese_diffusion.segmentation.base import Segmenter
from siamese_diffusion.segmentation.counts import Counts, count_image, stack_counts
from siamese_diffusion.segmentation.definitions import (
    PER_IMAGE,
    PROTOCOLS,
    RESAMPLES,
    SWEEP,
    Absent,
    Protocol,
    Resolution,
    Score,
    find_protocols,
    image_values,
    score_set,
    score_sets,
)
from siamese_diffusion.segmentation.inference import predict
from siamese_diffusion.segmentation.leakage import (
    Overlap,
    find_overlap,
    read_training,
    refuse_overlap,
)
from siamese_diffusion.segmentation.run_folder import load_segmenter
from siamese_diffusion.segmentation.samples import RESIZE_STATEMENT, Pixels, resize_picture
from siamese_diffusion.training.processes import choose_device

logger = logging.getLogger(__name__)
SIZES: tuple[Resolution, Resolution] = ("mask", "network")
OVERALL = "overall"
WORST = 8  # pairs in the picture of the worst cases
_TILE = 192  # side of its tiles, in pixels


@dataclass(frozen=True)
class Measured:
    """One test set, counted.

    Attributes:
        folder: The set.
        counts: By size, in the order of the folder.
        overlap: Pairs that went into the segmenter and were scored nonetheless.
    """

    folder: PairFolder
    counts: Mapping[str, Counts]
    overlap: Overlap


def evaluate(
    run: Path | str,
    data: Path | str,
    out: Path | str | None = None,
    *,
    splits: Sequence[str] = (),
    protocol: str = "all",
    absent: Absent = "one",
    resamples: int = RESAMPLES,
    allow_overlap: bool = False,
    worst: bool = True,
    device: str | None = None,
    quiet: bool = False,
) -> dict[str, object]:
    """Score a segmenter.

    Args:
        run: Its run folder.
        data: Data-set folder.
        out: Where the result goes as JSON; None writes nothing.
        splits: Split lists, one test set each; none takes every pair as one set.
        protocol: Which table's mDice and mIoU to print first, or "all"; every definition is
            computed and stored in any case.
        absent: Rule for classes absent from truth and decision.
        resamples: Bootstrap resamples.
        allow_overlap: Score pairs that went into the segmenter, and record it.
        worst: Also write a picture of each set's worst cases beside `out`.
        device: "cpu" or "cuda"; None takes what is there.
        quiet: No progress bars.

    Returns:
        What is written: protocols, scores by set and size, values of each image.

    Raises:
        DataError: If a set cannot be used, or overlaps with what the segmenter was made from.
        SiamDiffError: For other things to mend; see `core.errors`.
    """
    protocols, where = find_protocols(protocol), choose_device(device)
    pictures = worst and out is not None
    if resamples < 0:
        raise ConfigError(f"resamples must be 0 or more, got {resamples}")
    names: Sequence[str | None] = splits or [None]
    folders = [PairFolder.open(Path(data), split=name) for name in names]
    shared = _shared_between(folders)
    for sentence in shared:
        logger.warning("%s", sentence)
    model, settings, info = load_segmenter(Path(run))
    record = read_training(SegmenterPaths(Path(run)))
    for note in record.unguarded:
        logger.warning("leakage guard: %s", note)
    overlaps = []
    for folder in folders:
        overlap = find_overlap(record, folder)
        if not allow_overlap:
            refuse_overlap(overlap, folder)
        overlaps.append(overlap)
    sets = []
    for folder, overlap in zip(folders, overlaps, strict=True):
        parts: dict[str, list[Counts]] = {size: [] for size in SIZES}
        side = settings.inputs.size
        label = folder.split or folder.root.name
        with ProgressBar(label, len(folder), enabled=not quiet) as bar:
            for row, (_, own, network) in enumerate(predict(model, folder.pairs, side, where)):
                mask = folder.mask(row)
                for size, found, truth in (
                    ("mask", own, mask),
                    ("network", network, resize_mask(mask, side)),
                ):
                    parts[size].append(count_image(found.grey, found.decision, truth > 127))
                bar.advance_to(row + 1)
        counts = {size: stack_counts(part) for size, part in parts.items()}
        sets.append(Measured(folder, counts, overlap))
    result: dict[str, object] = {
        "kind": "segmentation-result",
        "format": FORMAT,
        "run": str(Path(run).resolve()),
        "model": info.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_sha256": info.weights_sha256,
        "trained_on": info.data,
        "data": str(Path(data).resolve()),
        "network_size_px": settings.inputs.size,
        "resize": RESIZE_STATEMENT,
        "absent": absent,
        "bootstrap": {"resamples": resamples, "level": 0.95, "seed": 0},
        "overlap_allowed": allow_overlap,
        "unguarded": list(record.unguarded),
        "shared_between_sets": shared,
        "protocols": _protocol_scores(protocols, sets, absent, resamples),
        "sets": {
            _name(m): {
                **_describe(m, absent, resamples),
                "worst": [m.folder.stems[row] for row in _worst(m)] if pictures else [],
            }
            for m in sets
        },
        OVERALL: {
            size: _scores([m.counts[size] for m in sets], absent, resamples) for size in SIZES
        },
        "environment": snapshot(),
    }
    if out is not None:
        atomic_write_json(Path(out), _without_nan(result))
        if pictures:
            for measured in sets:
                path = worst_cases(Path(out), _name(measured))
                atomic_write_bytes(path, encode_png(_worst_cases(measured, model, side, where)))
    return result


def protocol_text(result: Mapping[str, object]) -> str:
    """The protocols of a result as a table, in per cent."""
    lines = [f"{'protocol':<12}{'set':<22}{'n':>6}{'mDice':>8}{'mIoU':>8}   95 % of mDice, mIoU"]
    protocols = result["protocols"]
    assert isinstance(protocols, Mapping)
    for name, rows in protocols.items():
        for row in rows["sets"]:
            ends = [row["mdice_interval"], row["miou_interval"]]
            spread = ", ".join(
                f"{100 * e[0]:.2f} to {100 * e[1]:.2f}" for e in ends if e is not None
            )
            lines.append(
                f"{name:<12}{row['set']:<22}{row['n']:>6}{100 * row['mdice']:>8.2f}"
                f"{100 * row['miou']:>8.2f}   {spread}"
            )
    return "\n".join(lines)


def _shared_between(folders: Sequence[PairFolder]) -> list[str]:
    """A sentence for each two sets that share pairs, as EndoScene and ColonDB do."""
    found = []
    for place, first in enumerate(folders):
        for second in folders[place + 1 :]:
            n = len(set(first.stems) & set(second.stems))
            if n:
                found.append(
                    f"splits '{first.split}' and '{second.split}' share {n} pairs, which count "
                    "twice in the overall score"
                )
    return found


def _protocol_scores(
    protocols: Mapping[str, Protocol], sets: Sequence[Measured], absent: Absent, resamples: int
) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, protocol in protocols.items():
        at = [m.counts[protocol.resolution] for m in sets]
        each = [score_set(c, absent=absent, resamples=resamples) for c in at]
        rows = [
            _protocol_row(_name(m), len(m.folder), protocol, s)
            for m, s in zip(sets, each, strict=True)
        ]
        if len(sets) > 1:
            together = score_sets(at, absent=absent, resamples=resamples)
            rows.append(_protocol_row(OVERALL, sum(len(c) for c in at), protocol, together))
        found[name] = {**asdict(PROTOCOLS[name]), "sets": rows}
    return found


def _protocol_row(
    name: str, n: int, protocol: Protocol, scores: Mapping[str, Score]
) -> dict[str, object]:
    dice, iou = scores[protocol.dice], scores[protocol.iou]
    return {
        "set": name,
        "n": n,
        "mdice": dice.dice,
        "miou": iou.iou,
        "mdice_interval": dice.dice_interval,
        "miou_interval": iou.iou_interval,
    }


def _describe(measured: Measured, absent: Absent, resamples: int) -> dict[str, object]:
    at_mask = measured.counts["mask"]
    values = {size: image_values(measured.counts[size], absent=absent) for size in SIZES}
    images = [
        {
            "stem": stem,
            **{
                size: {name: [float(v[row]) for v in values[size][name]] for name in PER_IMAGE}
                for size in SIZES
            },
        }
        for row, stem in enumerate(measured.folder.stems)
    ]
    return {
        "n": len(at_mask),
        "empty_truth": int(at_mask.empty.sum()),
        "constant_maps": int(at_mask.constant.sum()),
        "overlap": {reason: list(stems) for reason, stems in measured.overlap.stems.items()},
        "scores": {size: _scores([measured.counts[size]], absent, resamples) for size in SIZES},
        "images": images,
    }


def _scores(sets: Sequence[Counts], absent: Absent, resamples: int) -> dict[str, object]:
    found = score_sets(sets, absent=absent, resamples=resamples)
    return {name: asdict(score) for name, score in found.items()}


def _name(measured: Measured) -> str:
    return measured.folder.split or measured.folder.root.resolve().name


def _worst_cases(measured: Measured, model: Segmenter, size: int, device: torch.device) -> Pixels:
    """Tiles of the worst pairs: picture with true outline (green) and predicted (magenta)."""
    order = _worst(measured)
    pairs = [measured.folder.pairs[row] for row in order]
    tiles = []
    for row, (pair, own, _) in zip(order, predict(model, pairs, size, device), strict=True):
        picture = read_image(pair).copy()
        truth = measured.folder.mask(row) > 127
        picture[outline(truth)] = (0, 255, 0)
        picture[outline(own.decision)] = (255, 0, 255)
        tiles.append(resize_picture(picture, _TILE))
    return np.concatenate(tiles, 1)


def _worst(measured: Measured) -> list[int]:
    """Rows of the pairs of lowest Dice, the lowest first."""
    dice = image_values(measured.counts["mask"])[SWEEP][0]
    return [int(row) for row in np.argsort(dice, kind="stable")[:WORST]]


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Foreground pixels with a neighbour that is none, two pixels wide, (H, W)."""
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1, mode="edge")
        inner = (
            padded[1:-1, 1:-1]
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
    return mask & ~inner


def _without_nan(content: object) -> object:
    """JSON has no NaN: undefined values become null."""
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
