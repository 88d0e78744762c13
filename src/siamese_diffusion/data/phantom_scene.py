"""Painting helpers of the procedural endoscopy phantoms.

All geometry lives in frame coordinates: ``x`` to the right and ``y`` downwards, both in [-1, 1]
over the square image. Random draws never depend on the raster, so a scene keeps its content when
it is painted at another size; only the sensor noise is drawn per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

Array = npt.NDArray[np.float32]
Rgb = tuple[float, float, float]
FrameShape = Literal["octagon", "circle", "rounded", "cut", "barrel"]

SPLINE_NOISE_STD: Final = 151.0 / 315.0  # std of white noise after a 2-D cubic B-spline
CONTOUR_SAMPLES: Final = 128  # angles at which a silhouette is tested against the frame
FRAME_BLACK: Final = 0.018  # residual level of the black surround, 1 = white
SHARE_RANGE: Final = (0.01, 0.34)  # lesion area over image area
REDNESS_RANGE: Final = (0.35, 1.0)  # size of the colour shift; less would hide flat lesions
SECOND_SHARE: Final = 0.4  # area of a second lesion over that of an only one
VESSEL_SUPERSAMPLE: Final = 2
LUMEN_DARK: Final = np.array([0.20, 0.055, 0.045], np.float32)  # what little returns from afar
REDDER: Final = np.array([1.00, 0.60, 0.64], np.float32)  # albedo factors at redness +1
PALER: Final = np.array([1.10, 1.27, 1.20], np.float32)  # albedo factors at redness -1
VESSEL_ABSORPTION: Final = np.array([0.26, 0.62, 0.52], np.float32)  # blood takes green and blue


@dataclass(frozen=True, slots=True)
class Centre:
    """What makes the pictures of one imaginary hospital its own.

    Attributes:
        mucosa: Albedo of healthy mucosa, RGB in [0, 1].
        light: White balance of the light source, RGB factors around 1.
        exposure: Overall gain before the tone curve, 0.7 to 1.4.
        reach: Distance from the lumen at which half the light returns, 0.1 (bright) to 0.8.
        vignette: Loss of light in the image corners, 0 to 1.
        frame: Shape of the visible aperture.
        margin: Black border on each side, share of the half width, 0 to 0.2.
        blur: Standard deviation of the optical blur, share of the image side, 0 to 0.01.
        aberration: Relative magnification error of red and blue, 0 to 0.01.
        noise: Standard deviation of the sensor noise, grey levels of 255, 0 to 2.
        folds: Mean number of haustral folds, 0 to 8.
        fold_depth: Contrast of a fold, 0 to 1.
        lumen_offset: Mean distance of the lumen from the image centre, 0 to 1.2.
        texture: Strength of the mucosa relief, 0 to 1.
        vessels: Strength of the vessel pattern, 0 to 1.
        gloss: Strength of the specular highlights, 0 to 1.
        lesion_share: Median lesion area over image area, 0.01 to 0.34.
        lesion_spread: Standard deviation of the log of that share, 0 to 1.
        redness: Mean lesion colour shift, -1 (pale) to +1 (red).
        relief: Mean height of a lesion over its radius, 0.2 (flat) to 1 (dome).
        stalked: Probability of a pedunculated lesion, 0 to 1.
        second: Probability of a second lesion, 0 to 1.
        surfaces: Weights of smooth, granular, lobulated and pitted lesion surfaces, sum 1.
    """

    mucosa: Rgb
    light: Rgb
    exposure: float
    reach: float
    vignette: float
    frame: FrameShape
    margin: float
    blur: float
    aberration: float
    noise: float
    folds: float
    fold_depth: float
    lumen_offset: float
    texture: float
    vessels: float
    gloss: float
    lesion_share: float
    lesion_spread: float
    redness: float
    relief: float
    stalked: float
    second: float
    surfaces: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion in frame coordinates; ``radii`` samples its contour over the full turn."""

    x: float
    y: float
    radii: Array
    radius: float
    stalk_angle: float | None
    height: float
    steepness: float
    redness: float
    surface: int


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Returns the cubic ramp from 0 at ``low`` to 1 at ``high``, shape and units of ``value``."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


@lru_cache(maxsize=64)
def _spline_weights(size: int, cells: int) -> Array:
    """Returns the (size, cells + 3) cubic B-spline weights of the pixel centres."""
    position = (np.arange(size) + 0.5) * cells / size
    offset = position[:, None] - (np.arange(cells + 3)[None, :] - 1.0)
    a = np.abs(offset)
    inner = 2.0 / 3.0 - a**2 + a**3 / 2.0
    outer = np.clip(2.0 - a, 0.0, None) ** 3 / 6.0
    return np.where(a < 1.0, inner, outer).astype(np.float32)


def noise(rng: np.random.Generator, cells: int, size: int) -> Array:
    """Paints smooth noise of zero mean and unit variance with ``cells`` bumps across the image.

    Returns:
        Array of shape (size, size). The same generator state gives the same field at any size.
    """
    lattice = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    weights = _spline_weights(size, cells)
    return np.asarray(weights @ lattice @ weights.T / SPLINE_NOISE_STD, np.float32)


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Array, Array]:
    """Returns ``x`` and ``y`` of the pixel centres in [-1, 1], each (size, size)."""
    axis = ((np.arange(size) + 0.5) * 2.0 / size - 1.0).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def slopes(height: Array) -> tuple[Array, Array]:
    """Returns the derivatives of a (size, size) height map along ``x`` and ``y``."""
    scale = height.shape[0] / 2.0
    gy, gx = np.gradient(height)
    return np.asarray(gx * scale, np.float32), np.asarray(gy * scale, np.float32)


def soft_minimum(a: Array, b: Array) -> Array:
    """Returns a minimum without a crease, at least 0; it rounds off over about 0.1."""
    soft = -np.logaddexp(-9.0 * a, -9.0 * b) / 9.0
    return np.asarray(np.maximum(soft, 0.0), np.float32)


def frame_distance(centre: Centre, x: Array, y: Array) -> Array:
    """Returns how far inside the visible aperture a point lies (negative: in the black frame)."""
    half = 1.0 - centre.margin
    ax, ay = np.abs(x), np.abs(y)
    if centre.frame == "circle":
        inside = half - np.hypot(x, y)
    elif centre.frame == "octagon":
        inside = np.minimum(half - np.maximum(ax, ay), (1.48 * half - ax - ay) * 0.7071)
    elif centre.frame == "cut":
        # A tall circle whose left and right flanks are cut off by the monitor.
        inside = np.minimum(1.22 * half - np.hypot(x, y), half - np.maximum(ax, ay))
    elif centre.frame == "barrel":
        inside = half - (ax**5 + ay**5) ** 0.2
    else:
        corner = 0.16
        qx, qy = ax - half + corner, ay - half + corner
        outer = np.hypot(np.maximum(qx, 0.0), np.maximum(qy, 0.0))
        inside = corner - outer - np.minimum(np.maximum(qx, qy), 0.0)
    return np.asarray(inside, np.float32)


def draw_lesion(rng: np.random.Generator, centre: Centre, first: Lesion | None = None) -> Lesion:
    """Draws one lesion that lies at least for the most part inside the aperture.

    Args:
        rng: Source of randomness; always advanced by the same number of draws.
        centre: Statistics to draw from.
        first: A lesion already there; the new one is smaller and tends to the other side.

    Returns:
        The lesion; the area of its head over the image area lies in ``SHARE_RANGE``.
    """
    share = centre.lesion_share * np.exp(centre.lesion_spread * rng.standard_normal())
    share = float(np.clip(share * (1.0 if first is None else SECOND_SHARE), *SHARE_RANGE))
    angle = np.arange(CONTOUR_SAMPLES) * (2.0 * np.pi / CONTOUR_SAMPLES)
    aspect = np.exp(rng.uniform(-0.32, 0.32))
    power = rng.uniform(1.8, 2.7)
    turn = angle - rng.uniform(0.0, np.pi)
    radii = (np.abs(np.cos(turn) / aspect) ** power + np.abs(np.sin(turn) * aspect) ** power) ** (
        -1.0 / power
    )
    bumpy = rng.uniform(0.02, 0.07)
    for order in range(2, 8):
        wave = np.cos(order * angle + rng.uniform(0.0, 2.0 * np.pi))
        radii = radii * (1.0 + bumpy * rng.standard_normal() * wave * (2.0 / order) ** 1.3)
    radii *= np.sqrt(4.0 * share / (np.pi * np.mean(radii**2)))
    radius = float(np.sqrt(np.mean(radii**2)))
    away, direction = 0.62 * np.sqrt(rng.uniform()), rng.uniform(0.0, 2.0 * np.pi)
    if first is not None:
        direction = np.arctan2(-first.y, -first.x) + 0.25 * (direction - np.pi)
        away = max(away, 0.45)
    x, y = away * np.cos(direction), away * np.sin(direction)
    # Walk towards the middle until the contour is in view, but for a sliver now and then.
    for _ in range(12):
        px = (x + radii * np.cos(angle)).astype(np.float32)
        py = (y + radii * np.sin(angle)).astype(np.float32)
        if np.mean(frame_distance(centre, px, py) > 0.0) > 0.93:
            break
        x, y = 0.8 * x, 0.8 * y
    stalked, stalk_angle = rng.uniform() < centre.stalked, rng.uniform(0.0, 2.0 * np.pi)
    redness = centre.redness + 0.35 * rng.standard_normal()
    return Lesion(
        x=float(x),
        y=float(y),
        radii=radii.astype(np.float32),
        radius=radius,
        stalk_angle=float(stalk_angle) if stalked and radius < 0.4 else None,
        height=float(np.clip(centre.relief * np.exp(0.3 * rng.standard_normal()), 0.25, 1.1)),
        steepness=float(rng.uniform(0.6, 1.0)),
        redness=float(np.copysign(np.clip(abs(redness), *REDNESS_RANGE), redness)),
        surface=int(rng.choice(4, p=centre.surfaces)),
    )


def lesion_field(lesion: Lesion, size: int) -> Array:
    """Returns the lesion's gauge, (size, size): 0 in the middle, 1 on the contour, more outside."""
    x, y = grid(size)
    dx, dy = x - lesion.x, y - lesion.y
    distance = np.hypot(dx, dy)
    # The contour is periodic and finely sampled: linear interpolation between angles suffices.
    position = np.arctan2(dy, dx) % (2.0 * np.pi) * (CONTOUR_SAMPLES / (2.0 * np.pi))
    low = position.astype(np.int32)
    part = position - low
    left = lesion.radii[low % CONTOUR_SAMPLES]
    contour = left + part * (lesion.radii[(low + 1) % CONTOUR_SAMPLES] - left)
    gauge = distance / contour
    if lesion.stalk_angle is not None:
        ux, uy = np.cos(lesion.stalk_angle), np.sin(lesion.stalk_angle)
        # The stalk leaves from under the rim of the head, bends, and ends in the wall.
        along = dx * ux + dy * uy - 0.85 * lesion.radius
        across = np.abs(dy * ux - dx * uy + 0.25 * lesion.radius * (along / lesion.radius) ** 2)
        beyond = np.maximum(along - 0.9 * lesion.radius, 0.0) + np.maximum(-along, 0.0)
        width = (0.30 + 0.08 * np.abs(along) / lesion.radius) * lesion.radius
        gauge = soft_minimum(gauge, np.hypot(across, beyond) / width)
    return np.asarray(gauge, np.float32)


def lesion_relief(
    rng: np.random.Generator, lesion: Lesion, gauge: Array, size: int
) -> tuple[Array, Array]:
    """Returns the height (frame units) and the albedo factor of a lesion, each (size, size)."""
    body = np.clip(1.0 - gauge**2, 0.0, None)
    height = lesion.height * lesion.radius * body**lesion.steepness
    tint = np.ones_like(height)
    scale = 1.0 / max(lesion.radius, 0.12)
    swell = noise(rng, int(np.clip(3.2 * scale, 6, 20)), size)
    height += 0.055 * lesion.radius * swell * body
    if lesion.surface == 1:
        grain = noise(rng, int(np.clip(15.0 * scale, 24, 56)), size)
        height += 0.018 * lesion.radius * grain * np.sqrt(body)
        tint += 0.07 * grain
    elif lesion.surface == 2:
        lobes = np.abs(noise(rng, int(np.clip(5.5 * scale, 9, 30)), size))
        height += 0.14 * lesion.radius * np.tanh(1.4 * lobes) * np.sqrt(body)
        tint -= 0.16 * np.exp(-((lobes / 0.25) ** 2))
    elif lesion.surface == 3:
        pits = smoothstep(0.3, 2.2, noise(rng, int(np.clip(22.0 * scale, 36, 56)), size))
        height -= 0.02 * lesion.radius * pits * np.sqrt(body)
        tint -= 0.28 * pits
    return height.astype(np.float32), tint.astype(np.float32)


def vessel_map(rng: np.random.Generator, size: int) -> Array:
    """Draws branching vessels as random-walk trees.

    Returns:
        Coverage in [0, 1], shape (size, size); thick trunks cover more than fine twigs.
    """
    side = size * VESSEL_SUPERSAMPLE
    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    steps = 26
    queue: list[tuple[float, float, float, float, int]] = []
    for _ in range(int(rng.integers(4, 8))):
        turn = rng.uniform(0.0, 2.0 * np.pi)
        start = (rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0))
        queue.append((*start, turn, rng.uniform(0.009, 0.015), 0))
    while queue:
        x, y, heading, width, level = queue.pop()
        bend = np.cumsum(rng.normal(0.0, 0.17, steps))
        step = rng.uniform(0.024, 0.038) * 0.8**level
        xs = x + np.cumsum(np.cos(heading + bend)) * step
        ys = y + np.cumsum(np.sin(heading + bend)) * step
        points = [
            (float(px), float(py))
            for px, py in zip((xs + 1) * side / 2, (ys + 1) * side / 2, strict=True)
        ]
        ink = int(230 * 0.78**level)
        pen.line(points, fill=ink, width=max(1, round(width * side / 2)), joint="curve")
        if level < 2:
            for at in rng.integers(5, steps, 3 - level):
                side_turn = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.0)
                fork = float(heading + bend[at] + side_turn)
                queue.append((float(xs[at]), float(ys[at]), fork, width * 0.62, level + 1))
    small = canvas.resize((size, size), Image.Resampling.BOX)
    cover = np.asarray(small, np.float32) / 255.0
    return np.asarray(ndimage.gaussian_filter(cover, 0.0032 * size, truncate=3.0), np.float32)


def colon_wall(rng: np.random.Generator, centre: Centre, size: int) -> tuple[Array, Array, Array]:
    """Paints the tube: how much light the wall returns and which way it leans.

    Returns:
        Brightness factor, and the wall's slopes along ``x`` and ``y``; each (size, size).
    """
    x, y = grid(size)
    away = np.clip(centre.lumen_offset + 0.25 * rng.standard_normal(), 0.05, 1.35)
    turn = rng.uniform(0.0, 2.0 * np.pi)
    squeeze, tilt = np.exp(rng.uniform(-0.28, 0.28)), rng.uniform(0.0, np.pi)
    dx, dy = x - away * np.cos(turn), y - away * np.sin(turn)
    along = (dx * np.cos(tilt) + dy * np.sin(tilt)) * squeeze
    across = (dy * np.cos(tilt) - dx * np.sin(tilt)) / squeeze
    theta = np.arctan2(across, along)
    rho = np.hypot(along, across) + 1e-3
    # The lumen of the colon is a soft triangle rather than a disc.
    ring = rho * (1.0 + rng.uniform(0.03, 0.13) * np.cos(3.0 * theta + rng.uniform(0.0, 6.28)))
    ring = ring * (1.0 + 0.05 * noise(rng, 5, size))
    bright = ring**2 / (ring**2 + (centre.reach * rng.uniform(0.75, 1.25)) ** 2)
    ridge = np.zeros_like(x)
    radius = rng.uniform(0.13, 0.24)
    for _ in range(int(np.clip(rng.poisson(centre.folds), 1, 9))):
        middle, reach = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.9, 2.6)
        wave = 0.09 * np.cos(2.0 * theta + rng.uniform(0.0, 6.28))
        wave += 0.05 * np.cos(5.0 * theta + rng.uniform(0.0, 6.28))
        off = np.arccos(np.cos(theta - middle) * 0.9999) / reach
        arc = np.sqrt(np.clip(1.0 - off**2, 0.0, 1.0)).astype(np.float32)
        # The crest dips towards the wall at both ends, as a crescent does.
        t = ring / (radius * (1.0 + wave + 0.32 * (1.0 - arc))) - 1.0
        hidden = 1.0 / (1.0 + np.exp(np.clip(t / 0.045, -30.0, 30.0)))
        dark = hidden * np.exp(np.minimum(t, 0.0) / 0.20)
        lit = (1.0 - hidden) * np.exp(-((t / 0.24) ** 2))
        depth = centre.fold_depth * rng.uniform(0.6, 1.1)
        bright = bright * (1.0 - np.clip(0.85 * depth, 0.0, 0.88) * dark * arc)
        bright = bright * (1.0 + 0.38 * depth * lit * arc)
        ridge += 0.05 * radius * depth * lit * arc
        radius *= rng.uniform(1.4, 1.85)
    ridge += 0.040 * noise(rng, 4, size) + 0.012 * noise(rng, 11, size)
    gx, gy = slopes(ridge.astype(np.float32))
    lean = 0.42 / (0.35 + rho)
    return bright.astype(np.float32), gx + lean * dx, gy + lean * dy


def shift_colours(image: Array, amount: float) -> Array:
    """Magnifies red and shrinks blue about the middle by ``amount``; (size, size, 3) in and out."""
    middle = (image.shape[0] - 1) / 2.0
    out = image.copy()
    for channel, factor in ((0, 1.0 - amount), (2, 1.0 + amount)):
        ndimage.affine_transform(
            image[..., channel],
            [factor, factor],
            offset=middle * (1.0 - factor),
            output=out[..., channel],
            order=1,
            mode="nearest",
        )
    return out


def develop(
    rng: np.random.Generator, centre: Centre, light: Array
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Turns scene light into a picture: optics, tone curve, aperture, sensor.

    Args:
        rng: Source of the sensor noise.
        centre: Camera to imitate.
        light: Linear light, shape (size, size, 3), at least 0.

    Returns:
        The picture, shape (size, size, 3), about [0, 1]; and which pixels show the scene.
    """
    size = light.shape[0]
    pixel = 2.0 / size
    sigma = centre.blur * size
    image = ndimage.gaussian_filter(light, (sigma, sigma, 0.0), mode="nearest", truncate=3.0)
    if centre.aberration:
        image = shift_colours(image, centre.aberration)
    image = image / (1.0 + image**4) ** 0.25
    distance = frame_distance(centre, *grid(size))
    window = smoothstep(-0.5 * pixel, 0.008 + 0.5 * pixel, distance)[..., None]
    image = FRAME_BLACK + (image - FRAME_BLACK) * window
    grain = rng.standard_normal((size, size, 1), dtype=np.float32)
    image = image + grain * (centre.noise / 255.0) * (0.3 + 0.7 * window)
    return np.asarray(image, np.float32), distance > 0.0
