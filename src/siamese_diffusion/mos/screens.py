"""In which order a rater sees the images. Knows opaque names and groups, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from siamese_diffusion.core.seeding import derive_seed

_BLOCK: Final = 2  # images of each source among any 2 x sources successive screens


def screen_order(
    groups: Mapping[str, Sequence[str]], repeats: int, seed: int, rater: str
) -> list[str]:
    """Items in the order of one rater's screens.

    Sources are mixed evenly from first to last screen (blocks of two of each, shuffled), because
    raters learn while they rate. Repeated items come from the first half, sources in turn, and
    return in the second half, at least a quarter of the study later.
    """
    rng = np.random.default_rng(derive_seed(seed, "order", rater))
    shuffled = {
        name: [group[i] for i in rng.permutation(len(group))] for name, group in groups.items()
    }
    first: list[str] = []
    for start in range(0, max(len(group) for group in groups.values()), _BLOCK):
        block = [item for group in shuffled.values() for item in group[start : start + _BLOCK]]
        first.extend(block[i] for i in rng.permutation(len(block)))
    half, gap = len(first) // 2, len(first) // 4
    early = {name: [i for i in first[:half] if i in set(group)] for name, group in groups.items()}
    turns = [list(groups)[i] for i in rng.permutation(len(groups))]
    again: list[str] = []
    while len(again) < repeats:
        name = turns[len(again) % len(turns)]
        pool = [item for item in early[name] if item not in again] or [
            item for item in first[:half] if item not in again
        ]
        again.append(pool[int(rng.integers(len(pool)))])
    slots: dict[int, list[str]] = {}
    for item in again:
        earliest = max(half, first.index(item) + gap + 1)
        slots.setdefault(int(rng.integers(earliest, len(first) + 1)), []).append(item)
    order: list[str] = []
    for position in range(len(first) + 1):
        order.extend(slots.get(position, []))
        order.extend(first[position : position + 1])
    return order
