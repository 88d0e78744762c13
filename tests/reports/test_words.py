"""What values mean, and how they read beside real against real."""

from __future__ import annotations

import pytest

from siamese_diffusion.metrics import METRICS
from siamese_diffusion.reports.words import UNKNOWN, following, meaning, reading


def test_every_metric_has_a_meaning() -> None:
    names = [name for name in METRICS if name != "prdc"]
    names += ["precision", "recall", "density", "coverage", "cmmd_dino", "sim_dino-paired"]
    assert [name for name in names if meaning(name) == UNKNOWN] == []
    assert meaning("new") == UNKNOWN


@pytest.mark.parametrize(
    ("value", "floor", "interval", "higher", "words"),
    [
        (5.0, 2.0, (4.0, 6.0), False, "worse than real against real"),
        (5.0, 4.5, (4.0, 6.0), False, "like real against real"),
        (1.0, 2.0, (0.5, 1.5), False, "no worse than real"),
        (0.5, 0.9, None, True, "worse than real against real"),
        (0.5, None, None, True, "nothing to compare with"),
    ],
)
def test_values_are_read_beside_their_floor(
    value: float,
    floor: float | None,
    interval: tuple[float, float] | None,
    higher: bool,
    words: str,
) -> None:
    assert reading(value, floor, interval, higher) == words


def test_following_is_the_way_from_chance_to_real_pairs() -> None:
    assert following(0.88, 0.1, 0.9).startswith("Yes: 98%")
    assert following(0.05, 0.1, 0.9).startswith("No, or hardly: 0%")
    assert following(0.5, 0.6, 0.5).startswith("This cannot be told here")
