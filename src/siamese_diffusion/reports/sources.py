"""What a report is made from, told apart by content: folders and the files of scores and audits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import (
    AuditPaths,
    ComparePaths,
    RunPaths,
    SegmenterPaths,
    SyntheticPaths,
    UtilityPaths,
)
from siamese_diffusion.reports.reading import mapping_of, optional_json

EXPECTED: Final = (
    "a run folder (run.json, written by `siamdiff fit`), a synthetic set "
    "(plan.json and manifest.jsonl, written by `siamdiff sample`), a score file, "
    "the folder of an audit, a figure of `siamdiff plot tsne`, a result of "
    "`siamdiff segment evaluate`, or the folder of `siamdiff utility` or `siamdiff compare`"
)
SCORE_NAME: Final = "score.json"  # looked for in a synthetic set; elsewhere any name will do
SEGMENTER: Final = "segmenter"  # what run.json says of a segmenter's run
Kind = Literal[
    "run",
    "synthetic",
    "alignment",
    "memorisation",
    "artefacts",
    "score",
    "tsne",
    "comparison",
    "utility",
    "segmentation-result",
]
_FILE_KINDS: Final[tuple[Kind, ...]] = (
    "alignment",
    "memorisation",
    "artefacts",
    "score",
    "tsne",
    "utility",
    "segmentation-result",
)


@dataclass(frozen=True)
class Source:
    """A folder ("run", "synthetic", "comparison") or a JSON file (the others)."""

    kind: Kind
    path: Path


def recognise(source: Path) -> list[Source]:
    """What a path holds: an audit folder may hold two audits, a set what was measured on it.

    Raises:
        DataError: If it is nothing that a report can show, or not yet; names what was found and
            expected.
        OutputError: If a file that says what it is cannot be read.
    """
    if source.is_file():
        return [_recognise_file(source)]
    if not source.is_dir():
        raise DataError(f"'{source}' does not exist; expected {EXPECTED}", hint="check the path")
    if (results := _results(source)) is not None:
        return results
    audit, paths = AuditPaths(source), SyntheticPaths(source)
    inside = [
        Source(kind, path)
        for path in (audit.alignment, audit.memorisation, audit.artefacts, source / SCORE_NAME)
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


def _results(source: Path) -> list[Source] | None:
    """What a segmenter's run, a utility curve or a comparison left; None for other folders."""
    segmenter, utility, compared = (
        SegmenterPaths(source),
        UtilityPaths(source),
        ComparePaths(source),
    )
    if mapping_of(optional_json(segmenter.run)).get("kind") == SEGMENTER:
        if _kind_of(segmenter.result) == "segmentation-result":
            return [Source("segmentation-result", segmenter.result)]
        raise DataError(
            f"'{source}' is the run folder of a segmenter without {segmenter.result.name}: it has "
            "not been scored",
            hint=f"siamdiff segment evaluate {source} --data DATA, or give the file of its --out",
        )
    if _kind_of(utility.result) == "utility":
        return [Source("utility", utility.result)]
    if {"folds", "seeds", "protocol"} <= mapping_of(optional_json(utility.plan)).keys():
        raise DataError(
            f"'{source}' holds a utility curve that is not finished: no {utility.result.name}",
            hint="run the same `siamdiff utility` command again, then the report",
        )
    if mapping_of(optional_json(compared.record)).get("kind") == "comparison":
        if compared.numbers.is_file():
            return [Source("comparison", source)]
        raise DataError(
            f"'{source}' holds a comparison without {compared.numbers.name}: no method is "
            "finished yet",
            hint="run the same `siamdiff compare` command again, then the report",
        )
    return None


def _recognise_file(path: Path) -> Source:
    numbers = path.with_suffix(".json")  # a figure's numbers lie beside it
    kind = _kind_of(numbers)
    if kind is None:
        raise DataError(
            f"'{path}' is a file, but none of a score, an audit or another result; expected "
            f"{EXPECTED}",
            hint="check the path",
        )
    if path != numbers and kind != "tsne":
        raise DataError(f"'{path}' is no figure of `siamdiff plot tsne`", hint=f"give {numbers}")
    return Source(kind, numbers)


def _kind_of(path: Path) -> Kind | None:
    """What a JSON file says that it is; None if it is not there or says nothing of ours."""
    content = optional_json(path)
    said = content.get("kind") if isinstance(content, Mapping) else None
    return next((kind for kind in _FILE_KINDS if kind == said), None)
