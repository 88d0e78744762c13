"""The plan of a synthetic set: every item, known before the first image is made.

An item depends on its mask, the settings, the model and its own seeds, never on the order or the
number of the other masks, so that workers need to agree on nothing but the plan. Free of torch;
knows nothing of how images are made.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.artifacts import FORMAT, file_sha256, read_json, text_sha256
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.data.mask_recipes import TransformRecord, apply_transform, transform_mask
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.settings import DEPARTURES, SampleSettings

KIND = "synthetic"
Mask = npt.NDArray[np.uint8]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanItem:
    """One image to make.

    Attributes:
        id: File name without suffix: `<stem>`, `<stem>_f<fold>` or `<stem>_r<fold>`.
        index: Place in the plan, from 0.
        source: Mask file relative to the folder of masks.
        source_sha256: Hash of that file's bytes.
        transform: Record of the random recipe; None for an unchanged mask.
        seed: Of the image's noise, 63 bits.
        content: Hash over all that determines the image.
        reference: Real image it is sampled from, relative to the folder of images; None for all
            methods that are controlled by masks alone.
        reference_sha256: Hash of that file's bytes.
        nature: What such an image is; None for a plainly synthetic one.
    """

    id: str
    index: int
    stem: str
    fold: int
    source: str
    source_sha256: str
    transform: TransformRecord | None
    seed: int
    prompt: str
    content: str
    reference: str | None = None
    reference_sha256: str | None = None
    nature: str | None = None

    def record(self) -> dict[str, object]:
        """The item as a JSON object; keys about a real image only where there is one."""
        record = asdict(self)
        if self.reference is None:
            del record["reference"], record["reference_sha256"], record["nature"]
        return record


@dataclass(frozen=True)
class Plan:
    """All items of a synthetic set and what they have in common.

    Attributes:
        identity: Settings that must agree for a folder to be continued.
        origin: What is recorded but may differ: paths, batch size.
        model_sha256: Hash of the model's weights.
        size: Pixels along each side of masks and images.
        prompt: Of every item.
        items: In the order of work.
        warnings: Remarks on the masks.
    """

    identity: Mapping[str, object]
    origin: Mapping[str, object]
    model_sha256: str
    size: int
    prompt: str
    items: tuple[PlanItem, ...]
    warnings: tuple[str, ...] = ()

    def lines(self) -> str:
        """Text of plan.jsonl."""
        return "".join(json_line(item.record()) for item in self.items)

    def header(self) -> dict[str, object]:
        """Content of plan.json."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "settings": dict(self.identity),
            "origin": dict(self.origin),
            "items": len(self.items),
            "plan_sha256": text_sha256(self.lines()),
        }


def json_line(record: Mapping[str, object]) -> str:
    """One line of a JSON-lines file."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def make_plan(
    masks: PairFolder,
    settings: SampleSettings,
    *,
    size: int,
    model_sha256: str,
    prompt: str,
    run: Path | None = None,
    images: PairFolder | None = None,
    nature: str = "synthetic",
) -> Plan:
    """Plan `settings.folds` images for every mask of a folder.

    Masks are resized (nearest) to `size` first and transformed there, so that a transform means
    the same for every image of the set whatever the resolution its mask came in.

    Args:
        masks: Folder opened with `need="masks"`.
        settings: Recipe, folds, seeds and sampler settings.
        size: Pixels along each side of the model's images.
        model_sha256: Hash of the model's weights.
        prompt: Prompt of every item.
        run: Run folder of the model, recorded with its data fingerprint.
        images: Folder opened with `need="images"` that holds the image of every mask, for
            generators that are controlled by both.
        nature: What such images are, recorded with each.

    Raises:
        ConfigError: If the prompt has several lines, or masks are to be transformed that must fit
            an image.
        DataError: If two masks would give items of the same name, or a mask has no image.
    """
    if len(prompt.splitlines()) > 1:
        raise ConfigError(
            f"the prompt {prompt!r} has several lines", hint="write the prompt in one line"
        )
    if images is not None and settings.recipe != "real":
        raise ConfigError(
            f"recipe '{settings.recipe}' changes masks, but this generator samples from masks with "
            "their images, which must fit",
            hint="use --recipe real, or a generator that is controlled by masks alone",
        )
    pictures = {} if images is None else _pictures(masks, images)
    items: list[PlanItem] = []
    empty, full = [], []
    sources: list[tuple[str, str]] = []
    transforms: list[list[TransformRecord | None]] = []  # by mask, then by fold
    for index, pair in enumerate(masks.pairs):
        assert pair.mask is not None  # need="masks" refuses such folders
        mask = masks.mask(index, size)
        if not mask.any():
            empty.append(pair.stem)
        elif mask.all():
            full.append(pair.stem)
        sources.append((_relative(pair.mask, masks.root), file_sha256(pair.mask)))
        transforms.append([_transform(mask, pair.stem, f, settings) for f in range(settings.folds)])
    for fold in range(settings.folds):
        for index, pair in enumerate(masks.pairs):
            transform = transforms[index][fold]
            seed = derive_seed(settings.seed, "image", pair.stem, fold)
            source, sha256 = sources[index]
            reference, reference_sha256 = pictures.get(pair.stem, (None, None))
            content = _content(
                model_sha256, sha256, transform, prompt, seed, settings, size, reference_sha256
            )
            items.append(
                PlanItem(
                    id=item_id(pair.stem, fold, settings.recipe),
                    index=len(items),
                    stem=pair.stem,
                    fold=fold,
                    source=source,
                    source_sha256=sha256,
                    transform=transform,
                    seed=seed,
                    prompt=prompt,
                    content=content,
                    reference=reference,
                    reference_sha256=reference_sha256,
                    nature=None if reference is None else nature,
                )
            )
    _refuse_equal_ids(items)
    return Plan(
        identity=_identity(masks, settings, size, model_sha256, prompt)
        | ({} if images is None else {"control": "mask+image", "nature": nature}),
        origin={
            "run": None if run is None else str(run.resolve()),  # holds from any folder
            "run_data_fingerprint": _fingerprint(run),
            "masks": str(masks.root),
            **({} if images is None else {"images": str(images.root)}),
            "mask_rule": masks.mask_rule.statement,
            "batch_size": settings.batch_size,
        },
        model_sha256=model_sha256,
        size=size,
        prompt=prompt,
        items=tuple(items),
        warnings=_remarks(empty, full, len(masks.pairs)),
    )


def item_id(stem: str, fold: int, recipe: str) -> str:
    """File name of an item: the plain stem for an unchanged mask's first image."""
    if recipe == "random":
        return f"{stem}_r{fold}"
    return stem if fold == 0 else f"{stem}_f{fold}"


def item_mask(masks: PairFolder, item: PlanItem, *, position: int, size: int) -> Mask:
    """The mask an item is made from, (size, size) uint8 in {0, 255}.

    Args:
        masks: Folder the plan was made from.
        item: Which item.
        position: Place of the item's mask in the folder.
        size: Pixels along each side.

    Raises:
        DataError: If the mask file changed since the plan was made.
    """
    path = masks.pairs[position].mask
    assert path is not None
    if file_sha256(path) != item.source_sha256:
        raise DataError(
            f"mask '{path}' changed while its folder was being sampled",
            hint="put the old file back and repeat the command, or use a new output folder",
        )
    mask = masks.mask(position, size)
    return mask if item.transform is None else apply_transform(mask, item.transform)


def item_image(images: PairFolder, item: PlanItem, *, position: int, size: int) -> Pixels:
    """The real image an item is sampled from, (size, size, 3) uint8.

    Raises:
        DataError: If the image file changed since the plan was made.
    """
    path = images.pairs[position].image
    assert path is not None
    if file_sha256(path) != item.reference_sha256:
        raise DataError(
            f"image '{path}' changed while its folder was being sampled",
            hint="put the old file back and repeat the command, or use a new output folder",
        )
    return images.image(position, size)


def _pictures(masks: PairFolder, images: PairFolder) -> dict[str, tuple[str, str]]:
    """File and hash of every mask's image."""
    found = {pair.stem: pair.image for pair in images.pairs if pair.image is not None}
    missing = [stem for stem in masks.stems if stem not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(masks)} masks have no image in '{images.root}' "
            f"({some_names(missing)})",
            hint="give the folder of the images that the masks belong to (--images)",
        )
    return {
        stem: (_relative(found[stem], images.root), file_sha256(found[stem]))
        for stem in masks.stems
    }


def some_names(names: list[str], most: int = 3) -> str:
    """The first of `names`, quoted, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _transform(
    mask: Mask, stem: str, fold: int, settings: SampleSettings
) -> TransformRecord | None:
    if settings.recipe == "real":
        return None
    seed = derive_seed(settings.seed, "mask", stem, fold)
    _, record = transform_mask(mask, seed=seed, recipe=settings.random)
    return record


def _content(
    model_sha256: str,
    mask_sha256: str,
    transform: TransformRecord | None,
    prompt: str,
    seed: int,
    settings: SampleSettings,
    size: int,
    reference_sha256: str | None,
) -> str:
    key: dict[str, object] = {
        "model": model_sha256,
        "mask": mask_sha256,
        "transform": transform,
        "prompt": prompt,
        "seed": seed,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "size": size,
        **settings.departures(),
    }
    if reference_sha256 is not None:
        key["reference"] = reference_sha256
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode("utf-8")).hexdigest()


def _identity(
    masks: PairFolder, settings: SampleSettings, size: int, model_sha256: str, prompt: str
) -> dict[str, object]:
    identity = settings.model_dump(mode="json", exclude={"batch_size", "random", *DEPARTURES})
    identity |= settings.departures()
    if settings.recipe == "random":
        identity["random"] = settings.random.model_dump(mode="json")
    identity["split"] = masks.split
    rule = masks.mask_rule
    identity["mask_rule"] = {"kind": rule.kind, "threshold": rule.threshold}
    identity["prompt"] = prompt
    identity["size"] = size
    identity["model_sha256"] = model_sha256
    return identity


def _refuse_equal_ids(items: list[PlanItem]) -> None:
    seen: dict[str, PlanItem] = {}
    for item in items:
        other = seen.setdefault(item.id, item)
        if other is not item:
            raise DataError(
                f"masks '{other.source}' (fold {other.fold}) and '{item.source}' (fold "
                f"{item.fold}) would both become '{item.id}.png'",
                hint="rename one of the masks",
            )


def _remarks(empty: list[str], full: list[str], n_masks: int) -> tuple[str, ...]:
    remarks = []
    for stems, what in ((empty, "empty"), (full, "foreground everywhere")):
        if stems:
            remarks.append(
                f"{len(stems)} of {n_masks} masks are {what} ({some_names(stems)}); the model was "
                "never shown such masks, so expect little of these images"
            )
    for remark in remarks:
        _log.warning(remark)
    return tuple(remarks)


def _fingerprint(run: Path | None) -> object:
    """Fingerprint of the data the run was trained on, None where it is not recorded."""
    if run is None or not RunPaths(run).run.is_file():
        return None
    data = read_json(RunPaths(run).run).get("data")
    return data.get("fingerprint") if isinstance(data, Mapping) else None


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
