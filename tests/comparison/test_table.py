"""Intervals against closed forms, and what the table says."""

from __future__ import annotations

import math

import pytest

from siamese_diffusion.comparison.table import Row, differences, interval, markdown

HEADINGS = {"a/dice": ("Dice", True), "a/fid": ("FID", False), "a/never": ("Never", True)}


def rows() -> list[Row]:
    costs = {"trained_parameters": [1e6, 1e6], "step_seconds": [0.5, 0.7]}
    return [
        Row("siamese", {"a/dice": [0.5, 0.7], "a/fid": [10.0, 12.0]}, costs),
        Row("controlnet", {"a/dice": [0.4, 0.7], "a/fid": [11.0, 15.0]}, {}),
    ]


def test_two_values_have_the_interval_of_student_with_one_degree_of_freedom() -> None:
    found = interval([0.5, 0.7])
    # t(0.975, 1) = tan(0.475 pi); standard error of two values is half their distance
    assert found.mean == pytest.approx(0.6)
    assert found.half == pytest.approx(math.tan(0.475 * math.pi) * 0.1)


def test_a_single_value_has_no_interval() -> None:
    assert interval([0.25]).half is None
    assert interval([0.25]).text() == "0.250"


def test_equal_values_have_an_interval_of_zero() -> None:
    assert interval([3.0, 3.0, 3.0]).half == 0


def test_differences_are_taken_seed_by_seed() -> None:
    found = differences(rows(), "siamese", "a/dice")
    assert set(found) == {"controlnet"}
    assert found["controlnet"].mean == pytest.approx(-0.05)
    spread = interval([-0.1, 0.0])
    assert found["controlnet"].half == pytest.approx(spread.half)


def test_a_method_with_fewer_seeds_is_compared_on_those_both_have() -> None:
    one = [rows()[0], Row("adc", {"a/dice": [0.9]}, {})]
    found = differences(one, "siamese", "a/dice")["adc"]
    assert found.mean == pytest.approx(0.4) and found.n == 1


def test_the_table_has_scores_with_intervals_and_costs_without() -> None:
    text = markdown(rows(), HEADINGS, reference="siamese")
    lines = text.splitlines()
    assert lines[0].startswith("| method | Dice ↑ | FID ↓ | trained, M | update, s |")
    assert "Never" not in text
    assert "| siamese | 0.600 ± 1.271 | 11.000 ± 12.706 | 1.00 | 0.600 | - | - |" in lines
    assert "| controlnet | 0.550 ± 1.906 | 13.000 ± 25.412 | - | - | - | - |" in lines
    assert "| Dice, less siamese | difference |" in lines
    assert "| controlnet | -0.050 ± 0.635 |" in lines
    assert "95 % interval over 2 seeds" in text
