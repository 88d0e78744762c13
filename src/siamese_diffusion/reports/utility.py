"""A utility curve for the page: does synthetic data help a segmenter, and how sure is it?

Reads what `siamdiff utility` wrote, its conclusions among it, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.reports.figures import Arm, interval_chart
from siamese_diffusion.reports.reading import (
    Rows,
    float_of,
    in_words,
    int_of,
    list_of,
    mapping_of,
    rows_of,
)

REAL: Final = "real"


@dataclass(frozen=True)
class GainRow:
    """One training set, scores and gains in per cent."""

    arm: str
    folds: str
    score: str
    by_seed: str
    gain: str
    interval: str
    reading: str


@dataclass(frozen=True)
class UtilitySection:
    """A curve; `helps` says for how many synthetic sets a gain is significant."""

    name: str
    path: str
    model: str
    conclusions: tuple[str, ...]
    helps: int
    n_images: int
    n_seeds: int
    comparisons: int
    measure: str
    chart: str
    rows: tuple[GainRow, ...]
    facts: Rows
    settings: Rows
    remarks: tuple[str, ...]
    kind: Literal["utility"] = "utility"


def read_utility(path: Path) -> UtilitySection:
    """A section from `utility.json`.

    Raises:
        OutputError: If the file is damaged.
    """
    content = read_json(path)
    try:
        return _read(path, content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise OutputError(
            f"'{path}' is damaged or of another version ({type(error).__name__}: {error})",
            hint="repeat the `siamdiff utility` command, which writes it again from its cells",
        ) from error


def _read(path: Path, content: Mapping[str, object]) -> UtilitySection:
    curve = mapping_of(content["curve"])
    points = [mapping_of(point) for point in list_of(curve["points"])]
    knees = mapping_of(curve["knees"])
    measure = f"Dice ({content['measure']}, {content['size']} size)"
    told = content.get("conclusions")
    missing = "Conclusion: not recorded; repeat the `siamdiff utility` command to have it written."
    return UtilitySection(
        name=path.resolve().parent.name,
        path=str(path),
        model=str(content["model"]),
        conclusions=tuple(str(line) for line in told) if isinstance(told, list) else (),
        helps=sum(knee is not None for knee in knees.values()),
        n_images=int_of(curve["n_images"]),
        n_seeds=int_of(curve["n_seeds"]),
        comparisons=int_of(curve["comparisons"]),
        measure=measure,
        chart=_chart(points, list(knees), measure),
        rows=tuple(_row(point) for point in points),
        facts=_facts(content),
        settings=rows_of(flatten(mapping_of(content["settings"]))),
        remarks=() if isinstance(told, list) else (missing,),
    )


def _row(point: Mapping[str, object]) -> GainRow:
    gain = mapping_of(point["gain"])
    shown, ends, reading = "-", "-", ""
    if gain:
        mean, low, high = (100 * float_of(gain[key]) for key in ("mean", "low", "high"))
        shown, ends = f"{mean:+.2f}", f"{low:+.2f} to {high:+.2f}"
        reading = "not significant"
        if low > 0 or high < 0:
            reading = "better than real pairs alone" if low > 0 else "worse than real pairs alone"
    return GainRow(
        arm=str(point["arm"]),
        folds=f"{float_of(point['folds']):g}",
        score=f"{100 * float_of(point['score']):.2f}",
        by_seed=", ".join(f"{100 * float_of(value):.2f}" for value in list_of(point["by_seed"])),
        gain=shown,
        interval=ends,
        reading=reading,
    )


def _chart(points: Sequence[Mapping[str, object]], labels: Sequence[str], measure: str) -> str:
    """Synthetic sets as lines, real pairs and baselines as levels; in per cent.

    The interval at a point is that of its gain, put where the real pairs' score is: it clears the
    level of the real pairs exactly if the gain is significant.
    """
    real = next(float_of(point["score"]) for point in points if point["arm"] == REAL)
    arms, levels = [], []
    for label in labels:
        own = sorted(
            (point for point in points if point["arm"] == label),
            key=lambda point: float_of(point["folds"]),
        )
        places, singles = [], []
        for point in own:
            folds, gain = float_of(point["folds"]), mapping_of(point["gain"])
            low, high = (100 * (real + float_of(gain[key])) for key in ("low", "high"))
            places.append((folds, 100 * float_of(point["score"]), low, high))
            seeds = [float_of(value) for value in list_of(point["by_seed"])]
            singles += [(folds, 100 * value) for value in seeds if len(seeds) > 1]
        arms.append(Arm(label, tuple(places), tuple(singles)))
    for point in points:
        if point["arm"] not in labels:
            name = "real pairs alone" if point["arm"] == REAL else str(point["arm"])
            levels.append((name, 100 * float_of(point["score"])))
    words = [
        f"{arm.label}: " + ", ".join(f"{y:.1f} at {x:g} folds" for x, y, *_ in arm.points)
        for arm in arms
    ]
    words += [f"{name}: {level:.1f}" for name, level in levels]
    return interval_chart(
        "Score against folds of synthetic pairs",
        arms,
        levels,
        axes=("synthetic pairs for each real one (folds)", f"{measure}, %"),
        description="; ".join(words) + ".",
    )


def _facts(content: Mapping[str, object]) -> Rows:
    sets = mapping_of(content["synthetic"])
    baselines = "copy-paste and classical augmentation" if content["baselines"] else "none"
    return (
        ("Network", in_words(content["model"])),
        ("Real pairs", in_words(content["real"])),
        *((f"Synthetic set: {label}", in_words(path)) for label, path in sets.items()),
        ("Test lists", f"{in_words(content['splits'])} of {in_words(content['test'])}"),
        ("Score", f"Dice by {content['measure']} at {content['size']} size"),
        ("Trainings of each set", in_words(content["seeds"])),
        ("Baselines", baselines),
    )
