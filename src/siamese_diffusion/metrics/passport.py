"""What a value was measured with. Values whose passports differ are not compared.

Free of torch; also reads score files back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from siamese_diffusion.core.artifacts import read_json
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.errors import ConfigError

KIND: Final = "score"
FORMAT: Final = 1
METRICS_VERSION: Final = 1  # raised when a metric gives other values for the same images


@dataclass(frozen=True)
class Passport:
    """All that a value depends on.

    Attributes:
        metric: Name of the value.
        protocol: Which images were compared.
        extractor: Network with its feature width.
        extractor_sha256: Of its weights.
        resize: From file to network, in words.
        n: Real images.
        m: Synthetic images.
        real: Fingerprint of the real images.
        synthetic: Fingerprint of the synthetic images.
        seed: Of everything random.
        settings: Further settings that the value depends on.
        version: Of the metrics of this package.
    """

    metric: str
    protocol: str
    extractor: str
    extractor_sha256: str
    resize: str
    n: int
    m: int
    real: str
    synthetic: str
    seed: int
    settings: Mapping[str, object]
    version: int = METRICS_VERSION

    def as_dict(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)


def differences(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    """`key: a / b` for everything that must agree; only the synthetic set may differ."""
    left, right = flatten(first), flatten(second)
    names = [f.name for f in fields(Passport)]
    keys = sorted(
        {**left, **right}, key=lambda k: (names.index(k) if k in names else len(names), k)
    )
    return [
        f"{key}: {_short(left.get(key))} / {_short(right.get(key))}"
        for key in keys
        if key != "synthetic" and left.get(key) != right.get(key)
    ]


@dataclass(frozen=True)
class Row:
    """One value of several score files; `values` has None where a file lacks it."""

    name: str
    higher_is_better: bool
    values: tuple[float | None, ...]
    intervals: tuple[tuple[float, float] | None, ...]


def compare(paths: Sequence[Path]) -> list[Row]:
    """Values of several score files side by side.

    Raises:
        ConfigError: If two values of one name have different passports; the difference is named.
        OutputError: If a file is no score file.
    """
    scores = [read_score(path) for path in paths]
    names = list(dict.fromkeys(name for score in scores for name in score))
    problems = []
    rows = []
    for name in names:
        found = [(p, s[name]) for p, s in zip(paths, scores, strict=True) if name in s]
        (first_path, first), others = found[0], found[1:]
        for path, other in others:
            unlike = differences(_mapping(first, "passport"), _mapping(other, "passport"))
            if unlike:
                problems.append(f"{name} of '{first_path}' and '{path}': " + "; ".join(unlike))
        rows.append(
            Row(
                name,
                bool(first["higher_is_better"]),
                tuple(_number(s[name]) if name in s else None for s in scores),
                tuple(_interval(s[name]) if name in s else None for s in scores),
            )
        )
    if problems:
        raise ConfigError(
            "values of different passports are not compared:\n" + "\n".join(problems),
            hint="score all sets against the same real images with the same settings and weights",
        )
    return rows


def comparison_text(paths: Sequence[Path]) -> str:
    """`compare` as a table for people; the best value of each row has a star.

    Raises:
        ConfigError: For fewer than two files, and as `compare`.
    """
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} score file given", hint="give two or more to compare")
    names = [
        path.stem if len({p.stem for p in paths}) == len(paths) else str(path) for path in paths
    ]
    width = max(14, *(len(name) + 2 for name in names))
    lines = [f"{'metric':<24}" + "".join(f"{name:>{width}}" for name in names)]
    for row in compare(paths):
        there = [v for v in row.values if v is not None]
        best = max(there) if row.higher_is_better else min(there)
        cells = [
            "-" if v is None else f"{v:.5g}" + ("*" if v == best and len(there) > 1 else " ")
            for v in row.values
        ]
        arrow = "higher" if row.higher_is_better else "lower"
        lines.append(f"{row.name:<24}" + "".join(f"{c:>{width}}" for c in cells) + f"  {arrow}")
    return "\n".join(lines)


def read_score(path: Path) -> dict[str, Mapping[str, object]]:
    """Values of a score file by name.

    Raises:
        ConfigError: If the file is not one.
        OutputError: If it cannot be read.
    """
    content = read_json(path)
    if content.get("kind") != KIND or content.get("format") != FORMAT:
        raise ConfigError(
            f"'{path}' is not a score file of format {FORMAT} (kind {content.get('kind')!r}, "
            f"format {content.get('format')!r})",
            hint="give files written by siamdiff score --out",
        )
    values = content.get("values")
    assert isinstance(values, list)
    return {str(value["name"]): value for value in values}


def _mapping(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = value[key]
    assert isinstance(found, Mapping)
    return found


def _number(value: Mapping[str, object]) -> float:
    found = value["value"]
    assert isinstance(found, int | float)
    return float(found)


def _interval(value: Mapping[str, object]) -> tuple[float, float] | None:
    found = value["interval"]
    return (float(found[0]), float(found[1])) if isinstance(found, list) else None


def _short(value: object) -> object:
    is_hash = isinstance(value, str) and len(value) == 64
    return f"{value[:12]}..." if is_hash and isinstance(value, str) else value
