"""Charts: what is drawn, what is said of it, and what is left out openly."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from siamese_diffusion.reports.charts import (
    MOST_POINTS,
    NOT_RECORDED,
    Series,
    bar_chart,
    line_chart,
    linear_ticks,
    log_smoothed,
    log_ticks,
    series_of,
    training_curves,
    training_speed,
)

TRAIN = [
    {
        "event": "train",
        "step": step,
        "loss/mask": 1.0 / step,
        "loss/augment": 0.0 if step < 30 else 0.5,
        "weight/image": step / 100,
        "samples_per_second": 4.0,
        "peak_memory_mb": 1000.0 + step,
        "seconds": float(step),
    }
    for step in range(10, 101, 10)
]


def drawn_lines(svg: str) -> list[str]:
    return [line.attrib["points"] for line in ET.fromstring(svg).iter("polyline")]


def test_a_chart_is_well_formed_and_says_what_it_shows() -> None:
    svg = line_chart(
        "A & B",
        [Series("<one>", [(0.0, 1.0), (10.0, 0.1)], "#000000")],
        description='It "falls".',
        last_step=10.0,
        legend=True,
    )
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'A & B. It "falls".'
    assert "<one>" in [text.text for text in root.iter("text")]


def test_higher_values_are_drawn_higher() -> None:
    svg = line_chart("t", [Series("", [(0.0, 9.0), (1.0, 1.0)], "#000")], description="",
                     last_step=1.0)  # fmt: skip
    first, last = (tuple(map(float, p.split(","))) for p in drawn_lines(svg)[0].split())
    assert first[1] < last[1]
    assert first[0] < last[0]


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    points = [(float(i), 1.0 + i) for i in range(10_000)]
    svg = line_chart("t", [Series("", points, "#000")], description="", last_step=9999.0)
    drawn = drawn_lines(svg)[0].split()
    assert len(drawn) == MOST_POINTS
    assert float(drawn[-1].split(",")[0]) > float(drawn[0].split(",")[0])


def test_a_single_constant_value_can_be_drawn() -> None:
    for log in (True, False):
        svg = line_chart("t", [Series("", [(5.0, 0.2)], "#000")], description="", last_step=5.0,
                         log=log)  # fmt: skip
        assert "nan" not in svg


def test_the_smoothed_line_is_a_mean_of_logarithms() -> None:
    points = [(float(i), math.exp((-1) ** i)) for i in range(200)]
    smooth = log_smoothed(points)
    assert smooth[0] == pytest.approx((0.0, math.e))
    assert smooth[-1][1] == pytest.approx(1.0, rel=0.2)  # the plain mean would be 1.54
    assert log_smoothed([(0.0, 3.0), (1.0, 3.0)])[-1][1] == pytest.approx(3.0)


def test_series_skip_what_is_not_finite_and_keep_the_last_of_a_repeated_step() -> None:
    records: list[dict[str, object]] = [
        {"event": "train", "step": 2, "x": 1.0},
        {"event": "train", "step": 1, "x": math.nan},
        {"event": "train", "step": 2, "x": 3.0},
        {"event": "other", "step": 3, "x": 9.0},
    ]
    assert series_of(records, "train", "x") == [(2.0, 3.0)]


def test_curves_chart_what_was_logged_and_name_what_was_not() -> None:
    curves = training_curves(TRAIN)
    assert [chart.title for chart in curves.losses] == ["Mask loss", "Augmentation loss"]
    assert "2 of 10 logged values are zero" in curves.losses[1].caption
    assert [chart.title for chart in curves.others] == ["Weights"]
    assert curves.missing == (
        "Image loss: not recorded.",
        "Consistency loss: not recorded.",
        "Validation loss: not recorded.",
    )
    assert curves.table[0][:2] == ("Mask loss", "0.1")


def test_a_term_that_is_always_zero_is_said_to_be_so() -> None:
    records = [{"event": "train", "step": 1, "loss/image": 0.0}]
    assert "Image loss: zero throughout." in training_curves(records).missing


def test_validation_bins_are_in_the_order_of_their_timesteps() -> None:
    record = {"event": "validate", "step": 1, "loss/mean": 0.2, "loss/t800-999": 0.1,
              "loss/t000-199": 0.3}  # fmt: skip
    svg = training_curves([record]).others[0].svg
    assert svg.index("mean") < svg.index("t 0–199") < svg.index("t 800–999")


def test_an_empty_log_gives_no_charts() -> None:
    curves = training_curves([])
    assert curves.losses == curves.others == ()
    assert len(curves.missing) == 6


def test_speed_and_time_add_up_over_a_resumed_run() -> None:
    resumed = [*TRAIN, {"event": "resume", "step": 100, "seconds": 0.5},
               {"event": "train", "step": 110, "seconds": 60.0}]  # fmt: skip
    assert dict(training_speed(resumed)) == {
        "Speed": "4.00 pairs a second (median)",
        "Peak memory": "1,100 MiB",
        "Training time": "2 min 40 s",
    }
    assert set(dict(training_speed([])).values()) == {NOT_RECORDED}


def test_bars_show_their_values_in_words_too() -> None:
    svg = bar_chart("Dice", [("own", 0.75), ("shuffled", 1.5)], description="d")
    texts = [text.text for text in ET.fromstring(svg).iter("text")]
    assert texts == ["own", "0.750", "shuffled", "1.500"]
    widths = [float(r.attrib["width"]) for r in ET.fromstring(svg).iter("rect")]
    assert widths[1] == pytest.approx(0.75 * widths[0])
    assert widths[3] == widths[2]  # never beyond the track


@pytest.mark.parametrize(("low", "high"), [(0.001, 10.0), (0.09, 0.11), (0.5, 0.9), (1e-5, 1e5)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    for ticks in (log_ticks(low, high), linear_ticks(low, high, 5)):
        assert 2 <= len(ticks) <= 8
        room = 1e-6 * (high - low)
        assert all(low - room <= tick <= high + room for tick in ticks)
