"""Files of a run or set as they are found: optional, and torn where a writer was killed."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from siamese_diffusion.core.errors import OutputError


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
