"""Histograms and scatters: what is drawn where."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from siamese_diffusion.reports.figures import BINS, histogram, scatter


def test_bars_are_shares_and_ends_belong_to_the_outer_bins() -> None:
    svg = histogram(
        "Dice", [0.0, 1.0, 1.0, 0.5], [0.5], marks=[("mark", 0.3)], axis="Dice", description="<d>"
    )
    root = ET.fromstring(svg)
    bars = [float(bar.attrib["height"]) for bar in root.iter("rect")][:BINS]
    assert bars[0] > 0
    assert bars[-1] == pytest.approx(2 * bars[0], abs=0.2)
    assert sum(height > 0 for height in bars) == 3
    assert "4 synthetic pairs" in svg
    assert "1 real pairs" in svg
    assert root.attrib["aria-label"] == "Dice. <d>"


def test_without_real_pairs_there_is_no_line() -> None:
    svg = histogram("Dice", [0.2], [], marks=[], axis="Dice", description="d")
    assert "polyline" not in svg


def test_points_lie_within_the_panel_even_if_all_are_one() -> None:
    svg = scatter("t", [(1.0, 1.0)], [(1.0, 1.0)], limits=(1.0, 1.0, 1.0, 1.0), description="d")
    (circle,) = ET.fromstring(svg).iter("circle")
    assert float(circle.attrib["cx"]) == 10
