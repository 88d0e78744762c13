"""The moving average against a literal loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from siamese_diffusion.training.ema import MovingAverage


def test_the_average_is_that_of_a_literal_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    live = nn.Parameter(torch.randn(5, generator=generator))
    average = MovingAverage([("a", live)], decay=0.6)
    expected = live.detach().double()
    for step in range(1, 40):
        new = torch.randn(5, generator=generator)
        with torch.no_grad():
            live.copy_(new)
        average.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * new.double()
    torch.testing.assert_close(average.average["a"].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_decay_rises_from_two_elevenths() -> None:
    live = nn.Parameter(torch.zeros(1))
    average = MovingAverage([("a", live)], decay=0.999)
    with torch.no_grad():
        live.fill_(11.0)
    average.update(1)
    assert float(average.average["a"]) == pytest.approx(9.0)


def test_inside_the_block_the_network_has_the_averages_and_afterwards_its_own_bits() -> None:
    live = nn.Parameter(torch.randn(100))
    before = live.detach().clone()
    average = MovingAverage([("a", live)], decay=0.9)
    average.average["a"].fill_(2.0)
    seen = []

    def interrupted() -> None:
        with average.applied():
            seen.append(live.detach().clone())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(seen[0], torch.full((100,), 2.0))
    assert torch.equal(live.detach(), before)
    average.finish()
    assert torch.equal(live.detach(), torch.full((100,), 2.0))


def test_saved_averages_are_restored_by_name() -> None:
    parameters = [("a", nn.Parameter(torch.zeros(2))), ("b", nn.Parameter(torch.zeros(3)))]
    average = MovingAverage(parameters, decay=0.9)
    average.load({"b": torch.full((3,), 2.0), "a": torch.ones(2)})
    assert average.average["a"].tolist() == [1, 1] and average.average["b"].tolist() == [2, 2, 2]
