"""AdamW against its formula, and the learning rate by hand."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.training.optimizer import build_optimizer, learning_rate
from training.toy import settings_of


def test_the_rate_warms_up_linearly_and_then_stays() -> None:
    settings = settings_of(steps=100, learning_rate=0.4, warmup_steps=4)
    rates = [learning_rate(settings, k) for k in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert learning_rate(settings, 99) == 0.4


def test_without_a_warm_up_the_first_step_is_at_full_rate() -> None:
    assert learning_rate(settings_of(learning_rate=0.4), 0) == 0.4


def test_cosine_falls_from_the_end_of_the_warm_up_to_zero() -> None:
    settings = settings_of(steps=12, learning_rate=1.0, warmup_steps=4, decay="cosine")
    rates = [learning_rate(settings, k) for k in range(13)]
    root = math.sqrt(0.5)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == 1.0
    assert rates[6] == pytest.approx((1 + root) / 2)
    assert rates[8] == pytest.approx(0.5)
    assert rates[10] == pytest.approx((1 - root) / 2)
    assert rates[12] == pytest.approx(0.0, abs=1e-15)  # where step 13 would be


def test_a_warm_up_longer_than_the_training_never_reaches_the_rate() -> None:
    settings = settings_of(steps=3, learning_rate=1.0, warmup_steps=10, decay="cosine")
    assert [learning_rate(settings, k) for k in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_two_steps_of_adamw_are_those_of_the_paper() -> None:
    # Loshchilov and Hutter 2019, Algorithm 2, in float64 by hand
    settings = settings_of(learning_rate=0.1, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.3)
    parameter = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = build_optimizer(settings, [parameter])
    theta, m, v = [2.0, -1.0], [0.0, 0.0], [0.0, 0.0]
    for t, gradient in enumerate(([0.5, -2.0], [-1.0, 0.25]), start=1):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        for i, g in enumerate(gradient):
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.95 * v[i] + 0.05 * g * g
            m_hat, v_hat = m[i] / (1 - 0.8**t), v[i] / (1 - 0.95**t)
            theta[i] -= 0.1 * (m_hat / (math.sqrt(v_hat) + 1e-3) + 0.3 * theta[i])
    torch.testing.assert_close(parameter.detach(), torch.tensor(theta))


def test_eight_bit_adamw_without_bitsandbytes_is_refused_with_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=r"train\.optimizer=adamw8bit needs bitsandb") as caught:
        build_optimizer(settings_of(optimizer="adamw8bit"), [])
    assert "siamese-diffusion[8bit]" in str(caught.value.hint)
