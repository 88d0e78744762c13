"""Draw, strip and shuffle: a blinded study from a real set and one synthetic set per method.

Images leave their files as bare pixels, all resized and encoded alike. What is drawn and in which
order is a function of the seed; names and tokens are secret random numbers, so that neither the
seed nor this code tells a rater where an image came from. Masks are not shown.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import (
    atomic_folder,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    text_sha256,
)
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import StudyKeyPaths, StudyPaths
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data import images
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.data.listing import PairFile, collect
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.mos.screens import screen_order
from siamese_diffusion.mos.study import FORMAT, REAL, default_key_folder

PER_SOURCE: Final = 50  # three raters times 50 images is the smallest count that gives Table 1
REPEATS: Final = 5
MOST_RATERS: Final = 100
SMALLEST: Final = 32  # pixels; below this there is nothing to judge
LARGEST: Final = 2048


_NAME: Final = re.compile(r"[\w.+\- ]{1,40}")


@dataclass(frozen=True)
class Prepared:
    """What was written: folders, counts, and what a reader of the results should know."""

    study: Path
    key: Path
    links: Path
    size: int
    images: int
    screens: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Drawn:
    item: str
    source: str
    root: Path
    file: Path


def prepare(
    real: Path,
    synthetic: Mapping[str, Path],
    out: Path,
    *,
    key: Path | None = None,
    split: str | None = None,
    raters: int = 3,
    per_source: int = PER_SOURCE,
    repeats: int = REPEATS,
    size: int | None = None,
    jpeg_quality: int | None = None,
    seed: int | None = None,
    title: str = "Image rating study",
    base_url: str = "http://127.0.0.1:8765",
) -> Prepared:
    """Write a study folder and, apart from it, its key and the raters' links.

    Args:
        real: Folder of real images (a data set, or images lying flat).
        synthetic: Folder of synthetic images per method; the name is shown to no rater.
        out: New study folder: all the server needs.
        key: New folder of the key; default: `out` with `-key` added, beside it.
        split: Draw real images from this list of the real folder only.
        raters: Number of personal links.
        per_source: Images drawn from each source, the real one included, without replacement.
        repeats: Images that each rater sees a second time, for self-consistency.
        size: Side in pixels of all images; default: the smallest side among those drawn, so
            that none is enlarged.
        jpeg_quality: Encode all images as JPEG of this quality; default lossless PNG.
        seed: Of draws and orders; default: a random one, recorded in the key.
        title: Heading of the raters' pages.
        base_url: Where raters will reach the server; start of their links.

    Raises:
        ConfigError: For impossible counts, sizes or names.
        DataError: For a folder that is missing, given twice or has too few or damaged images.
        OutputError: If `out` or `key` exists, or one lies inside the other.
    """
    for name in synthetic:
        _check_name(name)
    sources = {REAL: Path(real), **{name: Path(root) for name, root in synthetic.items()}}
    key = default_key_folder(out) if key is None else key
    _check_request(sources, raters, per_source, repeats, size, jpeg_quality)
    _check_outputs(out, key)
    opened = _open(sources, split, per_source)
    seed = secrets.randbits(62) if seed is None else seed
    drawn = _draw(opened, sources, per_source, seed)
    sides = collect(lambda one: min(_sides(one.file)), drawn)
    side = min(sides) if size is None else size
    if not SMALLEST <= side <= LARGEST:
        raise DataError(
            f"images would be shown at {side} px; {SMALLEST} to {LARGEST} px are allowed",
            hint="set --size, or leave out sets with smaller images",
        )
    notes = _size_notes(drawn, sides, side)
    suffix = ".png" if jpeg_quality is None else ".jpg"
    tokens = {f"rater-{n}": secrets.token_urlsafe(24) for n in range(1, raters + 1)}
    groups = {name: [d.item for d in drawn if d.source == name] for name in sources}
    orders = {rater: screen_order(groups, repeats, seed, rater) for rater in tokens}
    study = secrets.token_hex(8)
    with atomic_folder(out) as folder, atomic_folder(key) as secret:
        secret.chmod(0o700)
        notes += _write_images(drawn, StudyPaths(folder).images, side, suffix, jpeg_quality)
        record = {
            "format": FORMAT,
            "study": study,
            "title": title,
            "size": side,
            "suffix": suffix,
            # Sorted by their random names, so that the place in the list tells nothing.
            "items": {
                one.item: file_sha256(StudyPaths(folder).images / f"{one.item}{suffix}")
                for one in sorted(drawn, key=lambda d: d.item)
            },
            "raters": [
                {"rater": rater, "token_sha256": text_sha256(token), "order": orders[rater]}
                for rater, token in tokens.items()
            ],
        }
        atomic_write_json(StudyPaths(folder).study, record)
        paths = StudyKeyPaths(secret)
        atomic_write_json(
            paths.key,
            {
                "format": FORMAT,
                "study": study,
                "seed": seed,
                "version": __version__,
                "per_source": per_source,
                "repeats": repeats,
                "sources": {name: str(root) for name, root in sources.items()},
                "items": {
                    one.item: {
                        "source": one.source,
                        "file": os.path.relpath(one.file, one.root),
                        "sha256": file_sha256(one.file),
                    }
                    for one in drawn
                },
                "notes": notes,
            },
        )
        atomic_write_text(paths.links, _links(tokens, base_url))
    return Prepared(
        study=out,
        key=key,
        links=StudyKeyPaths(key).links,
        size=side,
        images=len(drawn),
        screens=len(drawn) + repeats,
        notes=tuple(notes),
    )


def parse_sources(given: Sequence[str]) -> dict[str, Path]:
    """`NAME=FOLDER` or `FOLDER` (named by itself) as a mapping from method to folder.

    Raises:
        ConfigError: If a name is used twice or cannot be a name.
    """
    sources: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or "/" in name:
            name, folder = Path(text).resolve().name, text
        _check_name(name)
        if name in sources:
            raise ConfigError(
                f"method name '{name}' is given twice, for '{sources[name]}' and '{folder}'",
                hint="name each method once: --synthetic NAME=FOLDER",
            )
        sources[name] = Path(folder)
    return sources


def encode(pixels: Pixels, jpeg_quality: int | None = None) -> bytes:
    """PNG or JPEG of RGB pixels (H, W, 3) uint8, without text, EXIF, profile or time."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if jpeg_quality is None:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    return buffer.getvalue()


def _check_name(name: str) -> None:
    if name == REAL or not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a method; 1 to 40 letters, digits, spaces or .+_- "
            f"are allowed, and not '{REAL}'",
            hint="name it: --synthetic NAME=FOLDER",
        )


def _check_request(
    sources: Mapping[str, Path],
    raters: int,
    per_source: int,
    repeats: int,
    size: int | None,
    jpeg_quality: int | None,
) -> None:
    if len(sources) < 2:
        raise ConfigError(
            "a study needs at least one synthetic set", hint="add --synthetic NAME=FOLDER"
        )
    for name, value, low, high in (
        ("raters", raters, 1, MOST_RATERS),
        ("per-source", per_source, 2, 10_000),
        ("size", size, SMALLEST, LARGEST),
        ("jpeg-quality", jpeg_quality, 1, 100),
        # Repeats return in the second half, so they must fit into the first.
        ("repeats", repeats, 0, len(sources) * per_source // 2),
    ):
        if value is not None and not low <= value <= high:
            raise ConfigError(
                f"--{name} {value} is not possible; {low} to {high} are allowed here",
                hint=f"choose --{name} between {low} and {high}",
            )
    seen: dict[Path, str] = {}
    for name, root in sources.items():
        other = seen.setdefault(root.resolve(), name)
        if other != name:
            raise DataError(
                f"'{root}' is given twice, as '{other}' and as '{name}'",
                hint="every source of a study is a folder of its own",
            )


def _check_outputs(out: Path, key: Path) -> None:
    for path in (out, key):
        if path.exists() or path.is_symlink():
            raise OutputError(
                f"'{path}' exists; a study is never written over",
                hint="choose another --out (and --key), or remove it yourself",
            )
    left, right = out.resolve(), key.resolve()
    if left == right or left in right.parents or right in left.parents:
        raise OutputError(
            f"the key '{key}' and the study '{out}' must not lie inside one another",
            hint="the study folder goes to the server, the key stays with you; choose --key FOLDER",
        )


def _open(
    sources: Mapping[str, Path], split: str | None, per_source: int
) -> dict[str, tuple[PairFile, ...]]:
    opened = {}
    problems = []
    for name, root in sources.items():
        try:
            folder = PairFolder.open(root, split=split if name == REAL else None, need="images")
        except DataError as error:
            problems.append(error.message)
            continue
        if len(folder) < per_source:
            problems.append(
                f"source '{name}' ('{root}') has {len(folder)} images; {per_source} are to be drawn"
            )
        opened[name] = folder.pairs
    if problems:
        raise DataError("\n".join(problems), hint="mend the folders, or lower --per-source")
    return opened


def _draw(
    opened: Mapping[str, Sequence[PairFile]],
    sources: Mapping[str, Path],
    per_source: int,
    seed: int,
) -> list[_Drawn]:
    drawn = []
    for name, pairs in opened.items():
        rng = np.random.default_rng(derive_seed(seed, "draw", name))
        for index in sorted(rng.choice(len(pairs), per_source, replace=False)):
            file = pairs[index].image
            assert file is not None  # opened with need="images"
            drawn.append(_Drawn(secrets.token_hex(8), name, sources[name], file))
    return drawn


def _sides(path: Path) -> tuple[int, int]:
    header = images.read_header(path)
    return header.width, header.height


def _size_notes(drawn: Sequence[_Drawn], sides: Sequence[int], side: int) -> list[str]:
    notes = []
    small = sorted({d.source for d, own in zip(drawn, sides, strict=True) if own < side})
    if small:
        notes.append(
            f"images of {', '.join(small)} are enlarged to {side} px; blur may give them away"
        )
    squashed = sorted({d.source for d in drawn if len(set(_sides(d.file))) > 1})
    if squashed:
        notes.append(
            f"images of {', '.join(squashed)} are not square; they are resized to a square without "
            "keeping the aspect, as for training"
        )
    lossy = {
        name: [images.is_lossy(d.file) for d in drawn if d.source == name]
        for name in {d.source for d in drawn}
    }
    if any(any(flags) for flags in lossy.values()) and not all(all(f) for f in lossy.values()):
        named = sorted(name for name, flags in lossy.items() if any(flags))
        notes.append(
            f"images of {', '.join(named)} come from JPEG files and others do not; traces of the "
            "compression may give them away (--jpeg-quality compresses all alike)"
        )
    return notes


def _write_images(
    drawn: Sequence[_Drawn], folder: Path, side: int, suffix: str, jpeg_quality: int | None
) -> list[str]:
    """Write the bare pixels of every item; returns notes about equal ones."""

    def write(one: _Drawn) -> tuple[str, _Drawn]:
        pixels = images.resize_image(images.read_image(one.file), side)
        path = folder / f"{one.item}{suffix}"
        atomic_write_bytes(path, encode(pixels, jpeg_quality))
        os.utime(path, (0, 0))  # the order of writing is the order of sources
        return hashlib.sha256(pixels.tobytes()).hexdigest(), one

    seen: dict[str, _Drawn] = {}
    equal = []
    for digest, one in collect(write, drawn):
        other = seen.setdefault(digest, one)
        if other is not one:
            equal.append(f"{one.source}/{one.file.name} = {other.source}/{other.file.name}")
    if not equal:
        return []
    more = f" and {len(equal) - 3} more" if len(equal) > 3 else ""
    return [f"{len(equal)} drawn images equal another one: {', '.join(equal[:3])}{more}"]


def _links(tokens: Mapping[str, str], base_url: str) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rater", "link"])
    for rater, token in tokens.items():
        writer.writerow([rater, f"{base_url.rstrip('/')}/r/{token}"])
    return buffer.getvalue()
