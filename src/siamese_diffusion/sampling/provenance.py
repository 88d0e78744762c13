"""Where every synthetic image came from: in the PNG itself and in the manifest.

Everything written here is a function of the plan and the pixels (no times, no host names), so a
set that was interrupted is equal byte for byte to one that was not. Free of torch.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import (
    append_jsonl,
    atomic_write_bytes,
    atomic_write_text,
    file_sha256,
)
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.generators.settings import COPY
from siamese_diffusion.sampling.plan import Plan, PlanItem, json_line

# Key of the PNG text that ties an image to its item in the plan.
CONTENT = "Content"


def image_text(item: PlanItem, plan: Plan) -> dict[str, str]:
    """The text chunks of an item's image."""
    settings = {**plan.identity, "transform": item.transform, "fold": item.fold}
    # What was sampled from a real image says so wherever the file goes.
    near = {} if item.nature is None else {"Nature": item.nature}
    return {
        "Synthetic": "false" if item.nature == COPY else "true",
        **near,
        "Software": f"siamese-diffusion {__version__}",
        "ModelSHA256": plan.model_sha256,
        "Seed": str(item.seed),
        "Mask": item.source_sha256,
        "Settings": json.dumps(settings, sort_keys=True),
        CONTENT: item.content,
    }


def encode_image(image: Image.Image, text: Mapping[str, str]) -> bytes:
    """PNG bytes of an RGB image with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    return _png(image.convert("RGB"), info)


def encode_mask(mask: npt.NDArray[np.uint8]) -> bytes:
    """PNG bytes of a single-channel mask, (H, W) uint8 in {0, 255}."""
    return _png(Image.fromarray(np.ascontiguousarray(mask)), None)


def read_text(path: Path) -> dict[str, str]:
    """Text chunks of a PNG, read without decoding its pixels.

    Raises:
        OutputError: If the file is not a readable PNG.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    except (OSError, SyntaxError, ValueError) as error:
        raise OutputError(
            f"'{path}' is not a readable PNG ({error})",
            hint="delete it; the same command then makes it again",
        ) from error


def is_finished(item: PlanItem, paths: SyntheticPaths) -> bool:
    """Whether an item's image and mask are there, and the image is this plan's.

    Raises:
        OutputError: If a file of another origin lies in the image's place.
    """
    path = paths.image(item.id)
    if not path.exists():
        return False
    found = read_text(path).get(CONTENT, "none")
    if found != item.content:
        raise OutputError(
            f"'{path}' is not the image that the plan asks for "
            f"(content hash {found}, planned {item.content})",
            hint="move it out of the folder; the same command then makes the planned image",
        )
    return paths.mask(item.id).exists()


def write_item(
    item: PlanItem,
    plan: Plan,
    paths: SyntheticPaths,
    *,
    mask: npt.NDArray[np.uint8],
    image: Image.Image,
) -> None:
    """Write mask, image and manifest line, each whole or not at all.

    The image comes after the mask because its presence is what marks an item as finished. A line
    lost between image and manifest is added by `complete_manifest`.
    """
    mask_png = encode_mask(mask)
    image_png = encode_image(image, image_text(item, plan))
    atomic_write_bytes(paths.mask(item.id), mask_png)
    atomic_write_bytes(paths.image(item.id), image_png)
    append_jsonl(
        paths.manifest,
        _manifest_record(
            item, hashlib.sha256(image_png).hexdigest(), hashlib.sha256(mask_png).hexdigest()
        ),
    )


def complete_manifest(plan: Plan, paths: SyntheticPaths) -> None:
    """Bring the manifest of a finished set into plan order, one line an item.

    Lines that a kill lost or tore are made again from the files. Call it while no worker writes.

    Raises:
        OutputError: If an item's image is missing or of another origin.
    """
    lines: dict[str, list[dict[str, object]]] = {}
    for record in _readable_lines(paths.manifest):
        lines.setdefault(str(record.get("id")), []).append(record)
    text = []
    for item in plan.items:
        if not is_finished(item, paths):
            raise OutputError(
                f"'{paths.image(item.id)}' or its mask vanished during the work",
                hint="repeat the command; it makes what is missing",
            )
        found = lines.get(item.id, [])
        # An item made twice (its picture was deleted in between) has two lines: trust neither.
        if len(found) == 1 and _is_whole(found[0], item):
            text.append(json_line(found[0]))
        else:
            image_sha256 = file_sha256(paths.image(item.id))
            mask_sha256 = file_sha256(paths.mask(item.id))
            text.append(json_line(_manifest_record(item, image_sha256, mask_sha256)))
    content = "".join(text)
    if not paths.manifest.exists() or paths.manifest.read_bytes() != content.encode("utf-8"):
        atomic_write_text(paths.manifest, content)


def _manifest_record(item: PlanItem, image_sha256: str, mask_sha256: str) -> dict[str, object]:
    return {**item.record(), "image_sha256": image_sha256, "mask_sha256": mask_sha256}


def _is_whole(record: Mapping[str, object], item: PlanItem) -> bool:
    hashes = [str(record.get(key, "")) for key in ("image_sha256", "mask_sha256")]
    return dict(record) == _manifest_record(item, hashes[0], hashes[1]) and all(hashes)


def _readable_lines(path: Path) -> list[dict[str, object]]:
    """Records of a manifest; torn lines are skipped wherever they are, as they can be remade."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _png(image: Image.Image, info: PngImagePlugin.PngInfo | None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
