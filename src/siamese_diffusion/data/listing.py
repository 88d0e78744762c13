"""Find the pairs of a data-set folder and everything wrong with its names, lists and headers.

No pixel is decoded here and nothing is raised for a single file: problems are collected, so that
a user mends all of them at once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

from siamese_diffusion.core.config import nearest
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data import images, prompts
from siamese_diffusion.data.images import Header

Kind = Literal["images", "masks"]
Need = Literal["pairs", "images", "masks"]

LISTED: Final = 5  # stems named in a message before "and n more"
_WORKERS: Final = 4
_NOT_SPLITS: Final = frozenset({"prompt", "readme", "license", "licence", "notes", "citation"})
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class PairFile:
    """One pair; `image` is None in a masks-only set and `mask` in an images-only set."""

    stem: str
    image: Path | None
    mask: Path | None
    prompt: str


@dataclass
class _Files:
    """Every file found for one stem."""

    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    prompt: str | None = None

    def of(self, kind: Kind) -> list[Path]:
        return self.images if kind == "images" else self.masks


@dataclass
class Listing:
    """Pairs found in a folder and everything wrong with its names, lists and headers."""

    pairs: list[PairFile]
    problems: list[str]
    prompt: str
    notes: list[str] = field(default_factory=list)
    stems: frozenset[str] = frozenset()
    """Every stem found, whether usable or not."""


def list_folder(
    root: Path, *, split: str | None = None, need: Need = "pairs", prompt: str | None = None
) -> Listing:
    """Find pairs without raising; `PairFolder.open` and `check_folder` stand on it."""
    root = Path(root)
    problems: list[str] = []
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        return Listing([], [f"'{root}' {what}"], "")
    if not os.access(root, os.R_OK | os.X_OK):
        return Listing([], [f"'{root}' may not be read by this user"], "")
    own = prompts.read_prompt(root, problems)
    fallback = own if prompt is None else prompt
    listing = Listing([], problems, fallback)
    index = prompts.read_index(root, problems)
    wanted = _wanted_stems(root, split, problems)
    if index is None:
        found = _from_subfolders(root, need, listing)
    else:
        found = _from_index(root / prompts.INDEX_FILE, index, need, problems)
    listing.stems = frozenset(found)
    picked = found if wanted is None else {s: f for s, f in found.items() if s in wanted}
    if wanted is not None and found and (unknown := sorted(wanted - found.keys())):
        problems.append(f"split list '{split}.txt' names unknown stems: {some(unknown)}")
    kinds: list[Kind] = ["images", "masks"] if need == "pairs" else [need]
    for kind in kinds:
        problems.extend(_partner_problems(kind, found, picked))
    for stem, files in sorted(picked.items()):
        if all(files.of(kind) for kind in kinds):
            image = files.images[0] if "images" in kinds else None
            mask = files.masks[0] if "masks" in kinds else None
            text = files.prompt if files.prompt is not None and prompt is None else fallback
            listing.pairs.append(PairFile(stem, image, mask, text))
    _check_headers(listing)
    if not listing.pairs and (wanted is None or picked):
        what = {"pairs": "image-mask pair", "images": "image", "masks": "mask"}[need]
        problems.append(f"no usable {what} found (formats: {', '.join(images.SUFFIXES)})")
    elif not listing.pairs and not problems:
        problems.append(f"split list '{split}.txt' leaves no pair")
    return listing


def split_lists(root: Path) -> list[str]:
    """Names of the split lists of a folder: its .txt files except prompts and notes."""
    return sorted(p.stem for p in root.glob("*.txt") if p.stem.lower() not in _NOT_SPLITS)


def read_split(root: Path, split: str) -> list[str]:
    """The lines of a split list, blank ones skipped, suffixes of pictures removed.

    Raises:
        DataError: If there is no such list or it is not UTF-8 text.
    """
    known = split_lists(root)
    if split not in known:
        lists = ", ".join(known) if known else "none"
        raise DataError(
            f"no split list '{split}.txt' in '{root}'{nearest(split, known)} (lists here: {lists})",
            hint="choose one of them, or leave the split out to take all pairs",
        )
    try:
        lines = (root / f"{split}.txt").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"split list '{root / split}.txt' cannot be read ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    return [Path(n).stem if Path(n).suffix.lower() in images.SUFFIXES else n for n in names]


def some(names: Sequence[str]) -> str:
    """At most five names and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _wanted_stems(root: Path, split: str | None, problems: list[str]) -> set[str] | None:
    if split is None:
        return None
    try:
        names = read_split(root, split)
    except DataError as error:
        problems.append(error.message)
        return set()
    if not names:
        problems.append(f"split list '{split}.txt' is empty")
    twice = sorted(stem for stem, count in Counter(names).items() if count > 1)
    if twice:
        problems.append(f"split list '{split}.txt' names stems twice: {some(twice)}")
    return set(names)


def _from_subfolders(root: Path, need: Need, listing: Listing) -> dict[str, _Files]:
    found: dict[str, _Files] = {}
    folders = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    kinds: list[Kind] = ["images", "masks"] if need == "pairs" else [need]
    for kind in kinds:
        folder = root / kind
        if not folder.is_dir():
            # Images or masks alone may lie flat, but not beside the other kind's subfolder.
            if need == "pairs" or {"images", "masks"} & set(folders):
                listing.problems.append(f"no folder '{kind}' in '{root}'{nearest(kind, folders)}")
                continue
            folder = root
        if not os.access(folder, os.R_OK | os.X_OK):
            listing.problems.append(f"'{folder}' may not be read by this user")
            continue
        for path in sorted(folder.iterdir()):
            if images.is_picture(path) and path.is_file():
                found.setdefault(path.stem, _Files()).of(kind).append(path)
            elif folder != root and not path.name.startswith("."):
                listing.notes.append(f"'{path}' is not a picture file and is ignored")
    return found


def _from_index(
    path: Path, lines: Sequence[prompts.IndexLine], need: Need, problems: list[str]
) -> dict[str, _Files]:
    found: dict[str, _Files] = {}
    incomplete: list[str] = []
    absent: list[str] = []
    for line in lines:
        image = line.image if need != "masks" else None
        mask = line.mask if need != "images" else None
        key = image or mask
        if key is None or (need == "pairs" and (image is None or mask is None)):
            incomplete.append(f"line {line.number}")
            continue
        missing = [str(p) for p in (image, mask) if p is not None and not p.is_file()]
        absent.extend(missing)
        files = found.setdefault(key.stem, _Files(prompt=line.prompt))
        files.images.extend([image] if image and not missing else [])
        files.masks.extend([mask] if mask and not missing else [])
    if incomplete:
        wanted = {"pairs": "source and target", "images": "target", "masks": "source"}[need]
        problems.append(f"'{path}' lacks {wanted} in {some(incomplete)}")
    if absent:
        problems.append(f"'{path}' names missing files: {some(absent)}")
    # A stem whose files are absent has been told of; it must not be told of again as unpaired.
    return {stem: files for stem, files in found.items() if files.images or files.masks}


def _partner_problems(kind: Kind, found: dict[str, _Files], picked: dict[str, _Files]) -> list[str]:
    problems: list[str] = []
    word, other = ("image", "mask") if kind == "images" else ("mask", "image")
    several = {stem: files.of(kind) for stem, files in picked.items() if len(files.of(kind)) > 1}
    if several:
        shown = [f"{s} ({', '.join(p.name for p in several[s])})" for s in sorted(several)]
        problems.append(f"several {word}s with one stem: {some(shown)}; keep one of each")
    missing = sorted(stem for stem, files in picked.items() if not files.of(kind))
    if missing and any(files.of(kind) for files in found.values()):
        advice = _suffix_advice(kind, found, missing)
        problems.append(f"{other} without {word}: {some(missing)}{advice}")
    return problems


def _suffix_advice(kind: Kind, found: dict[str, _Files], missing: Sequence[str]) -> str:
    """Say so if the partners exist under names with one common ending, as `x_mask` for `x`."""
    other: Kind = "masks" if kind == "images" else "images"
    partners = [stem for stem, files in found.items() if files.of(kind) and not files.of(other)]
    endings = Counter(
        partner.removeprefix(stem)
        for stem in missing[:50]
        for partner in partners
        if partner.startswith(stem)
    )
    ending, count = endings.most_common(1)[0] if endings else ("", 0)
    if count == 0 or 2 * count < len(missing[:50]):
        return ""
    return f"; remove the ending '{ending}' from the names of the {kind} to pair them"


def _check_headers(listing: Listing) -> None:
    def headers(pair: PairFile) -> tuple[str, list[str]]:
        wrong: list[str] = []
        sizes: list[tuple[Path, Header]] = []
        for path in (pair.image, pair.mask):
            if path is None:
                continue
            try:
                sizes.append((path, images.read_header(path)))
            except DataError as error:
                wrong.append(error.message)
        if len(sizes) == 2:
            (image, first), (mask, second) = sizes
            if (first.width, first.height) != (second.width, second.height):
                turned = " (turned by its EXIF orientation)" if first.turned else ""
                wrong.append(
                    f"mask '{mask.name}' is {second.width}x{second.height} but its image "
                    f"'{image.name}' is {first.width}x{first.height}{turned}; "
                    "resize one to the other"
                )
        return pair.stem, wrong

    bad = {stem: wrong for stem, wrong in collect(headers, listing.pairs) if wrong}
    messages = [message for wrong in bad.values() for message in wrong]
    listing.problems.extend(messages[: 4 * LISTED])
    if len(messages) > 4 * LISTED:
        listing.problems.append(f"and {len(messages) - 4 * LISTED} more files like these")
    listing.pairs = [pair for pair in listing.pairs if pair.stem not in bad]


def collect(
    function: Callable[[_In], _Out],
    things: Sequence[_In],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Out]:
    """Map in threads, in order; all DataErrors are told in one."""
    results: list[_Out] = []
    errors: list[DataError] = []

    def attempt(thing: _In) -> _Out | DataError:
        try:
            return function(thing)
        except DataError as error:
            return error

    with ThreadPoolExecutor(_WORKERS) as pool:
        for done, result in enumerate(pool.map(attempt, things), start=1):
            if isinstance(result, DataError):
                errors.append(result)
            else:
                results.append(result)
            if progress is not None:
                progress(done, len(things))
    if errors:
        more = f"\nand {len(errors) - LISTED} more" if len(errors) > LISTED else ""
        text = "\n".join(error.message for error in errors[:LISTED])
        raise DataError(text + more, hint=errors[0].hint)
    return results
