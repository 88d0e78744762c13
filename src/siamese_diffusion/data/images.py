"""Decode pictures of any supported format to arrays, and resize them.

Knows nothing of pairs or folders. Every failure to decode is a `DataError` naming the file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from siamese_diffusion.core.errors import DataError

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES: Final = (".jpg", ".jpeg")
RESIZE_STATEMENT: Final = (
    "images: bicubic, widened to the scale when shrinking (antialiased), aspect not kept; "
    "masks: nearest, after the threshold"
)
_MAX_16: Final = 65535
_ORIENTATION: Final = 0x0112  # EXIF tag
_COLOUR_TOLERANCE_LOSSY: Final = 16  # chroma noise of a grey mask saved as colour JPEG
# What Pillow's decoders raise for damaged files, found by feeding them altered and cut ones.
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say.

    `width` and `height` are in pixels, as a viewer shows them (EXIF orientation applied);
    `mode` is Pillow's pixel format; `turned` is true if the orientation swaps the sides.
    """

    width: int
    height: int
    mode: str
    turned: bool = False


def is_picture(path: Path) -> bool:
    """Whether the name has a supported suffix (any case) and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_lossy(path: Path) -> bool:
    """Whether the format blurs exact values, as JPEG does."""
    return path.suffix.lower() in LOSSY_SUFFIXES


def read_header(path: Path) -> Header:
    """Size and pixel format without decoding the pixels.

    Raises:
        DataError: If the file is missing, is no picture, or holds several pages.
    """
    with _opened(path) as picture:
        width, height = picture.size
        turned = _orientation(picture) >= 5
        if turned:
            width, height = height, width
        return Header(width, height, picture.mode, turned)


def read_image(path: Path) -> Pixels:
    """Decode a picture to RGB, uint8 (H, W, 3).

    Grey is repeated, alpha is dropped, 16-bit values are divided by 257 and rounded, and the
    EXIF orientation of JPEG files is applied, as viewers do.

    Raises:
        DataError: If the file is missing, damaged, truncated or of a format without a fixed
            range (floating point, 32-bit integers).
    """
    with _opened(path) as picture:
        upright = _upright(picture)
        if upright.mode == "I" or upright.mode.startswith("I;16") or upright.mode == "F":
            levels = _integers(path, upright)
            grey = ((levels.astype(np.uint32) * 255 + _MAX_16 // 2) // _MAX_16).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if upright.mode in {"P", "PA", "LA", "La"}:
            upright = upright.convert("RGBA")  # Pillow warns on the direct way for some palettes
        return np.array(upright.convert("RGB"), dtype=np.uint8)


def read_levels(path: Path) -> Levels:
    """Decode a mask to its grey levels, (H, W), uint8 or uint16 as stored.

    1-bit files become 0/255. A palette gives the greys it shows if these are 0 and 255, its
    indices otherwise. Colour pictures with equal channels give that channel.

    Raises:
        DataError: If the file is damaged, has colours, is transparent, or has no fixed range.
    """
    with _opened(path) as picture:
        deep_colour = any(";16" in str(tile[3]) for tile in getattr(picture, "tile", []))
        upright = _upright(picture)
        mode = upright.mode
        if mode == "1":
            return np.array(upright.convert("L"), dtype=np.uint8)
        if mode == "L":
            return np.array(upright, dtype=np.uint8)
        if mode == "I" or mode.startswith("I;16") or mode == "F":
            return _integers(path, upright)
        if mode == "P":
            return _palette_levels(upright)
        levels = _grey_of_colours(path, np.array(upright.convert("RGBA"), dtype=np.uint8))
        if deep_colour and not levels.any():
            raise DataError(
                f"mask '{path}' is a 16-bit colour picture whose values are all below 256",
                hint="save it as 8-bit grey with 0 for background and 255 for foreground",
            )
        return levels


def resize_image(image: Pixels, size: int) -> Pixels:
    """Resize RGB uint8 (H, W, 3) to (size, size, 3); see `RESIZE_STATEMENT`."""
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.uint8)


def resize_mask(mask: Pixels, size: int) -> Pixels:
    """Resize a mask uint8 (H, W) to (size, size) by nearest neighbour: no new values appear."""
    if mask.shape == (size, size):
        return mask
    resized = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
    return np.array(resized, dtype=np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            if picture.format == "TIFF" and getattr(picture, "n_frames", 1) > 1:
                raise DataError(
                    f"'{path}' holds {getattr(picture, 'n_frames', 1)} pages; one is allowed",
                    hint="save each page as its own file",
                )
            yield picture
    except UnidentifiedImageError as error:
        size = path.stat().st_size
        what = "is an empty file" if size == 0 else "is not a picture, or its start is damaged"
        raise DataError(f"'{path}' {what}", hint="replace or remove the file") from error
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist", hint="check the path") from error
    except _DAMAGE as error:
        truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        what = "is truncated" if truncated else "cannot be read"
        raise DataError(
            f"'{path}' {what} ({error})", hint="copy the file again from its source, or remove it"
        ) from error


def _orientation(picture: Image.Image) -> int:
    # Pillow turns TIFF files by itself; reading the tag of a PNG would decode all of it.
    if picture.format not in {"JPEG", "MPO"}:
        return 1
    return int(picture.getexif().get(_ORIENTATION, 1) or 1)


def _upright(picture: Image.Image) -> Image.Image:
    if _orientation(picture) == 1:
        picture.load()
        return picture
    return ImageOps.exif_transpose(picture)


def _integers(path: Path, picture: Image.Image) -> npt.NDArray[np.uint16]:
    values = np.asarray(picture)
    lowest, highest = values.min(), values.max()
    whole = values.dtype.kind != "f" or bool(np.array_equal(values, np.round(values)))
    if not whole or lowest < 0 or highest > _MAX_16:
        raise DataError(
            f"'{path}' holds values from {lowest:g} to {highest:g} "
            f"(Pillow mode {picture.mode}); whole numbers of 8 or 16 bit are allowed",
            hint="rescale and save it with 8 bits, 0 to 255",
        )
    return values.astype(np.uint16)


def _palette_levels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    indices = np.array(picture, dtype=np.uint8)
    palette = np.array((picture.getpalette("RGB") or []) + [0] * 768, dtype=np.uint8)
    shown = palette[: 3 * 256].reshape(256, 3)
    used = shown[np.unique(indices)]
    is_black_and_white = bool(np.isin(used, (0, 255)).all() and (used == used[:, :1]).all())
    if is_black_and_white:
        return np.ascontiguousarray(shown[:, 0][indices])
    return indices


def _grey_of_colours(path: Path, rgba: Pixels) -> npt.NDArray[np.uint8]:
    if (rgba[..., 3] < 255).any():
        raise DataError(
            f"mask '{path}' has transparent pixels, so its foreground is not certain",
            hint="flatten it to plain grey, 0 for background and 255 for foreground",
        )
    colours = rgba[..., :3].astype(np.int16)
    spread = colours.max(axis=2) - colours.min(axis=2)
    if spread.max() > (_COLOUR_TOLERANCE_LOSSY if is_lossy(path) else 0):
        found = np.unique(rgba[..., :3][spread > 0], axis=0)
        shown = ", ".join(str(tuple(int(v) for v in colour)) for colour in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise DataError(
            f"mask '{path}' has colours: RGB {shown}{more}; a mask is grey, one class a set",
            hint="save 255 where the wanted colour is and 0 elsewhere, as 8-bit grey",
        )
    return np.ascontiguousarray(rgba[..., 1])


def encode_png(picture: Pixels | Image.Image) -> bytes:
    """PNG bytes of a picture; an array is grey (H, W) or RGB (H, W, 3)."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, format="PNG")
    return buffer.getvalue()
