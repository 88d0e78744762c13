"""Refuse to score a segmenter on pairs that it, or the generator of its data, was trained on.

A run keeps the identity of every real pair that went into it by any way: as a training pair, as a
training pair of the generator behind its synthetic pairs, or as the mask a synthetic pair was made
from. A test pair with the same image, the same mask or nearly the same picture is refused. Free
of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from siamese_diffusion.core.artifacts import atomic_write_json, file_sha256
from siamese_diffusion.core.artifacts import read_json as read_record
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.data.listing import PairFile, collect
from siamese_diffusion.data.pairs import PairFolder, read_image
from siamese_diffusion.segmentation.mixture import Mixture

LOOK = 16  # side of the grey thumbnail that stands for a picture
# Mean difference of thumbnails, in grey levels, up to which two pictures are the same one. Of the
# public polyp sets, resized and re-encoded copies lie below 0.9 and neighbouring frames of one
# video above 1.6; other pairs of pictures above 11.
NEARLY = 1.25
_TOLD = 3

TRAINED = "trained on"
GENERATOR = "trained on by the generator of its synthetic pairs"
MASK_USED = "source of a synthetic pair's mask"
NEAR = "nearly the same picture as a training pair"
SAME_SET = "in the set that the generator was trained on"


@dataclass(frozen=True)
class Identity:
    """What a pair is recognised by: hashes of its files, and a thumbnail as hexadecimal."""

    stem: str
    image: str
    mask: str
    look: str


@dataclass(frozen=True)
class TrainingRecord:
    """Real pairs that went into a segmenter.

    Attributes:
        real: Those it was trained on.
        generator: Those its synthetic pairs' generator was trained on, if they could be found.
        masks: Hashes of mask files behind its synthetic pairs.
        fingerprint: Of the generator's training set, if it is recorded.
        unguarded: Why something is not covered, in sentences.
    """

    real: tuple[Identity, ...] = ()
    generator: tuple[Identity, ...] = ()
    masks: tuple[str, ...] = ()
    fingerprint: str | None = None
    unguarded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overlap:
    """Test pairs that should not be scored: stems by reason, with an example of each."""

    stems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len({stem for stems in self.stems.values() for stem in stems})

    def sentences(self) -> list[str]:
        """One for each reason, with the first few stems."""
        told = []
        for reason, stems in self.stems.items():
            more = f" and {len(stems) - _TOLD} more" if len(stems) > _TOLD else ""
            told.append(f"{len(stems)} {reason}: {', '.join(stems[:_TOLD])}{more}")
        return told


def record_training(mixture: Mixture) -> TrainingRecord:
    """Identities of everything real behind a training list.

    A synthetic set without a manifest is trusted with nothing: the record says that it is not
    guarded.
    """
    kinds = {kind for kind, _ in mixture.entries}
    real = identities(mixture.real) if "real" in kinds else ()
    if mixture.synthetic is None:
        return TrainingRecord(real)
    known = mixture.known
    if known is None:
        return TrainingRecord(
            real,
            unguarded=(
                f"'{mixture.synthetic.root}' has no manifest, so nothing is known of the pairs "
                "behind it",
            ),
        )
    notes = []
    generator: tuple[Identity, ...] = ()
    if known.trained_on is not None:
        generator = identities(known.trained_on)
    else:
        what = "by the fingerprint of the whole set" if known.run_fingerprint else "not at all"
        notes.append(
            f"the training pairs of generator '{known.run}' are not where they were; they are "
            f"recognised {what}"
        )
    masks = {item.mask_sha256 for item in known.items.values()}
    return TrainingRecord(
        real, generator, tuple(sorted(masks)), known.run_fingerprint, tuple(notes)
    )


def identities(folder: PairFolder) -> tuple[Identity, ...]:
    """Identity of every pair of a folder."""

    def one(pair: PairFile) -> Identity:
        assert pair.image is not None and pair.mask is not None
        return Identity(
            pair.stem, file_sha256(pair.image), file_sha256(pair.mask), look(read_image(pair)).hex()
        )

    return tuple(collect(one, folder.pairs))


def look(image: npt.NDArray[np.uint8]) -> bytes:
    """Grey thumbnail of a picture (H, W, 3), 256 bytes; survives resizing and re-encoding."""
    small = Image.fromarray(image).convert("L").resize((LOOK, LOOK), Image.Resampling.BOX)
    return small.tobytes()


def write_training(paths: SegmenterPaths, record: TrainingRecord) -> None:
    """Write `training.json`."""

    def rows(pairs: Iterable[Identity]) -> list[list[str]]:
        return [[p.stem, p.image, p.mask, p.look] for p in pairs]

    atomic_write_json(
        paths.training,
        {
            "columns": ["stem", "image_sha256", "mask_sha256", "look"],
            "real": rows(record.real),
            "generator": rows(record.generator),
            "synthetic_masks_sha256": list(record.masks),
            "generator_data_fingerprint": record.fingerprint,
            "unguarded": list(record.unguarded),
        },
    )


def read_training(paths: SegmenterPaths) -> TrainingRecord:
    """Read `training.json`.

    Raises:
        OutputError: If it is missing or damaged.
    """
    content = read_record(paths.training)

    def rows(key: str) -> tuple[Identity, ...]:
        found = content[key]
        assert isinstance(found, list)
        return tuple(Identity(*(str(value) for value in row)) for row in found)

    masks, notes = content["synthetic_masks_sha256"], content["unguarded"]
    assert isinstance(masks, list) and isinstance(notes, list)
    fingerprint = content["generator_data_fingerprint"]
    return TrainingRecord(
        rows("real"),
        rows("generator"),
        tuple(str(mask) for mask in masks),
        None if fingerprint is None else str(fingerprint),
        tuple(str(note) for note in notes),
    )


def find_overlap(record: TrainingRecord, test: PairFolder) -> Overlap:
    """Test pairs that went into the segmenter, with the reason.

    A pair is told of under its first reason only. Masks without any foreground prove nothing and
    are not compared.
    """
    pairs = identities(test)
    unknown = record.fingerprint is not None and not record.generator
    if unknown and test.fingerprint() == record.fingerprint:
        return Overlap({SAME_SET: test.stems})
    images = {p.image for p in record.real}, {p.image for p in record.generator}
    blank = set(test.degenerate()["empty"])
    sources = set(record.masks)
    known = [*record.real, *record.generator]
    looks = np.array([list(bytes.fromhex(p.look)) for p in known], np.float32)
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.image in images[0]:
            reason = TRAINED
        elif pair.image in images[1]:
            reason = GENERATOR
        elif pair.mask in sources and pair.stem not in blank:
            reason = MASK_USED
        elif len(looks) and _nearest(looks, pair.look) <= NEARLY:
            reason = NEAR
        else:
            continue
        found.setdefault(reason, []).append(pair.stem)
    return Overlap({reason: tuple(stems) for reason, stems in found.items()})


def refuse_overlap(overlap: Overlap, test: PairFolder) -> None:
    """Refuse a test set with overlap.

    Raises:
        DataError: With the number of pairs for each reason.
    """
    if not overlap.count:
        return
    what = f"'{test.root}'" + (f", split '{test.split}'" if test.split else "")
    raise DataError(
        f"{overlap.count} of {len(test)} test pairs of {what} went into this segmenter:\n"
        + "\n".join(f"- {sentence}" for sentence in overlap.sentences()),
        hint="score on other pairs; --allow-overlap scores on these and records that it did",
    )


def _nearest(looks: npt.NDArray[np.float32], one: str) -> float:
    mine = np.frombuffer(bytes.fromhex(one), np.uint8).astype(np.float32)
    return float(np.abs(looks - mine).mean(1).min())
