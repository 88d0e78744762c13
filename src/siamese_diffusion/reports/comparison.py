"""A comparison of generators for the page: its tables as they were written, and its panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.errors import DataError, OutputError
from siamese_diffusion.core.folders import ComparePaths
from siamese_diffusion.data.images import read_image
from siamese_diffusion.reports.panels import GRID_WIDTH, SYNTHETIC_COMMENT, jpeg_uri
from siamese_diffusion.reports.reading import Rows, list_of, mapping_of, rows_of

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A table: headings, and rows of as many cells."""

    head: Cells
    rows: tuple[Cells, ...]


@dataclass(frozen=True)
class Picture:
    """The panel with its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class ComparisonSection:
    """A comparison; the first grid holds all methods, others hold differences."""

    name: str
    path: str
    methods: tuple[str, ...]
    seeds: str
    grids: tuple[Grid, ...]
    words: tuple[str, ...]
    panel: Picture | None
    terms: Rows
    remarks: tuple[str, ...]
    kind: Literal["comparison"] = "comparison"


def read_comparison(root: Path) -> ComparisonSection:
    """A section from the folder of a comparison.

    Raises:
        OutputError: If its files are damaged.
    """
    paths = ComparePaths(root)
    record, numbers = read_json(paths.record), read_json(paths.numbers)
    try:
        seeds = [
            len(list_of(values))
            for found in numbers.values()
            for values in mapping_of(mapping_of(found)["scores"]).values()
        ]
        grids, words = read_grids(paths.table.read_text(encoding="utf-8"))
        if {row[0] for row in grids[0].rows} != set(numbers):
            raise ValueError(f"{paths.table.name} and {paths.numbers.name} name other methods")
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise OutputError(
            f"'{root}' is damaged or of another version ({type(error).__name__}: {error})",
            hint="repeat the `siamdiff compare` command, which writes its tables again",
        ) from error
    panel, remarks = _panel(paths.panel)
    ends = sorted({min(seeds), max(seeds)}) if seeds else [0]
    return ComparisonSection(
        name=root.resolve().name,
        path=str(root),
        methods=tuple(numbers),
        seeds=" to ".join(str(n) for n in ends),
        grids=grids,
        words=words,
        panel=panel,
        terms=_terms(record),
        remarks=remarks,
    )


def read_grids(text: str) -> tuple[tuple[Grid, ...], Cells]:
    """Tables of a Markdown page, and the paragraphs between them.

    Raises:
        ValueError: If a table's rows differ in length.
    """
    grids, words = [], []
    for part in text.strip().split("\n\n"):
        if not part.startswith("|"):
            words.append(" ".join(part.split()))
            continue
        lines = [_cells(line) for line in part.splitlines()]
        if len(lines) < 2 or len({len(line) for line in lines}) > 1:
            raise ValueError(f"a table is torn at {part.splitlines()[-1]!r:.60}")
        grids.append(Grid(lines[0], tuple(lines[2:])))  # the second line is the rule
    return tuple(grids), tuple(words)


def _cells(line: str) -> Cells:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def _panel(path: Path) -> tuple[Picture | None, tuple[str, ...]]:
    try:
        picture = Image.fromarray(read_image(path))
    except DataError as error:
        return None, (f"The panel is not shown: {error.message}.",)
    picture.thumbnail((GRID_WIDTH, GRID_WIDTH * 4), Image.Resampling.LANCZOS)
    return Picture(jpeg_uri(picture, SYNTHETIC_COMMENT), *picture.size), ()


def _terms(record: Mapping[str, object]) -> Rows:
    return rows_of(mapping_of(record.get("fixed")))
