"""A segmenter's result for the page: every definition, the leakage guard and the worst cases.

Reads what `siamdiff segment evaluate` wrote and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.errors import DataError, OutputError
from siamese_diffusion.core.folders import worst_cases
from siamese_diffusion.data.images import read_image
from siamese_diffusion.reports import panels
from siamese_diffusion.reports.examples import Example
from siamese_diffusion.reports.panels import Tile
from siamese_diffusion.reports.reading import (
    Rows,
    count_of,
    float_of,
    in_words,
    int_of,
    list_of,
    mapping_of,
    number_of,
)

Floats: TypeAlias = npt.NDArray[np.float64]
OVERALL: Final = "Overall"
UNDEFINED: Final = "undefined"
# Definition -> what is averaged, in plain words; in the order of the page.
DEFINITIONS: Final = {
    "sweep_fg": "mean over images of the mean over all 256 thresholds",
    "sweep_fg_max": "the same at the one threshold that suits the whole list best",
    "image_fg": "mean over images, outline at one half",
    "image_2c": "mean over images, lesion and background averaged",
    "pooled_fg": "all pixels of the list in one count",
    "pooled_2c": "all pixels in one count, lesion and background averaged",
}
SIZES: Final = ("mask", "network")
_PER_IMAGE: Final = ("sweep_fg", "image_fg", "image_2c")  # definitions with values of each image


@dataclass(frozen=True)
class TestList:
    """One test list: (definition, meaning, scores) with Dice and IoU at mask, then network size."""

    name: str
    n: int
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    worst: tuple[Example, ...] = ()
    is_total: bool = False


@dataclass(frozen=True)
class Table:
    """What one table of the paper calls mDice and mIoU: (list, n, mDice, mIoU) in words."""

    name: str
    used_by: str
    words: str
    rows: tuple[tuple[str, int, str, str], ...]


@dataclass(frozen=True)
class SegmentationSection:
    """A result of a segmenter; `images` holds values of single images by (definition, size)."""

    name: str
    path: str
    model: str
    trained_on: str
    lead: str
    n: int
    guard: str
    guard_kind: Literal["good", "unsure", "bad"]
    tables: tuple[Table, ...]
    lists: tuple[TestList, ...]
    facts: Rows
    remarks: tuple[str, ...]
    key: tuple[object, ...]
    synthetic: int | None
    network_size: int
    images: Mapping[tuple[str, str], Floats]
    kind: Literal["segmentation-result"] = "segmentation-result"


def read_segmentation(path: Path) -> SegmentationSection:
    """A section from a result file.

    Raises:
        OutputError: If the file is damaged.
    """
    content = read_json(path)
    try:
        return _read(path, content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise OutputError(
            f"'{path}' is damaged or of another version ({type(error).__name__}: {error})",
            hint="write it again with `siamdiff segment evaluate`",
        ) from error


def _read(path: Path, content: Mapping[str, object]) -> SegmentationSection:
    sets = {name: mapping_of(found) for name, found in mapping_of(content["sets"]).items()}
    trained = mapping_of(content["trained_on"])
    mixed = mapping_of(trained["composition"])
    real, synthetic = count_of(mixed.get("real")), count_of(mixed.get("synthetic"))
    tables = tuple(
        _table(name, mapping_of(found)) for name, found in mapping_of(content["protocols"]).items()
    )
    kind = panels.source_kind(Path(str(content["data"])))
    lists, remarks = [], [str(line) for line in list_of(content["shared_between_sets"])]
    for name, found in sets.items():
        worst, missing = _worst(path, name, found, kind)
        lists.append(_test_list(name, int_of(found["n"]), mapping_of(found["scores"]), worst))
        remarks += missing
    n = sum(shown.n for shown in lists)
    if len(lists) > 1:
        total = _test_list(OVERALL, n, mapping_of(content["overall"]), ())
        lists.append(TestList(total.name, n, total.rows, is_total=True))
    guard_kind, guard = _guard(content, sets)
    words = _trained_on(real, synthetic, count_of(mapping_of(trained.get("real")).get("pairs")))
    run = str(content["run"])
    return SegmentationSection(
        name=Path(run).name,
        path=str(path),
        model=str(content["model"]),
        trained_on=words,
        lead=_lead(tables, n),
        n=n,
        guard=guard,
        guard_kind=guard_kind,
        tables=tables,
        lists=tuple(lists),
        facts=_facts(content, trained, words),
        remarks=tuple(remarks),
        key=(
            str(content["data"]),
            str(content["absent"]),
            tuple((name, _stems(found)) for name, found in sets.items()),
        ),
        synthetic=synthetic,
        network_size=int_of(content["network_size_px"]),
        images={(name, size): _values(sets, name, size) for name in _PER_IMAGE for size in SIZES},
    )


def _stems(found: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(mapping_of(image)["stem"]) for image in list_of(found["images"]))


def _values(sets: Mapping[str, Mapping[str, object]], definition: str, size: str) -> Floats:
    """Dice of every image of every list; NaN where it is undefined."""
    images = [mapping_of(image) for found in sets.values() for image in list_of(found["images"])]
    dice = [number_of(list_of(mapping_of(image[size])[definition])[0]) for image in images]
    return np.array([np.nan if value is None else value for value in dice], np.float64)


def per_cent(value: object, ends: object = None) -> str:
    """A score in per cent with its interval, or that it is undefined."""
    number = number_of(value)
    if number is None:
        return UNDEFINED
    shown = f"{100 * number:.1f}"
    if not isinstance(ends, list) or any(number_of(end) is None for end in ends):
        return shown
    return f"{shown} ({100 * float_of(ends[0]):.1f} to {100 * float_of(ends[1]):.1f})"


def _test_list(
    name: str, n: int, scores: Mapping[str, object], worst: tuple[Example, ...]
) -> TestList:
    at = [mapping_of(scores[size]) for size in SIZES]
    known = [*DEFINITIONS, *(name for name in at[0] if name not in DEFINITIONS)]
    rows = []
    for definition in known:
        found = [mapping_of(part[definition]) for part in at]
        cells = [
            per_cent(score[key], score[f"{key}_interval"])
            for score in found
            for key in ("dice", "iou")
        ]
        rows.append((definition, DEFINITIONS.get(definition, ""), tuple(cells)))
    return TestList(name, n, tuple(rows), worst)


def _table(name: str, found: Mapping[str, object]) -> Table:
    rows = []
    for row in map(mapping_of, list_of(found["sets"])):
        label = str(row["set"])
        dice, iou = (per_cent(row[key], row[f"{key}_interval"]) for key in ("mdice", "miou"))
        rows.append((OVERALL if label == "overall" else label, int_of(row["n"]), dice, iou))
    size = "the masks’ own size" if found["resolution"] == "mask" else "the network’s input size"
    words = f"mDice is {found['dice']}, mIoU is {found['iou']}, at {size}"
    return Table(name, str(found["used_by"]), words, tuple(rows))


def _lead(tables: Sequence[Table], n: int) -> str:
    """Dice of the first table over all lists."""
    if not tables or not tables[0].rows:
        return f"over {n} test images"
    return f"{tables[0].rows[-1][2]} % over {n} test images"


def _worst(
    path: Path, name: str, found: Mapping[str, object], kind: str
) -> tuple[tuple[Example, ...], list[str]]:
    """Tiles of the picture that lies beside the result."""
    stems = found.get("worst")
    if not isinstance(stems, list):
        return (), [f"The worst cases of {name} are not shown: their stems were not recorded."]
    if not stems:
        return (), []
    picture = worst_cases(path, name)
    try:
        pixels = read_image(picture)
    except DataError as error:
        return (), [f"The worst cases of {name} are not shown: {error.message}."]
    side = pixels.shape[0]
    if pixels.shape[1] != side * len(stems):
        return (), [f"The worst cases of {name} are not shown: '{picture.name}' is another's."]
    rows = {str(image["stem"]): image for image in map(mapping_of, list_of(found["images"]))}
    examples = []
    for place, stem in enumerate(map(str, stems)):
        dice = list_of(mapping_of(rows[stem]["mask"])["sweep_fg"])[0]
        cut = np.ascontiguousarray(pixels[:, place * side : (place + 1) * side])
        comment = panels.SYNTHETIC_COMMENT if kind == "synthetic" else ""
        alt = f"Test image {stem} with the true outline in green and the predicted in magenta"
        tile = Tile(kind, "", alt, panels.jpeg_uri(Image.fromarray(cut), comment))
        examples.append(Example(stem, (tile,), f"Dice {per_cent(dice)} %"))
    return tuple(examples), []


def _guard(
    content: Mapping[str, object], sets: Mapping[str, Mapping[str, object]]
) -> tuple[Literal["good", "unsure", "bad"], str]:
    """Whether test pairs went into the segmenter, in words."""
    told: list[str] = []
    stems: set[tuple[str, str]] = set()
    for name, found in sets.items():
        for reason, names in mapping_of(found["overlap"]).items():
            told.append(f"{len(list_of(names))} of {name} {reason}")
            stems.update((name, str(stem)) for stem in list_of(names))
    if stems:
        return "bad", (
            f"Not a fair test: {len(stems)} test pairs went into this segmenter and were scored "
            f"nonetheless (--allow-overlap): {'; '.join(told)}."
        )
    notes = [str(note) for note in list_of(content["unguarded"])]
    asked = " An override (--allow-overlap) was given, but nothing overlapped."
    override = asked if content["overlap_allowed"] else ""
    if notes:
        return "unsure", f"The guard against leakage has a gap: {'; '.join(notes)}.{override}"
    return "good", (
        "No test pair was found among the pairs that went into this segmenter, or into the "
        f"generator behind its synthetic pairs.{override}"
    )


def _trained_on(real: int | None, synthetic: int | None, different: int | None) -> str:
    """Pairs of an epoch; real ones that count more than once, as for Copy-Paste, are told so."""
    if real is None or synthetic is None:
        return "pairs that were not recorded"
    if different and not synthetic and real > different and real % different == 0:
        return f"{different:,} real pairs, each {real // different} times"
    parts = [f"{n:,} {word}" for n, word in ((real, "real"), (synthetic, "synthetic")) if n]
    return f"{' and '.join(parts) or 'no'} pairs"


def _facts(content: Mapping[str, object], trained: Mapping[str, object], words: str) -> Rows:
    real, synthetic = mapping_of(trained.get("real")), mapping_of(trained.get("synthetic"))
    validation = mapping_of(trained.get("validation"))
    bootstrap = mapping_of(content.get("bootstrap"))
    parameters = count_of(content.get("parameters"))
    made = (
        f"{synthetic.get('root')} ({in_words(synthetic.get('pairs'))} pairs, recipe "
        f"{in_words(synthetic.get('recipe'))})"
    )
    checked = f"{in_words(validation.get('pairs'))} pairs" if validation else "none"
    return (
        ("Network", in_words(content["model"])),
        ("Parameters", in_words(parameters)),
        ("Trained on, in one epoch", words),
        ("Real pairs from", in_words(real.get("root"))),
        ("Split of the real pairs", in_words(real.get("split"), none="none (all pairs)")),
        ("Synthetic pairs from", made if synthetic else "none"),
        ("Validation", checked),
        ("Test lists from", in_words(content["data"])),
        ("Input of the network", "{0} x {0} pixels".format(in_words(content["network_size_px"]))),
        ("Resizing", in_words(content.get("resize"))),
        (
            "A class that neither the truth nor the network has",
            "counts as right" if content["absent"] == "one" else "left out",
        ),
        (
            "Intervals",
            f"{float_of(bootstrap['level']):.0%} of {in_words(bootstrap['resamples'])} bootstrap "
            "resamples of the images"
            if bootstrap.get("resamples")
            else "none",
        ),
        ("Override of the leakage guard", in_words(bool(content["overlap_allowed"]))),
        ("Weights", in_words(content.get("weights_sha256"))),
        ("Training run", in_words(content["run"])),
    )
