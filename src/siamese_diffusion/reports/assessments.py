"""What scores, audits and the t-SNE say of a set, read from their files for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.reports import words
from siamese_diffusion.reports.artefacts import ArtefactSection, read_artefacts
from siamese_diffusion.reports.examples import Example, neighbour_examples, worst_examples
from siamese_diffusion.reports.figures import histogram, scatter
from siamese_diffusion.reports.freshness import Fingerprints
from siamese_diffusion.reports.reading import (
    Rows,
    float_of,
    in_words,
    int_of,
    list_of,
    mapping_of,
    number_of,
    rows_of,
)
from siamese_diffusion.reports.sources import Source

MOST_SHOWN: Final = 12


@dataclass(frozen=True)
class ScoreRow:
    """One value of a score file in words."""

    name: str
    value: str
    interval: str
    floor: str
    holdout: str
    direction: str
    meaning: str
    reading: str
    notes: tuple[str, ...]
    passport: Rows


@dataclass(frozen=True)
class ScoreSection:
    """A score file. `is_untrained`: a network with random weights was asked."""

    name: str
    path: str
    n_real: int
    n_synthetic: int
    protocol: str
    values: tuple[ScoreRow, ...]
    has_holdout: bool
    is_untrained: bool
    settings: Rows
    stale: str | None
    remarks: tuple[str, ...]
    kind: Literal["score"] = "score"


@dataclass(frozen=True)
class AlignmentSection:
    """An alignment audit."""

    name: str
    path: str
    n_real: int
    n_synthetic: int
    synthetic: float
    shuffled: float
    real: float
    boundary: float
    boundary_real: float
    floor: float
    poor: int
    reading: str
    chart: str
    worst: tuple[Example, ...]
    segmenter: str
    settings: Rows
    stale: str | None
    remarks: tuple[str, ...]
    kind: Literal["alignment"] = "alignment"


@dataclass(frozen=True)
class SpaceRow:
    """What one way of comparing pictures says, in words."""

    space: str
    near: str
    expected: str
    chance: str
    closer: str
    median: str
    median_of_holdout: str


@dataclass(frozen=True)
class MemorisationSection:
    """A memorisation audit; `near` counts images that are near copies in any space."""

    name: str
    path: str
    n_real: int
    n_synthetic: int
    n_holdout: int
    has_copies: bool
    identical: int
    near: int
    error_rate: str
    rate: str
    calibration: str
    spaces: tuple[SpaceRow, ...]
    closest: tuple[Example, ...]
    settings: Rows
    stale: str | None
    remarks: tuple[str, ...]
    kind: Literal["memorisation"] = "memorisation"


@dataclass(frozen=True)
class TsneSection:
    """A joint embedding: (name, mixing, SVG) of every panel, real against real first."""

    name: str
    path: str
    points: int
    extractor: str
    is_untrained: bool
    expected: str
    panels: tuple[tuple[str, str, str], ...]
    settings: Rows
    remarks: tuple[str, ...]
    stale: str | None = None  # a figure does not say where its sets are
    kind: Literal["tsne"] = "tsne"


Assessment = ScoreSection | AlignmentSection | MemorisationSection | ArtefactSection | TsneSection


def read_assessment(source: Source, prints: Fingerprints) -> Assessment:
    """A section from one file.

    Args:
        source: A file of `sources.recognise`.
        prints: Of the synthetic sets of the same page, where pictures are looked for if they
            moved, and which should still be those that were measured.

    Raises:
        OutputError: If the file is damaged.
    """
    content = read_json(source.path)
    readers: dict[str, Callable[[], Assessment]] = {
        "score": lambda: _read_score(source.path, content, prints),
        "alignment": lambda: _read_alignment(source.path, content, prints),
        "memorisation": lambda: _read_memorisation(source.path, content, prints),
        "artefacts": lambda: read_artefacts(source.path, content, prints),
        "tsne": lambda: _read_tsne(source.path, content),
    }
    try:
        return readers[source.kind]()
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise OutputError(
            f"'{source.path}' is damaged or of another version ({type(error).__name__}: {error})",
            hint="write it again with the verb that made it",
        ) from error


def _read_score(path: Path, content: Mapping[str, object], prints: Fingerprints) -> ScoreSection:
    real, synthetic = mapping_of(content["real"]), mapping_of(content["synthetic"])
    values = [mapping_of(value) for value in list_of(content["values"])]
    extractors = {str(mapping_of(value["passport"])["extractor"]) for value in values}
    protocol = str(mapping_of(content["settings"])["protocol"])
    fresh = prints.compare(synthetic, first_of_mask=protocol == "paper")
    return ScoreSection(
        name=Path(str(synthetic["path"])).name,
        path=str(path),
        n_real=int_of(real["n"]),
        n_synthetic=int_of(synthetic["n"]),
        protocol=protocol,
        values=tuple(_score_row(value) for value in values),
        has_holdout=any(value["real_against_holdout"] is not None for value in values),
        is_untrained=any(name.startswith(words.UNTRAINED) for name in extractors),
        settings=rows_of(flatten(mapping_of(content["settings"]))),
        stale=fresh.stale,
        remarks=(*fresh.remarks, *(str(line) for line in list_of(content["warnings"]))),
    )


def _score_row(value: Mapping[str, object]) -> ScoreRow:
    name, number = str(value["name"]), float_of(value["value"])
    higher = bool(value["higher_is_better"])
    ends = value["interval"]
    interval = (
        (float_of(list_of(ends)[0]), float_of(list_of(ends)[1])) if ends is not None else None
    )
    floor, held = number_of(value["real_against_real"]), number_of(value["real_against_holdout"])
    return ScoreRow(
        name=name,
        value=f"{number:.4g}",
        interval="-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}",
        floor="-" if floor is None else f"{floor:.4g}",
        holdout="-" if held is None else f"{held:.4g}",
        direction="higher is better" if higher else "lower is better",
        meaning=words.meaning(name),
        reading=words.reading(number, floor, interval, higher),
        notes=tuple(str(note) for note in list_of(value["warnings"])),
        passport=rows_of(flatten(mapping_of(value["passport"]))),
    )


def _read_alignment(
    path: Path, content: Mapping[str, object], prints: Fingerprints
) -> AlignmentSection:
    made = [mapping_of(pair) for pair in list_of(content["pairs"])]
    given = [float_of(mapping_of(pair)["dice"]) for pair in list_of(content["real_pairs"])]
    numbers = [float_of(pair["dice"]) for pair in made]
    synthetic, shuffled, real, floor = (
        float_of(content[key])
        for key in ("dice_on_synthetic", "dice_on_shuffled", "dice_on_real", "poor_below_dice")
    )
    root = str(mapping_of(content["synthetic"])["path"])
    worst = sorted(made, key=lambda pair: float_of(pair["dice"]))[:MOST_SHOWN]
    examples, remarks = worst_examples(path.parent, Path(root), prints.sets, worst)
    fresh = prints.compare(mapping_of(content["synthetic"]), pairs=True)
    description = (
        f"Dice of {len(made)} synthetic pairs, mean {synthetic:.2f}, and of {len(given)} real "
        f"pairs, mean {real:.2f}; {len(list_of(content['poor']))} synthetic pairs are below "
        f"{floor:.2f}."
    )
    chart = histogram(
        "Dice of every pair",
        numbers,
        given,
        marks=[("worst 5 % of real pairs", floor)],
        axis="Dice: outline asked for against outline found (1 is perfect)",
        description=description,
    )
    return AlignmentSection(
        name=Path(root).name,
        path=str(path),
        n_real=int_of(content["n_real"]),
        n_synthetic=int_of(content["n_synthetic"]),
        synthetic=synthetic,
        shuffled=shuffled,
        real=real,
        boundary=float_of(content["boundary_on_synthetic"]),
        boundary_real=float_of(content["boundary_on_real"]),
        floor=floor,
        poor=len(list_of(content["poor"])),
        reading=words.following(synthetic, shuffled, real),
        chart=chart,
        worst=examples,
        segmenter=str(content["segmenter"]),
        settings=rows_of(flatten(mapping_of(content["settings"]))),
        stale=fresh.stale,
        remarks=(*fresh.remarks, *remarks),
    )


def _read_memorisation(
    path: Path, content: Mapping[str, object], prints: Fingerprints
) -> MemorisationSection:
    root = str(mapping_of(content["synthetic"])["path"])
    closest = [mapping_of(one) for one in list_of(content["closest"])]
    first = list({str(one["stem"]): one for one in reversed(closest)}.values())[::-1]
    examples, remarks = neighbour_examples(Path(root), prints.sets, first[:MOST_SHOWN])
    fresh = prints.compare(mapping_of(content["synthetic"]))
    near = {str(mapping_of(one)["stem"]) for one in list_of(content["near_copies"])}
    settings = mapping_of(content["settings"])
    return MemorisationSection(
        name=Path(root).name,
        path=str(path),
        n_real=int_of(content["n_real"]),
        n_synthetic=int_of(content["n_synthetic"]),
        n_holdout=int_of(content["n_holdout"]),
        has_copies=bool(content["has_copies"]),
        identical=len(list_of(content.get("identical", []))),
        near=len(near),
        error_rate=f"{float_of(content['verdict_error_rate']):.0%}",
        rate=f"{float_of(settings['rate']):.1%}",
        calibration=str(content["calibration"]),
        spaces=tuple(_space_row(mapping_of(space)) for space in list_of(content["spaces"])),
        closest=examples,
        settings=rows_of(flatten(settings)),
        stale=fresh.stale,
        remarks=(*fresh.remarks, *remarks),
    )


def _space_row(space: Mapping[str, object]) -> SpaceRow:
    share, chance = number_of(space["closer_to_train"]), float_of(space["chance"])
    return SpaceRow(
        space=str(space["space"]),
        near=in_words(space["flagged"]),
        expected=f"{float_of(space['expected']):.1f}",
        chance="below 0.0001" if chance < 1e-4 else f"{chance:.2g}",
        closer="-" if share is None else f"{share:.0%}",
        median=f"{float_of(space['median_distance']):.3f}",
        median_of_holdout=f"{float_of(space['median_distance_of_holdout']):.3f}",
    )


def _read_tsne(path: Path, content: Mapping[str, object]) -> TsneSection:
    mixing = {name: float_of(value) for name, value in mapping_of(content["mixing"]).items()}
    parts = [
        [(float_of(list_of(p)[0]), float_of(list_of(p)[1])) for p in list_of(part)]
        for part in list_of(content["plane"])
    ]
    xs, ys = zip(*(point for part in parts for point in part), strict=True)
    limits = (min(xs), max(xs), min(ys), max(ys))
    panels = []
    for part, (name, value) in zip(parts[1:], mixing.items(), strict=True):
        title = "Real against real" if part is parts[1] else name
        description = f"Neighbour mixing {value:.2f}; {len(part)} of each set."
        drawn = scatter(title, parts[0], part, limits=limits, description=description)
        panels.append((title, f"{value:.2f}", drawn))
    extractor = str(content["extractor"])
    return TsneSection(
        name=", ".join(title for title, _, _ in panels[1:]),
        path=str(path),
        points=int_of(content["points"]),
        extractor=extractor,
        is_untrained=extractor.startswith(words.UNTRAINED),
        expected=f"{float_of(content['expected']):.2f}",
        panels=tuple(panels),
        settings=rows_of(flatten(mapping_of(content["settings"]))),
        remarks=(),
    )
