"""What a report is made from, told apart by content: folders and the files of scores and audits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import AuditPaths, RunPaths, SyntheticPaths

EXPECTED: Final = (
    "a run folder (run.json, written by `siamdiff fit`), a synthetic set "
    "(plan.json and manifest.jsonl, written by `siamdiff sample`), a score file, "
    "the folder of an audit, or a figure of `siamdiff plot tsne`"
)
SCORE_NAME: Final = "score.json"  # looked for in a synthetic set; elsewhere any name will do
Kind = Literal["run", "synthetic", "alignment", "memorisation", "score", "tsne"]
_FILE_KINDS: Final[tuple[Kind, ...]] = ("alignment", "memorisation", "score", "tsne")


@dataclass(frozen=True)
class Source:
    """A folder ("run", "synthetic") or a JSON file (the others)."""

    kind: Kind
    path: Path


def recognise(source: Path) -> list[Source]:
    """What a path holds: an audit folder may hold two audits, a set what was measured on it.

    Raises:
        DataError: If it is nothing that a report can show; names what was found and expected.
    """
    if source.is_file():
        return [_recognise_file(source)]
    if not source.is_dir():
        raise DataError(f"'{source}' does not exist; expected {EXPECTED}", hint="check the path")
    audit, paths = AuditPaths(source), SyntheticPaths(source)
    inside = [
        Source(kind, path)
        for path in (audit.alignment, audit.memorisation, source / SCORE_NAME)
        if (kind := _kind_of(path)) is not None
    ]
    if RunPaths(source).run.is_file():
        return [Source("run", source)]
    if paths.plan_header.is_file() and paths.manifest.is_file():
        return [Source("synthetic", source), *inside]
    if paths.plan_header.is_file():
        raise DataError(
            f"'{source}' holds plan.json but no manifest.jsonl: no image is finished yet",
            hint="run the same `siamdiff sample` command again, then the report",
        )
    if inside:
        return inside
    found = sorted(entry.name for entry in source.iterdir())
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    shown = (", ".join(found[:6]) + more) if found else "nothing"
    raise DataError(f"'{source}' holds {shown}; expected {EXPECTED}", hint="check the path")


def _recognise_file(path: Path) -> Source:
    numbers = path.with_suffix(".json")  # a figure's numbers lie beside it
    kind = _kind_of(numbers)
    if kind is None:
        raise DataError(
            f"'{path}' is a file, but none of a score, an audit or a figure; expected {EXPECTED}",
            hint="check the path",
        )
    if path != numbers and kind != "tsne":
        raise DataError(f"'{path}' is no figure of `siamdiff plot tsne`", hint=f"give {numbers}")
    return Source(kind, numbers)


def _kind_of(path: Path) -> Kind | None:
    """What a JSON file says that it is; None if it is not there or says nothing of ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    said = content.get("kind") if isinstance(content, Mapping) else None
    return next((kind for kind in _FILE_KINDS if kind == said), None)
