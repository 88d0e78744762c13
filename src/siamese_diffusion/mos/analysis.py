"""From ratings and their sources to the numbers of a study, each with its count.

Pure functions: no file, no store. Only a rater's first look at an image counts; the second one
serves self-consistency alone. Protocol: MOS of a source is the share of "real" over its images and
all raters (inferred from Table 1, whose appendix is not public); the real images' own share is its
ceiling, and one minus it the rate of false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Final, Protocol

import numpy as np

from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.mos import statistics
from siamese_diffusion.mos.statistics import Interval, Permutation, Table
from siamese_diffusion.mos.study import REAL

SYNTHETIC: Final = "all synthetic"
PROTOCOL: Final = (
    "MOS: share of 'real' over images and raters, first looks only; interval_images: 95 percent "
    "percentile bootstrap over images with all their raters; interval_both: the same over images "
    "and raters; per rater: Wilson; comparison: mean of the raters' differences, two-sided "
    "permutation test over images, Holm over all pairs; agreement: Fleiss' kappa over images that "
    "every rater has rated"
)


class Answer(Protocol):
    """What the analysis needs of a rating."""

    @property
    def rater(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def is_real(self) -> bool: ...
    @property
    def confidence(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def position(self) -> int: ...


_Looks = dict[tuple[str, str], Answer]  # by rater and item


@dataclass(frozen=True)
class RaterShare:
    """One rater on one source: `real` of `n` images called real, with Wilson's interval."""

    n: int
    real: int
    share: float | None
    interval: Interval | None
    confidence: float | None


@dataclass(frozen=True)
class SourceResult:
    """One source; `n` counts ratings. Values are None where nothing is rated."""

    images: int
    raters: int
    n: int
    missing: int
    real: int
    mos: float | None
    interval_images: Interval | None
    interval_both: Interval | None
    confidence: float | None
    confidence_interval: Interval | None
    confidence_weighted: float | None
    by_rater: dict[str, RaterShare]


@dataclass(frozen=True)
class Agreement:
    """Fleiss' kappa over the `items` images that all `raters` rated; None if it is undefined."""

    kappa: float | None
    items: int
    left_out: int
    raters: int


@dataclass(frozen=True)
class Consistency:
    """Repeated images: how many, how many got the same vote again, mean change of confidence."""

    n: int
    same: int
    share: float | None
    interval: Interval | None
    confidence_change: float | None


@dataclass(frozen=True)
class RaterResult:
    """One rater over all sources; `right` counts correct answers of `n` first looks.

    `seconds` is the median time of a screen.
    """

    screens: int
    answered: int
    n: int
    right: int
    accuracy: float | None
    interval: Interval | None
    seconds: float | None
    consistency: Consistency


@dataclass(frozen=True)
class Comparison:
    """Mean over raters of MOS of `first` minus that of `second`; `p_holm` over all pairs."""

    first: str
    second: str
    images: tuple[int, int]
    n: tuple[int, int]
    difference: float | None
    interval: Interval | None
    by_rater: dict[str, float | None]
    test: Permutation | None
    p_holm: float | None


@dataclass(frozen=True)
class Analysis:
    """All numbers of a study."""

    protocol: str
    resamples: int
    seed: int
    raters: dict[str, RaterResult]
    sources: dict[str, SourceResult]
    agreement: dict[str, Agreement]
    consistency: Consistency
    comparisons: list[Comparison]

    def as_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def analyse(
    ratings: Sequence[Answer],
    sources: Mapping[str, str],
    orders: Mapping[str, Sequence[str]],
    *,
    resamples: int,
    seed: int,
) -> Analysis:
    """Every number of a study.

    Args:
        ratings: Answers; at most one per rater and position.
        sources: Source name of every item; the real set is called "real".
        orders: Planned items of every rater, in order.
        resamples: Draws of each bootstrap and permutation test.
        seed: Of these draws.

    Raises:
        ValueError: If a rating does not belong to the plan.
    """
    first, again = _looks(ratings, orders)
    names = list(dict.fromkeys(sources.values()))
    items = {name: [item for item in sources if sources[item] == name] for name in names}
    raters = list(orders)
    votes = {n: _table(first, items[n], raters, lambda a: float(a.is_real)) for n in names}
    sure = {n: _table(first, items[n], raters, lambda a: float(a.confidence)) for n in names}

    def rng(*stream: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(seed, "mos", *stream))

    def source(name: str) -> SourceResult:
        table, weights = votes[name], sure[name]
        n = int(np.isfinite(table).sum())
        return SourceResult(
            images=len(table),
            raters=int(np.isfinite(table).any(axis=0).sum()),
            n=n,
            missing=table.size - n,
            real=int(np.nansum(table)),
            mos=statistics.share(table),
            interval_images=statistics.bootstrap(table, rng("images", name), resamples=resamples),
            interval_both=statistics.bootstrap(
                table, rng("both", name), resamples=resamples, raters_too=True
            ),
            confidence=statistics.share(weights),
            confidence_interval=statistics.bootstrap(
                weights, rng("confidence", name), resamples=resamples
            ),
            confidence_weighted=statistics.weighted_share(table, weights),
            by_rater={
                rater: _rater_share(table[:, [i]], weights[:, [i]])
                for i, rater in enumerate(raters)
            },
        )

    fakes = [name for name in names if name != REAL]
    groups = {name: votes[name] for name in names}
    if len(fakes) > 1:
        groups[SYNTHETIC] = np.concatenate([votes[name] for name in fakes])
    groups["all"] = np.concatenate([votes[name] for name in names])
    comparisons = [
        _compare(a, b, votes, raters, rng("compare", a, b), rng("difference", a, b), resamples)
        for a, b in combinations([*fakes, *([REAL] if REAL in names else [])], 2)
    ]
    pairs = {rater: _pairs(rater, first, again) for rater in raters}
    return Analysis(
        protocol=PROTOCOL,
        resamples=resamples,
        seed=seed,
        raters={
            rater: _rater(rater, ratings, first, sources, len(orders[rater]), pairs[rater])
            for rater in raters
        },
        sources={name: source(name) for name in names},
        agreement={name: _agreement(table) for name, table in groups.items()},
        consistency=_consistency([pair for found in pairs.values() for pair in found]),
        comparisons=_with_holm(comparisons),
    )


def _looks(ratings: Sequence[Answer], orders: Mapping[str, Sequence[str]]) -> tuple[_Looks, _Looks]:
    first: _Looks = {}
    again: _Looks = {}
    for answer in sorted(ratings, key=lambda a: (a.rater, a.position)):
        order = orders.get(answer.rater, ())
        planned = order[answer.position] if 0 <= answer.position < len(order) else None
        if planned != answer.item:
            raise ValueError(
                f"rating of item {answer.item} at position {answer.position} by {answer.rater} "
                f"is not in the plan (there: {planned})"
            )
        # What is the second look is a matter of the plan, not of which ratings are there.
        looks = again if answer.item in order[: answer.position] else first
        looks[answer.rater, answer.item] = answer
    return first, again


def _table(
    looks: _Looks, items: Sequence[str], raters: Sequence[str], value: Callable[[Answer], float]
) -> Table:
    table = np.full((len(items), len(raters)), np.nan)
    for row, item in enumerate(items):
        for column, rater in enumerate(raters):
            answer = looks.get((rater, item))
            if answer is not None:
                table[row, column] = value(answer)
    return table


def _rater_share(votes: Table, weights: Table) -> RaterShare:
    n, real = int(np.isfinite(votes).sum()), int(np.nansum(votes))
    return RaterShare(
        n=n,
        real=real,
        share=statistics.share(votes),
        interval=statistics.wilson(real, n) if n else None,
        confidence=statistics.share(weights),
    )


def _agreement(votes: Table) -> Agreement:
    # A rater who has not begun would leave no item complete.
    begun = votes[:, np.isfinite(votes).any(axis=0)]
    counts, left_out = statistics.class_counts(begun)
    possible = len(counts) > 0 and begun.shape[1] > 1
    return Agreement(
        kappa=statistics.fleiss_kappa(counts) if possible else None,
        items=len(counts),
        left_out=left_out,
        raters=begun.shape[1],
    )


def _pairs(rater: str, first: _Looks, again: _Looks) -> list[tuple[Answer, Answer]]:
    return [
        (first[key], answer) for key, answer in again.items() if key[0] == rater and key in first
    ]


def _consistency(pairs: Sequence[tuple[Answer, Answer]]) -> Consistency:
    n = len(pairs)
    same = sum(a.is_real == b.is_real for a, b in pairs)
    change = sum(abs(a.confidence - b.confidence) for a, b in pairs)
    return Consistency(
        n=n,
        same=same,
        share=same / n if n else None,
        interval=statistics.wilson(same, n) if n else None,
        confidence_change=change / n if n else None,
    )


def _rater(
    rater: str,
    ratings: Sequence[Answer],
    first: _Looks,
    sources: Mapping[str, str],
    screens: int,
    pairs: Sequence[tuple[Answer, Answer]],
) -> RaterResult:
    mine = [answer for answer in ratings if answer.rater == rater]
    looks = [answer for (name, _), answer in first.items() if name == rater]
    right = sum(a.is_real == (sources[a.item] == REAL) for a in looks)
    return RaterResult(
        screens=screens,
        answered=len(mine),
        n=len(looks),
        right=right,
        accuracy=right / len(looks) if looks else None,
        interval=statistics.wilson(right, len(looks)) if looks else None,
        seconds=float(np.median([a.seconds for a in mine])) if mine else None,
        consistency=_consistency(pairs),
    )


def _compare(
    first: str,
    second: str,
    votes: Mapping[str, Table],
    raters: Sequence[str],
    for_test: np.random.Generator,
    for_interval: np.random.Generator,
    resamples: int,
) -> Comparison:
    a, b = votes[first], votes[second]
    return Comparison(
        first=first,
        second=second,
        images=(len(a), len(b)),
        n=(int(np.isfinite(a).sum()), int(np.isfinite(b).sum())),
        difference=statistics.paired_difference(a, b),
        interval=statistics.bootstrap_difference(a, b, for_interval, resamples=resamples),
        by_rater={
            rater: statistics.paired_difference(a[:, [i]], b[:, [i]])
            for i, rater in enumerate(raters)
        },
        test=statistics.permutation_test(a, b, for_test, resamples=resamples),
        p_holm=None,
    )


def _with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    tested = [c.test.p for c in comparisons if c.test is not None]
    adjusted = iter(statistics.holm(tested))
    return [replace(c, p_holm=next(adjusted)) if c.test is not None else c for c in comparisons]
