"""Is a set still the one that was measured? Content is compared, not places or times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.data.listing import collect
from siamese_diffusion.data.pairs import PairFolder, image_fingerprint
from siamese_diffusion.reports.reading import count_of, read_records

_SHOWN = 12  # digits of a fingerprint that tell it apart


@dataclass(frozen=True)
class Freshness:
    """What is to be said: `stale` in plain sight, `remarks` where it could not be found out."""

    stale: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass
class Fingerprints:
    """Fingerprints of the sets on a page; a file is read once however often it was measured.

    Attributes:
        sets: Synthetic sets of the page.
    """

    sets: Sequence[Path]
    _known: dict[tuple[str, ...], str] = field(default_factory=dict, repr=False)
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False)

    def compare(
        self,
        recorded: Mapping[str, object],
        *,
        pairs: bool = False,
        first_of_mask: bool = False,
    ) -> Freshness:
        """Hold what was recorded when a set was measured against the set as it is now.

        Args:
            recorded: `path`, `fingerprint` and perhaps `split` of the set. Looked for is the set
                of the page at that place, else of that name, else the folder itself.
            pairs: Its masks count too, as they did for an alignment audit.
            first_of_mask: Only the first image of each mask was measured (protocol `paper`).

        Returns:
            Nothing to say if no fingerprint was recorded or it is still the same.
        """
        fingerprint, split = recorded.get("fingerprint"), recorded.get("split")
        root = Path(str(recorded.get("path")))
        if not isinstance(fingerprint, str):
            return Freshness()
        split = split if isinstance(split, str) else None
        found = []
        for place in self._places(root):
            try:
                if pairs:
                    found.append(self._of_pairs(place, split))
                else:
                    found.append(self._of_images(place, split, first_of_mask=first_of_mask))
            except DataError as error:
                return Freshness(remarks=(f"The set cannot be compared: {error.message}.",))
        if not found:
            told = f"'{root}' is not found from here, so nobody knows whether it changed since."
            return Freshness(remarks=(told,))
        if fingerprint in found:
            return Freshness()
        return Freshness(
            f"The set “{root.name}” is not, or no longer, the one that was measured: its content "
            f"has fingerprint {found[0][:_SHOWN]}…, recorded is {fingerprint[:_SHOWN]}…. Measure "
            "it again."
        )

    def _places(self, root: Path) -> list[Path]:
        same = [path for path in self.sets if path.resolve() == root.resolve()]
        named = [path for path in self.sets if path.resolve().name == root.name]
        return same or named or ([root] if root.is_dir() else [])

    def _of_pairs(self, root: Path, split: str | None) -> str:
        key = ("pairs", str(root), str(split))
        if key not in self._known:
            self._known[key] = PairFolder.open(root, split=split).fingerprint()
        return self._known[key]

    def _of_images(self, root: Path, split: str | None, *, first_of_mask: bool) -> str:
        folder = PairFolder.open(root, split=split, need="images")
        files = {pair.stem: pair.image for pair in folder.pairs if pair.image is not None}
        new = [path for path in files.values() if path not in self._hashes]
        self._hashes.update(zip(new, collect(file_sha256, new), strict=True))
        stems = _first_of_masks(root, list(files)) if first_of_mask else list(files)
        return image_fingerprint((stem, self._hashes[files[stem]]) for stem in stems)


def _first_of_masks(root: Path, stems: Sequence[str]) -> list[str]:
    """Stems with the lowest fold of each mask, in their order, as protocol `paper` takes them."""
    records, _ = read_records(SyntheticPaths(root).manifest)
    known = {str(record.get("id")): record for record in records}
    first: dict[str, tuple[int, str]] = {}
    for stem in stems:
        record = known.get(stem, {})
        mask, fold = str(record.get("stem", stem)), count_of(record.get("fold")) or 0
        if mask not in first or fold < first[mask][0]:
            first[mask] = (fold, stem)
    chosen = {stem for _, stem in first.values()}
    return [stem for stem in stems if stem in chosen]
