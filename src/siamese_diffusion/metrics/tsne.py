"""t-SNE, exact, for pictures like Fig. 4 of the paper; numbers belong to `mixing`, not to the plot.

Conditional Gaussian neighbourhoods of a given perplexity, symmetrised; Student-t similarities in
the plane; gradient descent on KL(P || Q) with early exaggeration and momentum. Memory and time grow
with n^2, so sets are drawn down to some hundreds first.

Source: van der Maaten and Hinton 2008; learning rate and initialisation, Kobak and Berens 2019.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from siamese_diffusion.metrics.neighbours import squared_distances
from siamese_diffusion.metrics.statistics import Features, Real

PERPLEXITY: Final = 30.0
ITERATIONS: Final = 1000
EXAGGERATION: Final = 12.0
EXAGGERATED: Final = 250  # iterations
COMPONENTS: Final = 50  # of the features that are kept
_SEARCH: Final = 64  # halvings: more than float64 can tell apart
_TINY: Final = 1e-12


def tsne(
    features: Features,
    *,
    perplexity: float = PERPLEXITY,
    iterations: int = ITERATIONS,
    seed: int = 0,
) -> Real:
    """Embed rows (n, d) in the plane, (n, 2).

    Args:
        features: Rows; the 50 main components are used.
        perplexity: Effective number of neighbours.
        iterations: Steps of descent, the first 250 of them exaggerated.
        seed: Of a tiny jitter that parts equal rows.

    Raises:
        ValueError: If the perplexity is not below the number of rows.
    """
    n = len(features)
    if not 1 < perplexity < n:
        raise ValueError(f"perplexity {perplexity:g} must lie between 1 and the {n} rows")
    reduced = main_components(features, COMPONENTS)
    p = joint_probabilities(reduced, perplexity)
    start = main_components(reduced, 2)
    y = start / max(float(start[:, 0].std()), _TINY) * 1e-4
    y = y + np.random.default_rng(seed).normal(scale=1e-6, size=y.shape)
    rate = max(n / EXAGGERATION / 4, 50.0)
    velocity, gain = np.zeros_like(y), np.ones_like(y)
    for iteration in range(iterations):
        early = iteration < EXAGGERATED
        gradient = kl_gradient(p * (EXAGGERATION if early else 1.0), y)
        same = np.sign(gradient) == np.sign(velocity)
        gain = np.maximum(np.where(same, gain * 0.8, gain + 0.2), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gain * gradient
        y = y + velocity
        y = y - y.mean(0)
    return np.asarray(y, dtype=np.float64)


def main_components(features: Features, k: int) -> Real:
    """Rows (n, d) in their first k principal directions, (n, min(k, n, d)); signs are fixed."""
    rows = np.asarray(features, dtype=np.float64)
    rows = rows - rows.mean(0)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    directions = directions[:k]
    largest = np.abs(directions).argmax(1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return np.asarray(rows @ (directions * signs[:, None]).T, dtype=np.float64)


def joint_probabilities(rows: Real, perplexity: float) -> Real:
    """Symmetric p_ij, (n, n), sum 1, whose conditionals have entropy log(perplexity)."""
    squares = squared_distances(rows, rows)
    np.fill_diagonal(squares, np.inf)
    squares = squares - squares.min(1, keepdims=True)
    n = len(rows)
    low, high = np.zeros(n), np.full(n, np.inf)
    beta = np.ones(n)  # 1 / (2 sigma^2) of each row
    for _ in range(_SEARCH):
        conditional = _conditional(squares, beta)
        too_wide = _entropy(conditional) > np.log(perplexity)
        low, high = np.where(too_wide, beta, low), np.where(too_wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2, (low + high) / 2)
    conditional = _conditional(squares, beta)
    return np.asarray((conditional + conditional.T) / (2 * n), dtype=np.float64)


def kl_gradient(p: Real, y: Real) -> Real:
    """Gradient of KL(P || Q) by the places y (n, 2), Eq. 5 of the t-SNE article."""
    kernel = _student(y)
    q = kernel / kernel.sum()
    weights = (p - q) * kernel
    return np.asarray(4 * (weights.sum(1)[:, None] * y - weights @ y), dtype=np.float64)


def kl_divergence(p: Real, y: Real) -> float:
    """KL(P || Q) of an embedding, in nats."""
    kernel = _student(y)
    q = np.maximum(kernel / kernel.sum(), _TINY)
    return float((p * np.log(np.maximum(p, _TINY) / q)).sum())


def _student(y: Real) -> Real:
    kernel = 1 / (1 + squared_distances(y, y))
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel, dtype=np.float64)


def _conditional(squares: Real, beta: Real) -> Real:
    weights = np.exp(-squares * beta[:, None])
    return np.asarray(weights / weights.sum(1, keepdims=True), dtype=np.float64)


def _entropy(conditional: Real) -> Real:
    safe = np.maximum(conditional, 1e-300)
    return np.asarray(-(conditional * np.log(safe)).sum(1), dtype=np.float64)
