"""`analyse_study`: ratings of a store, unblinded by the key, as JSON, CSV and text."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Sequence
from pathlib import Path

from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import atomic_write_json, atomic_write_text
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.mos.analysis import Analysis, analyse
from siamese_diffusion.mos.statistics import Interval
from siamese_diffusion.mos.study import (
    REAL,
    KeyRecord,
    Study,
    default_key_folder,
    missing_extra,
    open_key,
)

_COLUMNS = ("rater", "item", "is_real", "confidence", "seconds", "timestamp")


def analyse_study(
    root: Path,
    *,
    key: Path | None = None,
    store: str | None = None,
    out: Path | None = None,
    csv: Path | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> str:
    """Analyse a study, finished or running.

    Args:
        root: Study folder.
        key: Folder of its key; default: beside the study.
        store: SQLAlchemy URL; default: the SQLite file in the study folder.
        out: JSON file to write.
        csv: Folder to write one table of ratings per rater to.
        resamples: Draws of each bootstrap and permutation test.
        seed: Of these draws.

    Returns:
        The table to print.

    Raises:
        ConfigError: If `resamples` is too small or the extra `web` is missing.
        DataError: If study, key and store do not belong together, or nothing is rated yet.
        OutputError: If the store cannot be read or a file cannot be written.
    """
    if resamples < 100:
        raise ConfigError(
            f"--resamples {resamples} is too few for an interval", hint="take 100 or more"
        )
    if out is not None and out.is_dir():
        raise OutputError(f"'{out}' is a folder; --out is one JSON file", hint="name a file in it")
    study = Study.open(root)
    record = open_key(key or default_key_folder(root), study)
    try:
        from siamese_diffusion.mos.store import Store, default_url
    except ImportError as error:
        raise missing_extra(error) from error
    opened = Store.open(
        store or default_url(study.paths.store),
        study=study.record.study,
        fingerprint=study.fingerprint,
        create=False,
    )
    try:
        ratings = opened.ratings()
    finally:
        opened.close()
    if not ratings:
        raise DataError(
            f"no image of study '{root}' is rated yet", hint="serve it: siamdiff mos serve"
        )
    try:
        analysis = analyse(
            ratings,
            {item: entry.source for item, entry in record.items.items()},
            {plan.rater: plan.order for plan in study.record.raters},
            resamples=resamples,
            seed=seed,
        )
    except ValueError as error:
        raise DataError(
            f"the store does not fit study '{root}': {error}",
            hint="name its own store: --store URL",
        ) from error
    if out is not None:
        atomic_write_json(out, {"study": _passport(study, record), **analysis.as_dict()})
    for plan in study.record.raters if csv is not None else ():
        assert csv is not None
        buffer = io.StringIO()
        writer = csv_format.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for r in ratings:
            if r.rater == plan.rater:
                writer.writerow(
                    (r.rater, r.item, int(r.is_real), r.confidence, r.seconds, r.rated_at)
                )
        atomic_write_text(csv / f"{plan.rater}.csv", buffer.getvalue())
    return render(analysis, study.record.title)


def render(analysis: Analysis, title: str) -> str:
    """The numbers as text, every one with its n."""
    answered = sum(r.answered for r in analysis.raters.values())
    screens = sum(r.screens for r in analysis.raters.values())
    lines = [
        f"{title}: {len(analysis.raters)} raters, {answered} of {screens} screens answered",
        "",
        *_table(
            ("source", "MOS", "95% images", "95% both", "confidence", "95% images", "n", "missing"),
            [
                (
                    name,
                    _number(s.mos),
                    _interval(s.interval_images),
                    _interval(s.interval_both),
                    _number(s.confidence, 2),
                    _interval(s.confidence_interval, 2),
                    f"{s.n} = {s.images} images x {s.raters} raters"
                    + (f" - {s.images * s.raters - s.n}" if s.images * s.raters != s.n else ""),
                    str(s.missing),
                )
                for name, s in analysis.sources.items()
            ],
        ),
        "",
        "MOS: share of images called real; 0.5 would be guessing.",
    ]
    real = analysis.sources.get(REAL)
    if real is not None and real.mos is not None:
        lines.append(
            f"Real images are the ceiling; false alarms: {_number(1 - real.mos)} of them called "
            f"synthetic (n = {real.n})."
        )
    lines += [
        "",
        *_table(
            ("difference of MOS", "value", "95% images", "p", "p (Holm)", "n", "test"),
            [
                (
                    f"{c.first} - {c.second}",
                    _number(c.difference, 3, sign=True),
                    _interval(c.interval),
                    _p(c.test.p if c.test else None),
                    _p(c.p_holm),
                    f"{c.n[0]}, {c.n[1]}",
                    ""
                    if c.test is None
                    else f"{'all' if c.test.exact else 'drawn'} {c.test.splits:,} splits",
                )
                for c in analysis.comparisons
            ],
        ),
        "",
        *_table(
            ("agreement", "Fleiss' kappa", "n", "left out"),
            [
                (
                    name,
                    _number(a.kappa),
                    f"{a.items} images x {a.raters} raters",
                    str(a.left_out),
                )
                for name, a in analysis.agreement.items()
            ],
        ),
        "",
        *_table(
            ("rater", "answered", "right", "95% Wilson", "n", "same on repeats", "seconds"),
            [
                (
                    name,
                    f"{r.answered} of {r.screens}",
                    _number(r.accuracy),
                    _interval(r.interval),
                    str(r.n),
                    f"{r.consistency.same} of {r.consistency.n}",
                    _number(r.seconds, 1),
                )
                for name, r in analysis.raters.items()
            ],
        ),
        "",
        *_table(
            ("extra", "MOS by rater (n)", "weighted by confidence, not MOS (n)"),
            [
                (
                    name,
                    ", ".join(f"{_number(b.share)} ({b.n})" for b in s.by_rater.values()),
                    f"{_number(s.confidence_weighted)} ({s.n})",
                )
                for name, s in analysis.sources.items()
            ],
        ),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _passport(study: Study, key: KeyRecord) -> dict[str, object]:
    return {
        "study": study.record.study,
        "title": study.record.title,
        "plan_sha256": study.fingerprint,
        "prepared_with": key.version,
        "analysed_with": __version__,
        "seed": key.seed,
        "size": study.record.size,
        "per_source": key.per_source,
        "repeats": key.repeats,
        "sources": key.sources,
        "notes": key.notes,
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in [head, *rows]
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _interval(interval: Interval | None, digits: int = 3) -> str:
    return "-" if interval is None else f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
