"""What a synthetic set says of itself: folds, mask origins, and what its generator was trained on.

Read from the plan, the manifest and, where it is still there, the generator's run folder. Free of
torch; knows no generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from siamese_diffusion.core.artifacts import read_json, read_jsonl
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.data.pairs import PairFolder


@dataclass(frozen=True)
class Item:
    """One synthetic pair: its fold, and the stem and file hash of the mask it came from."""

    fold: int
    origin: str
    mask_sha256: str


@dataclass(frozen=True)
class Provenance:
    """What is known of a synthetic set.

    Attributes:
        items: By file stem.
        recipe: Of its masks, "real" or "random".
        run: The generator's run folder, as recorded.
        run_fingerprint: Fingerprint of the pairs the generator was trained on.
        trained_on: Those pairs, if their folder is still there.
    """

    items: Mapping[str, Item]
    recipe: str
    run: str | None
    run_fingerprint: str | None
    trained_on: PairFolder | None


def read_provenance(folder: PairFolder) -> Provenance | None:
    """Provenance of an opened synthetic set; None if it has no manifest.

    Raises:
        DataError: If the manifest does not name every pair of the set.
    """
    paths = SyntheticPaths(folder.root)
    if not paths.plan_header.is_file() or not paths.manifest.is_file():
        return None
    header = read_json(paths.plan_header)
    items = {
        str(record["id"]): Item(
            int(str(record["fold"])), str(record["stem"]), str(record["source_sha256"])
        )
        for record in read_jsonl(paths.manifest)
    }
    unknown = [stem for stem in folder.stems if stem not in items]
    if unknown:
        raise DataError(
            f"manifest '{paths.manifest}' does not name {len(unknown)} of {len(folder)} pairs, "
            f"e.g. '{unknown[0]}'",
            hint="repeat the `siamdiff sample` command to complete it, or remove these files",
        )
    settings, origin = _mapping(header.get("settings")), _mapping(header.get("origin"))
    run, fingerprint = origin.get("run"), origin.get("run_data_fingerprint")
    return Provenance(
        items={stem: items[stem] for stem in folder.stems},
        recipe=str(settings.get("recipe", "real")),
        run=None if run is None else str(run),
        run_fingerprint=None if fingerprint is None else str(fingerprint),
        trained_on=_training_pairs(run),
    )


def prefer_folds(folder: PairFolder, known: Provenance | None, seed: int) -> list[int]:
    """Rows of a synthetic set in the order in which they are used: fold by fold, then by chance."""

    def key(row: int) -> tuple[int, bytes]:
        stem = folder.stems[row]
        fold = known.items[stem].fold if known is not None else 0
        return fold, hashlib.blake2b(f"{seed}/{stem}".encode(), digest_size=8).digest()

    return sorted(range(len(folder)), key=key)


def _training_pairs(run: object) -> PairFolder | None:
    """The pairs of a run's training split as they are now, if all of it is where it was."""
    if run is None or not RunPaths(Path(str(run))).run.is_file():
        return None
    data = _mapping(read_json(RunPaths(Path(str(run))).run).get("data"))
    split = data.get("split")
    try:
        return PairFolder.open(
            Path(str(data.get("root"))), split=None if split is None else str(split)
        )
    except DataError:
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
