"""Pairs in memory at training size, and the colour statistics that SANet exchanges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from siamese_diffusion.core.seeding import generator as stream
from siamese_diffusion.data.listing import collect
from siamese_diffusion.data.pairs import PairFolder, read_mask
from siamese_diffusion.segmentation.colour import exchange, read_sources, statistics
from siamese_diffusion.segmentation.mixture import Mixture
from siamese_diffusion.segmentation.settings import ColourSettings

Pixels = npt.NDArray[np.uint8]
RESIZE_STATEMENT = (
    "images: bilinear, widened to the scale when shrinking (antialiased), aspect not kept; "
    "masks: nearest, after the threshold"
)


@dataclass(frozen=True)
class Samples:
    """N pairs on the CPU.

    Attributes:
        image: (N, 3, S, S) uint8.
        mask: (N, S, S) uint8 {0, 255}.
        synthetic: Which pairs are synthetic, (N,) bool.
    """

    image: Tensor
    mask: Tensor
    synthetic: Tensor

    def __len__(self) -> int:
        return len(self.mask)


@dataclass(frozen=True)
class ColourPools:
    """Colour statistics of every training pair, and which pool each belongs to.

    Attributes:
        statistics: Mean and deviation of Lab channels, (N, 2, 3).
        first: Rows of the first pool.
        second: Rows of the second pool.
    """

    statistics: npt.NDArray[np.float64]
    first: tuple[int, ...]
    second: tuple[int, ...]

    def partner(self, row: int, settings: ColourSettings, draws: torch.Generator) -> int:
        """Whose colours `row` gets: the pool by chance, the member by the row's number."""
        in_first = torch.rand((), generator=draws).item() < settings.first_share
        pool = (self.first if in_first else self.second) or self.first or self.second
        return pool[row % len(pool)]

    def exchanged(self, image: Pixels, row: int, partner: int) -> Pixels:
        """The image (H, W, 3) of `row` in the colours of `partner`."""
        return exchange(image, self.statistics[row], self.statistics[partner])


def resize_picture(image: Pixels, size: int) -> Pixels:
    """RGB uint8 (H, W, 3) to (size, size, 3); see `RESIZE_STATEMENT`."""
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized, dtype=np.uint8)


def load_folder(
    folder: PairFolder,
    size: int,
    *,
    synthetic: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Decode all pairs of a folder at `size`.

    Raises:
        DataError: Naming all files that cannot be read.
    """
    rule = folder.mask_rule
    image = torch.empty((len(folder), 3, size, size), dtype=torch.uint8)
    mask = torch.empty((len(folder), size, size), dtype=torch.uint8)

    def load(row: int) -> None:
        picture = resize_picture(folder.image(row), size)
        image[row] = torch.from_numpy(picture).permute(2, 0, 1)
        mask[row] = torch.from_numpy(read_mask(folder.pairs[row], rule, size))

    collect(load, range(len(folder)), progress=progress)
    return Samples(image, mask, torch.full((len(folder),), synthetic))


def load_mixture(
    mixture: Mixture, size: int, *, progress: Callable[[int, int], None] | None = None
) -> tuple[Samples, list[int]]:
    """Decode every distinct pair of a mixture once.

    Returns:
        The pairs, and for each entry of the mixture its row among them.
    """
    used = sorted(set(mixture.entries))
    parts = []
    for kind, folder in (("real", mixture.real), ("synthetic", mixture.synthetic)):
        rows = {row for k, row in used if k == kind}
        if folder is not None and rows:
            chosen = _only(folder, rows)
            parts.append(
                load_folder(chosen, size, synthetic=kind == "synthetic", progress=progress)
            )
    samples = Samples(
        *(torch.cat([getattr(p, f) for p in parts]) for f in ("image", "mask", "synthetic"))
    )
    place = {entry: row for row, entry in enumerate(used)}
    return samples, [place[entry] for entry in mixture.entries]


def colour_pools(mixture: Mixture, samples: Samples, settings: ColourSettings) -> ColourPools:
    """Statistics and pools of the distinct pairs of a mixture, in the order of `samples`.

    The pool follows from the real set's metadata; without any, all real pairs are in the second.
    A synthetic pair is in the second pool, or in that of the pair its mask came from.
    """
    sources = read_sources(mixture.real.root, settings.column) or {}
    first = set(settings.first_pool)

    def is_first(entry: tuple[str, int]) -> bool:
        kind, row = entry
        if kind == "real":
            return sources.get(mixture.real.stems[row]) in first
        if settings.synthetic_pool == "second" or mixture.known is None:
            return False
        assert mixture.synthetic is not None
        return sources.get(mixture.known.items[mixture.synthetic.stems[row]].origin) in first

    used = sorted(set(mixture.entries))
    in_first = [is_first(entry) for entry in used]
    found = collect(lambda row: statistics(_picture(samples, row)), range(len(samples)))
    return ColourPools(
        np.stack(found),
        tuple(row for row, yes in enumerate(in_first) if yes),
        tuple(row for row, yes in enumerate(in_first) if not yes),
    )


def recoloured(
    samples: Samples, pools: ColourPools, row: int, settings: ColourSettings, *stream_name: int
) -> Tensor:
    """The image of a row after the colour exchange, (3, S, S) uint8."""
    seed, *rest = stream_name
    partner = pools.partner(row, settings, stream(seed, "colour", *rest))
    picture = pools.exchanged(_picture(samples, row), row, partner)
    return torch.from_numpy(picture).permute(2, 0, 1)


def _picture(samples: Samples, row: int) -> Pixels:
    return samples.image[row].permute(1, 2, 0).numpy()


def _only(folder: PairFolder, rows: set[int]) -> PairFolder:
    dropped = [stem for row, stem in enumerate(folder.stems) if row not in rows]
    return folder.without(dropped) if dropped else folder
