"""Files of a run or set as they are found: optional, and torn where a writer was killed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import yaml

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.reports.charts import NOT_RECORDED

Rows = tuple[tuple[str, str], ...]


def read_records(path: Path) -> tuple[list[dict[str, object]], int]:
    """Records of a JSON-lines file and how many lines a killed writer tore, wherever they are."""
    if not path.is_file():
        return [], 0
    records, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError:
            torn += 1
            continue
        if isinstance(record, dict):
            records.append(record)
    return records, torn


def torn_remark(path: Path, torn: int) -> tuple[str, ...]:
    """A sentence on skipped lines, if there are any."""
    return (f"{torn} unreadable lines of {path.name} were skipped.",) if torn else ()


def optional_json(path: Path) -> object:
    """Content of an optional JSON file; None if it is not there.

    Raises:
        OutputError: If it is there and damaged.
    """
    if not path.is_file():
        return None
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(
            f"'{path}' is not readable JSON ({error})", hint="mend or remove it"
        ) from error
    return content


def optional_yaml(path: Path) -> dict[str, object]:
    """Content of an optional YAML file; empty if it is not there.

    Raises:
        OutputError: If it is there and damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OutputError(f"'{path}' is not readable YAML ({error})", hint="mend it") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def mapping_of(value: object) -> dict[str, object]:
    """A mapping with its keys as text; empty for anything else."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def count_of(value: object) -> int | None:
    """An integer, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number_of(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def list_of(value: object) -> list[object]:
    """A list that must be there.

    Raises:
        TypeError: For anything else; what is read is then damaged.
    """
    if not isinstance(value, list):
        raise TypeError(f"a list is expected, not {value!r:.40}")
    return value


def float_of(value: object) -> float:
    """A finite number that must be there.

    Raises:
        TypeError: For anything else; what is read is then damaged.
    """
    number = number_of(value)
    if number is None:
        raise TypeError(f"a number is expected, not {value!r:.40}")
    return number


def int_of(value: object) -> int:
    """The integer part of a number that must be there.

    Raises:
        TypeError: For anything else; what is read is then damaged.
    """
    return int(float_of(value))


def rows_of(flat: Mapping[str, object]) -> Rows:
    """Keys with their values in words."""
    return tuple((key, in_words(value, none="none")) for key, value in flat.items())


def in_words(value: object, none: str = NOT_RECORDED) -> str:
    """Any value of a file as the page writes it."""
    if value is None:
        return none
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**9 else str(value)  # seeds are not counts
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(in_words(item) for item in value) or "none"
    return str(value) or "(empty)"
