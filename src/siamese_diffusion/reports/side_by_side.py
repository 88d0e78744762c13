"""Several segmenters on the same test lists: their scores beside each other, and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from siamese_diffusion.reports.segmentation import SegmentationSection

Floats: TypeAlias = npt.NDArray[np.float64]
# Values of single images that are compared: definition and size, as in two of the paper's tables.
PAIRED: Final = (("sweep_fg", "mask"), ("image_2c", "network"))


class Difference(Protocol):
    """A mean difference with the ends of its interval."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Pairing(Protocol):
    """Mean of `with_ - without`, both (trainings, images), and its interval."""

    def __call__(self, with_: Floats, without: Floats, *, comparisons: int) -> Difference: ...


@dataclass(frozen=True)
class ScoreTable:
    """Scores as one table of the paper means them: (segmenter, trained on, cell of each list)."""

    name: str
    used_by: str
    words: str
    lists: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class DifferenceRow:
    """A segmenter against the reference in one value."""

    name: str
    trained_on: str
    measure: str
    n: int
    mean: str
    interval: str
    reading: str


@dataclass(frozen=True)
class SideBySideSection:
    """Results that share lists, images and rules; `comparisons` widen the intervals."""

    name: str
    path: str
    n: int
    reference: str
    reference_trained_on: str
    comparisons: int
    tables: tuple[ScoreTable, ...]
    differences: tuple[DifferenceRow, ...]
    remarks: tuple[str, ...] = ()
    kind: Literal["side-by-side"] = "side-by-side"


def side_by_side(
    sections: Sequence[SegmentationSection], pairing: Pairing | None
) -> list[SideBySideSection]:
    """A section for every two or more results of the same lists.

    Args:
        sections: Results in the order of the page.
        pairing: Test of paired differences; None leaves them out.
    """
    groups: dict[tuple[object, ...], list[SegmentationSection]] = {}
    for section in sections:
        groups.setdefault(section.key, []).append(section)
    return [_compared(group, pairing) for group in groups.values() if len(group) > 1]


def _compared(group: Sequence[SegmentationSection], pairing: Pairing | None) -> SideBySideSection:
    names = [s.name for s in group]
    if len(set(names)) < len(names):
        names = [s.path for s in group]
    # Real pairs alone are what others are held against; the first given, if there are none.
    first = next((place for place, s in enumerate(group) if s.synthetic == 0), 0)
    # Truth is resized to the network's input, so that other inputs are other questions.
    measures = [
        (definition, size)
        for definition, size in PAIRED
        if size == "mask" or len({s.network_size for s in group}) == 1
    ]
    comparisons = (len(group) - 1) * len(measures)
    rows = []
    if pairing is not None:
        for definition, size in measures:
            for place, (name, section) in enumerate(zip(names, group, strict=True)):
                if place != first:
                    values = [s.images[definition, size] for s in (section, group[first])]
                    row = _difference(values, pairing, comparisons)
                    measure = f"{definition}, {size} size"
                    rows.append(DifferenceRow(name, section.trained_on, measure, *row))
    lists = [shown.name for shown in group[0].lists if not shown.is_total]
    return SideBySideSection(
        name=", ".join(names),
        path=f"Test lists: {', '.join(lists)}",
        n=group[0].n,
        reference=names[first],
        reference_trained_on=group[first].trained_on,
        comparisons=comparisons,
        tables=_tables(group, names),
        differences=tuple(rows),
        remarks=tuple(
            f"{name}: {s.guard}"
            for name, s in zip(names, group, strict=True)
            if s.guard_kind != "good"
        ),
    )


def _difference(
    values: Sequence[Floats], pairing: Pairing, comparisons: int
) -> tuple[int, str, str, str]:
    """Images, mean, interval and reading; images without a value on either side are left out."""
    both = ~np.isnan(values[0]) & ~np.isnan(values[1])
    n = int(both.sum())
    if n < 2:
        return n, "-", "-", "two images or more are needed"
    found = pairing(values[0][None, both], values[1][None, both], comparisons=comparisons)
    reading = "no significant difference"
    if found.low > 0 or found.high < 0:
        reading = "higher" if found.low > 0 else "lower"
    ends = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return n, f"{100 * found.mean:+.1f}", ends, reading


def _tables(group: Sequence[SegmentationSection], names: Sequence[str]) -> tuple[ScoreTable, ...]:
    """Tables that every result has; lists are in the order of the first."""
    tables = []
    for table in group[0].tables:
        found = [next((t for t in s.tables if t.name == table.name), None) for s in group]
        rows = [
            (name, s.trained_on, tuple(f"{dice} / {iou}" for _, _, dice, iou in own.rows))
            for name, s, own in zip(names, group, found, strict=True)
            if own is not None
        ]
        if len(rows) == len(group):
            lists = tuple(f"{name} (n = {n})" for name, n, _, _ in table.rows)
            tables.append(ScoreTable(table.name, table.used_by, table.words, lists, tuple(rows)))
    return tuple(tables)
