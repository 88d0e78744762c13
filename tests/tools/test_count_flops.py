"""The operation counter and the limits it guards."""

from __future__ import annotations

import sys

import pytest

import count_flops


def test_the_parts_cost_what_the_reference_says() -> None:
    network = count_flops.meta_network(count_flops.stable_diffusion_unet())
    for part in count_flops.part_costs(network, count_flops.meta_batch()):
        assert part.counted == pytest.approx(part.expected, abs=0.5), part.name


def test_nothing_is_allocated_for_the_weights() -> None:
    network = count_flops.meta_network(count_flops.stable_diffusion_unet())
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.slow
def test_the_step_stays_within_its_limits_and_the_release_costs_what_the_reference_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["count_flops.py"])
    assert count_flops.main() == 0
    lines = capsys.readouterr().out.splitlines()
    release = next(line for line in lines if line.startswith("literal transcription"))
    assert [int(number) for number in release.split()[-2:]] == [3232, 4760]


@pytest.mark.slow
def test_a_step_over_its_limit_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["count_flops.py"])
    monkeypatch.setattr(count_flops, "step_cost", lambda *_, k: 2800.0)
    monkeypatch.setattr(count_flops, "literal_cost", lambda *_, k: 0.0)
    assert count_flops.main() == 1
    captured = capsys.readouterr()
    assert "over the limit at k = 500: 2800 > 2700" in captured.err
    assert "2000" not in captured.err
