"""Which samples make up a batch, as a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from siamese_diffusion.core.seeding import derive_seed


def sample_order(
    seed: int, step: int, positions: Sequence[int], *, n: int, batch_size: int
) -> list[int]:
    """Rows of a data set of `n` at the given positions of the effective batch of `step`.

    Every epoch is a fresh permutation and its last incomplete batch is dropped, as in the paper's
    settings. With fewer samples than a batch, permutations simply follow one another.
    """
    if n >= batch_size:
        per_epoch = n // batch_size
        epoch, within = divmod(step, per_epoch)
        order = _permutation(seed, epoch, n)
        return [int(order[within * batch_size + position]) for position in positions]
    rows = []
    for position in positions:
        epoch, within = divmod(step * batch_size + position, n)
        rows.append(int(_permutation(seed, epoch, n)[within]))
    return rows


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(n)
