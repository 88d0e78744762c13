"""Seeded endoscopy phantoms: pictures of an imaginary colon with exact polyp masks.

Everything is computed from formulas, so studies of generalisation between centres need no
download. The pictures are stylised; they carry no clinical evidence.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.errors import ConfigError, OutputError
from siamese_diffusion.data import phantom_scene as scene
from siamese_diffusion.data.images import encode_png
from siamese_diffusion.data.phantom_scene import Array, Centre, Lesion

GENERATOR_VERSION: Final = 1  # raise whenever the same arguments give other pixels
PROMPT: Final = "A photo of a polyp."
MIN_SIZE: Final = 16
PAINT_SIZE: Final = 128  # smaller pictures are painted at least this large and averaged
HOLD_OUT: Final = 0.15  # share of the pairs in each of val and test

# One line each: light, aperture, sensor, folds, mucosa, and two lines for the lesions.
# fmt: off
CENTRE_TABLE: Final[dict[str, Centre]] = {
    # Reference: warm white light, wide view down the lumen, octagonal frame.
    "a": Centre(
        mucosa=(0.90, 0.50, 0.41), light=(1.05, 0.98, 0.92), exposure=1.15,
        reach=0.30, vignette=0.30, frame="octagon", margin=0.04,
        blur=0.0020, aberration=0.0, noise=1.0,
        folds=5.5, fold_depth=0.85, lumen_offset=0.45,
        texture=0.45, vessels=0.45, gloss=0.8,
        lesion_share=0.075, lesion_spread=0.65, redness=0.35, relief=0.62,
        stalked=0.15, second=0.12, surfaces=(0.40, 0.20, 0.25, 0.15),
    ),
    # Cool xenon light, round view, rich vessels, small pale lesions.
    "b": Centre(
        mucosa=(0.88, 0.54, 0.50), light=(0.98, 0.99, 1.08), exposure=1.12,
        reach=0.26, vignette=0.40, frame="circle", margin=0.02,
        blur=0.0018, aberration=0.0, noise=0.7,
        folds=5.5, fold_depth=0.75, lumen_offset=0.35,
        texture=0.35, vessels=0.85, gloss=0.7,
        lesion_share=0.038, lesion_spread=0.55, redness=-0.45, relief=0.55,
        stalked=0.08, second=0.25, surfaces=(0.55, 0.10, 0.10, 0.25),
    ),
    # Old instrument: orange cast, soft lens with coloured edges, dark depths.
    "c": Centre(
        mucosa=(0.88, 0.45, 0.25), light=(1.08, 0.94, 0.74), exposure=1.0,
        reach=0.42, vignette=0.60, frame="cut", margin=0.06,
        blur=0.0046, aberration=0.006, noise=1.8,
        folds=3.5, fold_depth=1.0, lumen_offset=0.60,
        texture=0.30, vessels=0.20, gloss=0.5,
        lesion_share=0.105, lesion_spread=0.50, redness=0.15, relief=0.75,
        stalked=0.30, second=0.05, surfaces=(0.30, 0.15, 0.45, 0.10),
    ),
    # Inflamed deep red mucosa close to the lens, large granular lesions.
    "d": Centre(
        mucosa=(0.74, 0.29, 0.27), light=(1.08, 0.95, 0.96), exposure=1.10,
        reach=0.22, vignette=0.25, frame="rounded", margin=0.02,
        blur=0.0022, aberration=0.0, noise=1.2,
        folds=3.5, fold_depth=0.8, lumen_offset=0.85,
        texture=0.75, vessels=0.30, gloss=0.85,
        lesion_share=0.150, lesion_spread=0.55, redness=-0.30, relief=0.50,
        stalked=0.05, second=0.06, surfaces=(0.10, 0.45, 0.25, 0.20),
    ),
    # Bright high-definition view: pink yellowish mucosa, pits, reddish domes.
    "e": Centre(
        mucosa=(0.96, 0.62, 0.49), light=(1.02, 1.01, 0.93), exposure=1.16,
        reach=0.18, vignette=0.15, frame="barrel", margin=0.08,
        blur=0.0012, aberration=0.0, noise=0.5,
        folds=4.0, fold_depth=0.60, lumen_offset=0.75,
        texture=0.60, vessels=0.65, gloss=0.9,
        lesion_share=0.060, lesion_spread=0.80, redness=0.65, relief=0.68,
        stalked=0.12, second=0.15, surfaces=(0.25, 0.20, 0.15, 0.40),
    ),
}
# fmt: on
CENTRES: Final[tuple[str, ...]] = tuple(CENTRE_TABLE)


@dataclass(frozen=True, slots=True)
class Phantom:
    """One picture and its mask.

    Attributes:
        image: RGB picture, uint8, shape (size, size, 3).
        mask: Visible lesion silhouette, uint8, shape (size, size), values 0 and 255.
        centre: Name of the centre, one of ``CENTRES``.
        lesions: Number of lesions drawn, 1 or 2.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    centre: str
    lesions: int


def phantom_pair(seed: int, index: int, *, size: int = 256, centre: str | None = None) -> Phantom:
    """Paints one image-mask pair.

    Args:
        seed: Seed of the series, at least 0.
        index: Number of the pair in the series, at least 0.
        size: Side of the picture in pixels, at least ``MIN_SIZE``. Scenes do not depend on it.
        centre: One of ``CENTRES``; by default the centres take turns with ``index``.

    Returns:
        The pair, a function of the arguments alone.

    Raises:
        ConfigError: An argument is out of range.
    """
    if seed < 0 or index < 0 or size < MIN_SIZE:
        raise ConfigError(
            f"phantom_pair(seed={seed}, index={index}, size={size}) is out of range",
            hint=f"seed and index start at 0, size at {MIN_SIZE}",
        )
    name = CENTRES[index % len(CENTRES)] if centre is None else centre
    if name not in CENTRE_TABLE:
        raise ConfigError(f"unknown centre {name!r}", hint=f"choose one of {', '.join(CENTRES)}")
    factor = -(-PAINT_SIZE // size)
    image, cover, lesions = _paint(CENTRE_TABLE[name], seed, index, size * factor)
    if factor > 1:
        image = image.reshape(size, factor, size, factor, 3).mean(axis=(1, 3))
        cover = cover.reshape(size, factor, size, factor).mean(axis=(1, 3), dtype=np.float32)
    pixels = np.clip(image * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    mask = np.where(cover > 0.5, 255, 0).astype(np.uint8)
    return Phantom(image=pixels, mask=mask, centre=name, lesions=lesions)


def _paint(centre: Centre, seed: int, index: int, size: int) -> tuple[Array, Array, int]:
    """Returns the picture in [0, 1], the lesion cover in [0, 1] and the number of lesions."""
    streams = np.random.SeedSequence([seed, index]).spawn(6)
    wall_rng, lesion_rng, skin_rng, vessel_rng, wet_rng, sensor_rng = (
        np.random.Generator(np.random.Philox(stream)) for stream in streams
    )
    x, y = scene.grid(size)
    pixel = 2.0 / size
    bright, gx, gy = scene.colon_wall(wall_rng, centre, size)

    # Healthy mucosa: a blotchy base colour, relief, vessels.
    blotch, yellow = scene.noise(skin_rng, 4, size), scene.noise(skin_rng, 6, size)
    relief = scene.noise(skin_rng, 30, size) + 0.6 * scene.noise(skin_rng, 52, size)
    albedo = np.empty((size, size, 3), np.float32)
    for channel, (red, warm) in enumerate(((0.02, 0.01), (-0.06, 0.025), (-0.05, -0.02))):
        albedo[..., channel] = centre.mucosa[channel] * (1.0 + red * blotch + warm * yellow)
    albedo *= (1.0 + 0.030 * centre.texture * relief)[..., None]
    vessels = scene.vessel_map(vessel_rng, size) * np.clip(
        0.75 + 0.45 * scene.noise(vessel_rng, 4, size), 0.0, 1.0
    )
    albedo *= 1.0 - centre.vessels * vessels[..., None] * scene.VESSEL_ABSORPTION
    rx, ry = scene.slopes(relief)
    gx, gy = gx + 0.0022 * centre.texture * rx, gy + 0.0022 * centre.texture * ry

    # The lamp sits beside the lens, so lesions throw a soft shadow to the other side.
    lamp = wall_rng.uniform(0.0, 2.0 * np.pi)
    lamp_x, lamp_y = 0.34 * np.cos(lamp), 0.34 * np.sin(lamp)
    count = 1 + int(lesion_rng.uniform() < centre.second)
    lesion: Lesion | None = None
    dry = np.ones((size, size), np.float32)
    cover = np.zeros((size, size), np.float32)
    for _ in range(count):
        lesion = scene.draw_lesion(lesion_rng, centre, first=lesion)
        gauge = scene.lesion_field(lesion, size)
        edge = (1.0 - gauge) * lesion.radius
        inside = scene.smoothstep(-0.75 * pixel, 0.75 * pixel, edge)
        height, tint = scene.lesion_relief(lesion_rng, lesion, gauge, size)
        side = ((x - lesion.x) * lamp_x + (y - lesion.y) * lamp_y) / (0.34 * lesion.radius)
        side = side / np.maximum(gauge, 0.3)
        fall = np.exp(np.minimum(edge, 0.0) / (0.22 * lesion.radius))
        shade = lesion.height * np.clip(0.42 - 0.34 * side, 0.0, 0.8) * fall
        bright *= 1.0 - shade * (1.0 - inside)
        # A lesion stands nearer to the lamp than the wall it hides.
        here = float(np.average(bright, weights=inside + 1e-6))
        level = max(1.10 * here, 0.58) * (1.0 - 0.10 * np.clip(gauge, 0.0, 1.0) ** 4)
        bright = np.asarray(bright + 0.75 * inside * (level - bright), np.float32)
        colour = scene.REDDER if lesion.redness > 0 else scene.PALER
        mixed = 1.0 + abs(lesion.redness) * (colour - 1.0)
        base = np.asarray(centre.mucosa, np.float32) * mixed
        skin = base * (tint * (1.0 + 0.04 * blotch))[..., None]
        # The colour of the lesion fades into the mucosa towards its base.
        own = inside * (0.78 - 0.40 * np.clip(gauge, 0.0, 1.0) ** 5)
        albedo += own[..., None] * (skin - albedo)
        hx, hy = scene.slopes(height)
        gx = gx * (1.0 - 0.65 * inside) + hx
        gy = gy * (1.0 - 0.65 * inside) + hy
        cover = np.maximum(cover, inside)
        # The slope jumps at the rim; a highlight there would be a row of dots.
        dry *= 1.0 - np.exp(-((edge / (0.02 + 2.0 * pixel)) ** 2))

    # Camera-side light: Lambert on the relief, then highlights of a wet film.
    norm = 1.0 / np.sqrt(gx * gx + gy * gy + 1.0)
    reach = 1.0 / np.sqrt(1.0 + lamp_x**2 + lamp_y**2)
    lambert = np.clip((1.0 - gx * lamp_x - gy * lamp_y) * norm * reach, 0.0, None)
    light = bright * (0.38 + 0.72 * lambert)
    light = light * (1.0 - centre.vignette * scene.smoothstep(0.45, 1.5, np.hypot(x, y)))
    image = albedo * light[..., None]
    image += scene.LUMEN_DARK * (0.35 * (1.0 - bright))[..., None] * albedo
    film = scene.noise(wet_rng, 22, size)
    fx, fy = scene.slopes(film)
    wx, wy = gx + 0.017 * fx + 0.6 * x, gy + 0.017 * fy + 0.6 * y
    miss = (wx + 0.5 * lamp_x) ** 2 + (wy + 0.5 * lamp_y) ** 2
    patch = scene.smoothstep(0.1, 1.0, scene.noise(wet_rng, 9, size) + 0.5 * cover) * dry
    spark = np.exp(-miss / 0.010) * patch * np.clip(1.5 * bright, 0.0, 1.0)
    sheen = np.exp(-miss / 0.12) * np.clip(bright, 0.0, 1.0)
    image *= centre.exposure * np.asarray(centre.light, np.float32)
    image += (centre.gloss * (0.85 * spark + 0.07 * sheen))[..., None]

    picture, visible = scene.develop(sensor_rng, centre, image)
    return picture, np.where(visible, cover, np.float32(0.0)), count


def write_phantom(
    out: Path,
    *,
    pairs: int,
    seed: int = 0,
    size: int = 256,
    centre: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a data set of phantoms.

    The folder gets ``images/`` and ``masks/`` (PNG, same stems), ``prompt.txt``, the split lists
    ``train.txt``, ``val.txt`` and ``test.txt`` (70/15/15, balanced over the centres), one
    ``centre-<name>.txt`` list per centre present, ``metadata.csv`` and ``phantom.json`` with the
    arguments. An interrupted call is resumed by the same call.

    Args:
        out: Folder to write; new, empty, or begun by a call with the same arguments.
        pairs: Number of pairs, at least 1.
        seed: Seed of the series, at least 0.
        size: Side of the pictures in pixels.
        centre: One of ``CENTRES`` for all pairs; by default the centres take turns.
        progress: Called with (pairs done, pairs in all) after each pair.

    Raises:
        ConfigError: An argument is out of range.
        OutputError: ``out`` holds something else.
    """
    if pairs < 1:
        raise ConfigError(f"pairs={pairs} is out of range", hint="ask for at least one pair")
    arguments = {
        "centre": centre,
        "generator": GENERATOR_VERSION,
        "pairs": pairs,
        "seed": seed,
        "size": size,
    }
    record = (json.dumps(arguments, indent=2, sort_keys=True) + "\n").encode()
    first = phantom_pair(seed, 0, size=size, centre=centre)  # bad arguments leave no folder behind
    _claim(out, record)
    for folder in ("images", "masks"):
        (out / folder).mkdir(exist_ok=True)
    stems: dict[str, list[str]] = {}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("stem", "centre", "lesions", "foreground_share"))
    for index in range(pairs):
        pair = first if index == 0 else phantom_pair(seed, index, size=size, centre=centre)
        stem = f"phantom_{pair.centre}_{index:05d}"
        _put(out / "images" / f"{stem}.png", encode_png(pair.image))
        _put(out / "masks" / f"{stem}.png", encode_png(pair.mask))
        rows.writerow((stem, pair.centre, pair.lesions, f"{np.mean(pair.mask > 0):.6f}"))
        stems.setdefault(pair.centre, []).append(stem)
        if progress is not None:
            progress(index + 1, pairs)
    for name, members in stems.items():
        _put(out / f"centre-{name}.txt", _lines(members))
    for split, members in _splits(stems, seed).items():
        _put(out / f"{split}.txt", _lines(sorted(members)))
    _put(out / "prompt.txt", _lines([PROMPT]))
    _put(out / "metadata.csv", table.getvalue().encode())


def _claim(out: Path, record: bytes) -> None:
    """Makes ``out`` ours by writing ``phantom.json``, or raises ``OutputError``."""
    marker = out / "phantom.json"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a folder", hint="name a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        if not marker.is_file():
            raise OutputError(
                f"{out} is not empty and holds no phantom.json",
                hint="name a new or empty folder",
            )
        if marker.read_bytes() != record:
            raise OutputError(
                f"{out} was written with other arguments (see {marker.name})",
                hint="repeat those arguments, or name a new folder",
            )
    out.mkdir(parents=True, exist_ok=True)
    _put(marker, record)


def _splits(stems: dict[str, list[str]], seed: int) -> dict[str, list[str]]:
    """Deals the shuffled stems of the centres in turn, so that each split is balanced."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0, len(stems)])))
    hands = [[members[i] for i in rng.permutation(len(members))] for members in stems.values()]
    hands = [hands[i] for i in rng.permutation(len(hands))]
    longest = max(len(hand) for hand in hands)
    dealt = [hand[turn] for turn in range(longest) for hand in hands if turn < len(hand)]
    held = round(HOLD_OUT * len(dealt))
    if len(dealt) >= 3:
        held = max(held, 1)
    return {"val": dealt[:held], "test": dealt[held : 2 * held], "train": dealt[2 * held :]}


def _lines(items: list[str]) -> bytes:
    return "".join(f"{item}\n" for item in items).encode()


def _put(path: Path, data: bytes) -> None:
    """Replaces ``path`` in one step; a reader sees the old or the new file, never a part."""
    if path.is_file() and path.read_bytes() == data:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
