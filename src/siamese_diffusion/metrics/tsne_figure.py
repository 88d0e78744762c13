"""The picture of Fig. 4: real and synthetic images of each method in the plane, real beside real.

One joint embedding, so that panels share their axes. The first panel is real against real, which is
what perfect overlap looks like. Each title has the mixing of the features, which is the number.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import Field

from siamese_diffusion.core.artifacts import atomic_write_bytes, atomic_write_json
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.metrics.base import Bench
from siamese_diffusion.metrics.mixing import NEIGHBOURS, expected_mixing, mixing
from siamese_diffusion.metrics.sets import ImageSet
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Features, Real
from siamese_diffusion.metrics.tsne import ITERATIONS, PERPLEXITY, tsne

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND: Final = "tsne"
SUFFIXES: Final = (".png", ".svg", ".pdf")
_REAL: Final = "#1f77b4"
_OTHER: Final = "#d62728"


class TsneSettings(ScoreSettings):
    """How the embedding is made; extractor, resize and seed as for `score`."""

    points: int = Field(default=500, ge=10, le=2000)
    """Images of each set, drawn at random from larger ones; all sets give equally many."""
    perplexity: float = Field(default=PERPLEXITY, gt=1.0)
    """Effective number of neighbours."""
    iterations: int = Field(default=ITERATIONS, ge=1, le=100_000)
    """Steps of descent."""


def plot_tsne(
    real: ImageSet,
    methods: Sequence[tuple[str, ImageSet]],
    bench: Bench,
    settings: TsneSettings,
    out: Path,
) -> dict[str, float]:
    """Write the figure to `out`, and its numbers beside it as JSON.

    There, `plane` has the points of the real set, of its other half and of each method, in this
    order, for pages that draw them.

    Args:
        real: Real images; half of them are the first panel's other half.
        methods: Name and synthetic set of every further panel.
        bench: Where features come from.
        settings: See there.
        out: File ending in .png, .svg or .pdf.

    Returns:
        Mixing of each panel, by name; "real" is real against real.

    Raises:
        ConfigError: If the format is unknown, matplotlib is missing, a name comes twice, or the
            perplexity is too large.
        DataError: If a set has fewer than ten images to give.
    """
    require_drawable(out)
    names = [name for name, _ in methods]
    if len({"real", *names}) != len(names) + 1:
        raise ConfigError(
            f"methods are called {', '.join(names)}; each needs a name of its own, not 'real'",
            hint="rename the folders, or give --synthetic NAME=FOLDER",
        )
    points = min(settings.points, len(real) // 2, *(len(images) for _, images in methods))
    if points < NEIGHBOURS:
        raise DataError(
            f"only {points} images of each set can be shown; t-SNE needs {NEIGHBOURS} or more",
            hint="give larger sets; the real one is cut in two halves",
        )
    total = points * (len(methods) + 2)
    if settings.perplexity >= total / 3:
        raise ConfigError(
            f"perplexity {settings.perplexity:g} is too large for {total} images",
            hint=f"use --set perplexity={max(2, total // 6)}",
        )
    order = np.random.default_rng(derive_seed(settings.seed, "tsne", "real")).permutation(len(real))
    rows: list[Features] = [
        bench.features("fidelity", real)[order[:points]],
        bench.features("fidelity", real)[order[points : 2 * points]],
    ]
    for name, images in methods:
        stream = np.random.default_rng(derive_seed(settings.seed, "tsne", name))
        chosen = stream.permutation(len(images))[:points]
        rows.append(bench.features("fidelity", images)[chosen])
    plane = tsne(
        np.concatenate([np.asarray(r, dtype=np.float64) for r in rows]),
        perplexity=settings.perplexity,
        iterations=settings.iterations,
        seed=settings.seed,
    )
    parts = np.split(plane, len(rows))
    found = {n: mixing(rows[0], r) for n, r in zip(["real", *names], rows[1:], strict=True)}
    extractor = bench.extractor("fidelity")
    figure = _draw(parts, found, extractor.name)
    buffer = BytesIO()
    figure.savefig(buffer, format=out.suffix[1:], dpi=150)
    atomic_write_bytes(out, buffer.getvalue())
    numbers = {
        "kind": KIND,
        "mixing": found,
        "expected": expected_mixing(points, points),
        "points": points,
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": extractor.resize,
        "real": real.fingerprint,
        "methods": {name: images.fingerprint for name, images in methods},
        "plane": [[[round(float(v), 2) for v in point] for point in part] for part in parts],
        "settings": settings.model_dump(mode="json"),
        "environment": snapshot(),
    }
    atomic_write_json(out.with_suffix(".json"), numbers)
    return found


def require_drawable(out: Path) -> None:
    """Refuse a format that cannot be drawn, or a missing matplotlib.

    Raises:
        ConfigError: With what is needed.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(
            f"'{out}' ends in '{out.suffix}'", hint=f"use one of {', '.join(SUFFIXES)}"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed",
            hint="pip install 'siamese-diffusion[report]'",
        ) from error


def _draw(parts: Sequence[Real], found: dict[str, float], extractor: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(found), 3.7), layout="constrained")
    low, high = np.concatenate(parts).min(0), np.concatenate(parts).max(0)
    margin = 0.05 * (high - low)
    for number, (name, value) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(1, len(found), number)
        for points, colour, label in (
            (parts[0], _REAL, "real"),
            (parts[number], _OTHER, "other real" if number == 1 else "synthetic"),
        ):
            axes.scatter(points[:, 0], points[:, 1], s=6, c=colour, label=label, alpha=0.7, lw=0)
        axes.set_title(f"{'real, other real' if number == 1 else name}\nmixing {value:.3f}")
        axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
        axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(loc="best", fontsize="x-small")
    figure.suptitle(f"t-SNE of {extractor} features", fontsize="small")
    return figure
