"""The parity tool against the release's numbers, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import torch

import parity_arsdm


def test_every_number_of_the_release_is_met(shared: Path) -> None:
    lines = list(parity_arsdm.check(shared / "parity" / "generators" / "arsdm"))
    assert {line.name for line in lines} >= {"prediction", "adaptive weights", "parameters"}
    for line in lines:
        assert line.error <= line.tolerance, line


def test_tensors_follow_from_their_names_alone() -> None:
    first, again = (parity_arsdm.tensor("time_embed.0.weight", (2, 3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, parity_arsdm.tensor("time_embed.2.weight", (2, 3)))
    assert abs(float(parity_arsdm.weight("a.weight", (1000,)).mean()) - 1) < 0.02
    assert abs(float(parity_arsdm.weight("a.bias", (1000,)).mean())) < 0.02
