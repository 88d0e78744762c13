"""FID, the Frechet distance between Gaussians fitted to two sets of features. Lower is better.

    FID = |mu_x - mu_y|^2 + tr S_x + tr S_y - 2 tr (S_x S_y)^(1/2)

No general matrix square root is taken: it is unstable for covariances without full rank, and
changed between versions of SciPy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import linalg

from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.intervals import centred_interval, draw_counts
from siamese_diffusion.metrics.statistics import Features, Real, Statistics, statistics

# Above this many images in both sets the d x d form is cheaper than an n x m one.
SINGULAR_MOST: Final = 3000


def fid(x: Features, y: Features) -> float:
    """FID of two feature matrices (n, d) and (m, d), in whichever form is cheaper.

    Raises:
        ValueError: If a set has fewer than two rows or the widths differ.
    """
    if min(len(x), len(y)) <= SINGULAR_MOST and max(len(x), len(y)) <= 4 * SINGULAR_MOST:
        return fid_singular(x, y)
    return fid_of_statistics(statistics(x), statistics(y))


def fid_singular(x: Features, y: Features) -> float:
    """FID by singular values: exact for covariances without full rank.

    With A and B the centred sets over sqrt(n - 1) and sqrt(m - 1), S_x = A'A and S_y = B'B, so
    that tr (S_x S_y)^(1/2) is the sum of the singular values of A B'.
    """
    _require(x, y)
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    shift = x.mean(0) - y.mean(0)
    root = linalg.svdvals(a @ b.T).sum()
    return float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * root)


def fid_of_statistics(x: Statistics, y: Statistics) -> float:
    """FID of streamed statistics: sum of the roots of the eigenvalues of R S_y R, R^2 = S_x."""
    if x.mean.shape != y.mean.shape:
        raise ValueError(f"features are {len(x.mean)} and {len(y.mean)} wide; FID needs one width")
    shift = x.mean - y.mean
    values, vectors = linalg.eigh(x.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = root @ y.covariance @ root
    roots = np.sqrt(np.clip(linalg.eigvalsh((inner + inner.T) / 2), 0, None))
    traces = np.trace(x.covariance) + np.trace(y.covariance)
    return float(shift @ shift + traces - 2 * roots.sum())


def fid_resampled(x: Features, y: Features, n_counts: Real, m_counts: Real) -> Real:
    """FID of bootstrap samples given by how often each image was drawn.

    Args:
        x: (n, d).
        y: (m, d).
        n_counts: (draws, n), each row summing to n.
        m_counts: (draws, m).

    Returns:
        (draws,). Only products of images are needed, made once: images drawn several times are
        one row with a weight, which leaves the smaller side of about 0.63 n rows.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    centre = x.mean(0)
    x, y = x - centre, y - centre  # near zero, products lose no digits
    products, x_squares, y_squares = x @ y.T, np.square(x).sum(1), np.square(y).sum(1)
    result = np.empty(len(n_counts))
    for draw, (c, e) in enumerate(zip(n_counts, m_counts, strict=True)):
        n, m = c.sum(), e.sum()
        mean_x, mean_y = c @ x / n, e @ y / m
        rows, columns = np.flatnonzero(c), np.flatnonzero(e)
        inner = products[np.ix_(rows, columns)]
        inner = inner - (x[rows] @ mean_y)[:, None] - (y[columns] @ mean_x)[None]
        inner += mean_x @ mean_y
        inner *= np.sqrt(np.outer(c[rows] / (n - 1), e[columns] / (m - 1)))
        small = inner if len(rows) <= len(columns) else inner.T
        roots = np.sqrt(np.clip(linalg.eigvalsh(small @ small.T), 0, None)).sum()
        trace_x = (c @ x_squares - n * mean_x @ mean_x) / (n - 1)
        trace_y = (e @ y_squares - m * mean_y @ mean_y) / (m - 1)
        shift = mean_x - mean_y
        result[draw] = shift @ shift + trace_x + trace_y - 2 * roots
    return result


class Fid(Metric):
    """`fid` over the features of the fidelity extractor."""

    role = "fidelity"
    smallest = 2

    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        x, y = comparison.features(self.role)
        value = fid(x, y)
        settings = comparison.settings
        interval = None
        notes = []
        if max(len(x), len(y)) > SINGULAR_MOST:
            notes.append(f"no interval above {SINGULAR_MOST:,} images")
        elif intervals and settings.bootstrap:
            counts = [
                draw_counts(len(z), settings.bootstrap, settings.seed, "fid", side)
                for z, side in ((x, "real"), (y, "synthetic"))
            ]
            interval = centred_interval(value, fid_resampled(x, y, counts[0], counts[1]))
        width = x.shape[1]
        if min(len(x), len(y)) <= width:
            notes.append(
                f"{len(x):,} and {len(y):,} images give covariances of {width:,} features without "
                "full rank: FID is biased upwards, more so for fewer images; trust kid rather"
            )
        return [Measurement("fid", value, False, interval=interval, notes=tuple(notes))]


def _require(x: Features, y: Features) -> None:
    if min(len(x), len(y)) < 2:
        raise ValueError(f"FID needs 2 rows in each set, got {len(x)} and {len(y)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features are {x.shape[1]} and {y.shape[1]} wide; FID needs one width for both"
        )
