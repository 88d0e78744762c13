"""Keep the pairs of a synthetic set that passed its audits; say of every pair why.

The filtered set is a data-set folder again. Reads audits from their files and knows nothing of how
they were made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from siamese_diffusion.core.artifacts import (
    atomic_folder,
    atomic_write_json,
    atomic_write_text,
    read_json,
    read_jsonl,
)
from siamese_diffusion.core.config import nearest
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import AuditPaths, SyntheticPaths
from siamese_diffusion.data.pairs import PairFile, PairFolder
from siamese_diffusion.metrics.sets import open_set

KIND: Final = "filtered"
RULES: Final = {
    "dice": "dice=0.6: Dice of the alignment audit at least 0.6",
    "boundary": "boundary=0.05: boundary distance of the alignment audit at most 0.05",
    "aligned": "aligned: Dice not below the worst 5 % of real pairs",
    "original": "original: not listed as a near copy by the memorisation audit",
    "clean": "clean: not listed by the artefact audit as blank, blurred, noisy or burnt out",
}
_WITH_NUMBER: Final = ("dice", "boundary")
_OF_ALIGNMENT: Final = ("dice", "boundary", "aligned")
Scores = Mapping[str, Mapping[str, float | str]]
Test = Callable[[Mapping[str, float | str]], str | None]
"""Scores of a pair to the reason for its rejection, or None."""


@dataclass(frozen=True)
class Rule:
    """One `--keep`."""

    name: str
    limit: float | None

    @property
    def text(self) -> str:
        """As it was written."""
        return self.name if self.limit is None else f"{self.name}={self.limit:g}"


@dataclass(frozen=True)
class FilterSummary:
    """How many pairs were kept, and how often each reason was met among the others."""

    out: Path
    kept: int
    rejected: int
    reasons: Mapping[str, int]


def parse_rules(texts: Sequence[str]) -> list[Rule]:
    """`--keep` options as rules.

    Raises:
        ConfigError: For an unknown rule, a missing or needless number, or no rule at all.
    """
    hint = "; ".join(RULES.values())
    if not texts:
        raise ConfigError("nothing says which pairs to keep", hint=f"add --keep: {hint}")
    rules = []
    for text in texts:
        name, separator, number = (part.strip() for part in text.partition("="))
        if name not in RULES:
            raise ConfigError(f"unknown rule '{name}'{nearest(name, list(RULES))}", hint=hint)
        if name not in _WITH_NUMBER:
            if separator:
                raise ConfigError(f"rule '{name}' takes no number, got '{text}'", hint=hint)
            rules.append(Rule(name, None))
            continue
        try:
            limit = float(number)
        except ValueError:
            raise ConfigError(f"rule '{text}' needs a number", hint=hint) from None
        if not 0 <= limit <= 1:
            raise ConfigError(f"rule '{text}' must lie within 0 to 1", hint=hint)
        rules.append(Rule(name, limit))
    return rules


def filter_set(synthetic: Path, audit: Path, rules: Sequence[Rule], out: Path) -> FilterSummary:
    """Copy the pairs that pass all rules into a new data-set folder.

    `manifest.jsonl` has the kept pairs and `rejected.jsonl` the others, each line with its scores,
    the latter with reasons; `filter.json` says what was done.

    Args:
        synthetic: The audited set.
        audit: Folder of its audits.
        rules: See `parse_rules`.
        out: New or empty folder.

    Raises:
        ConfigError: If no pair would be left.
        DataError: If an audit that a rule needs is missing or is of another set.
        OutputError: If `out` holds something or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"output '{out}' is not an empty folder", hint="choose a new or empty output folder"
        )
    folder = PairFolder.open(synthetic)
    tests, scores = _tests(folder, AuditPaths(audit), rules)
    lines = {str(r.get("id")): r for r in read_jsonl(SyntheticPaths(synthetic).manifest)}
    kept: list[tuple[PairFile, dict[str, object]]] = []
    rejected: list[dict[str, object]] = []
    counts: dict[str, int] = {}
    for pair in folder.pairs:
        found = scores[pair.stem]
        reasons = [reason for test in tests if (reason := test(found)) is not None]
        record = {"id": pair.stem, **lines.get(pair.stem, {}), "audit": dict(found)}
        if reasons:
            rejected.append({**record, "rejected": reasons})
            for rule, test in zip(rules, tests, strict=True):
                counts[rule.text] = counts.get(rule.text, 0) + (test(found) is not None)
        else:
            kept.append((pair, record))
    if not kept:
        raise ConfigError(
            f"no pair of '{synthetic}' passes {', '.join(rule.text for rule in rules)} "
            f"({len(rejected)} rejected)",
            hint="use gentler rules",
        )
    with atomic_folder(out) as temporary:
        paths = SyntheticPaths(temporary)
        paths.images.mkdir()
        paths.masks.mkdir()
        for pair, _ in kept:
            assert pair.image is not None and pair.mask is not None  # need="pairs"
            shutil.copyfile(pair.image, paths.images / pair.image.name)
            shutil.copyfile(pair.mask, paths.masks / pair.mask.name)
        if folder.prompt.strip():
            atomic_write_text(paths.prompt, folder.prompt + "\n")
        atomic_write_text(paths.manifest, _jsonl([record for _, record in kept]))
        atomic_write_text(paths.rejected, _jsonl(rejected))
        atomic_write_json(
            paths.filter,
            {
                "kind": KIND,
                "synthetic": str(synthetic),
                "fingerprint": folder.fingerprint(),
                "audit": str(audit),
                "rules": [rule.text for rule in rules],
                "kept": len(kept),
                "rejected": len(rejected),
                "rejected_by_rule": counts,
                "environment": snapshot(),
            },
        )
    return FilterSummary(out, len(kept), len(rejected), counts)


def _tests(
    folder: PairFolder, audit: AuditPaths, rules: Sequence[Rule]
) -> tuple[list[Test], dict[str, dict[str, float | str]]]:
    """One test a rule, in order, and the audited scores of every pair."""
    scores: dict[str, dict[str, float | str]] = {stem: {} for stem in folder.stems}
    floor = 0.0
    names = {rule.name for rule in rules}
    if names & set(_OF_ALIGNMENT):
        content = _audit(audit.alignment, "alignment", folder.fingerprint())
        for pair in _records(content, "pairs"):
            scores[str(pair["stem"])] |= {
                "dice": _number(pair["dice"]),
                "boundary": _number(pair["boundary"]),
            }
        floor = _number(content["poor_below_dice"])
    if "original" in names:
        content = _audit(audit.memorisation, "memorisation", open_set(folder.root).fingerprint)
        for copy in _records(content, "near_copies"):
            scores[str(copy["stem"])].setdefault("copy_of", str(copy["nearest"]))
    if "clean" in names:
        content = _audit(audit.artefacts, "artefacts", open_set(folder.root).fingerprint)
        for image in _records(content, "images"):
            found = scores[str(image["stem"])]
            found["artefacts"] = _number(image["score"])
            if _number(image["score"]) > _number(content["limit"]):
                found["artefact"] = str(image["farthest"])
    return [_test(rule, floor) for rule in rules], scores


def _test(rule: Rule, floor: float) -> Test:
    def at_least(least: float, why: str) -> Test:
        def test(found: Mapping[str, float | str]) -> str | None:
            dice = _number(found["dice"])
            return None if dice >= least else f"Dice {dice:.4f} is below {least:.4g}{why}"

        return test

    def at_most(found: Mapping[str, float | str]) -> str | None:
        boundary = _number(found["boundary"])
        assert rule.limit is not None  # parse_rules
        if boundary <= rule.limit:
            return None
        return f"boundary distance {boundary:.4f} is above {rule.limit:.4g}"

    def is_original(found: Mapping[str, float | str]) -> str | None:
        source = found.get("copy_of")
        return None if source is None else f"near copy of training image '{source}'"

    def is_clean(found: Mapping[str, float | str]) -> str | None:
        why = found.get("artefact")
        return None if why is None else f"{why} (artefact score {found['artefacts']:.2f})"

    if rule.name == "clean":
        return is_clean
    if rule.name == "dice":
        assert rule.limit is not None
        return at_least(rule.limit, "")
    if rule.name == "aligned":
        return at_least(floor, ", the worst 5 % of real pairs")
    return at_most if rule.name == "boundary" else is_original


def _audit(path: Path, name: str, fingerprint: str) -> dict[str, object]:
    if not path.is_file():
        raise DataError(
            f"'{path}' is not there, but a rule needs the {name} audit",
            hint=f"run siamdiff audit {name} --out {path.parent}",
        )
    content = read_json(path)
    synthetic = content.get("synthetic")
    found = synthetic.get("fingerprint") if isinstance(synthetic, Mapping) else None
    if found != fingerprint:
        raise DataError(
            f"'{path}' is the audit of another set, or the set changed since (fingerprint "
            f"{str(found)[:12]}, the set has {fingerprint[:12]})",
            hint=f"repeat siamdiff audit {name} for this set",
        )
    return content


def _records(content: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    found = content[key]
    assert isinstance(found, list)
    return found


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _jsonl(records: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
