"""Area weights by hand: values, mass, edges, gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from siamese_diffusion.objectives.adaptive import area_weights, weighted_l1, weighted_mse


def quarter() -> torch.Tensor:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :2] = 1
    return mask


def test_a_lesion_of_a_quarter_weighs_three_quarters_and_its_background_one() -> None:
    weights = area_weights(quarter())
    assert set(weights[quarter() > 0].tolist()) == {0.75}
    assert set(weights[quarter() == 0].tolist()) == {0.25}


def test_lesion_and_background_weigh_the_same_in_the_mean() -> None:
    mask = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    weights = area_weights(mask)
    r = mask.mean((1, 2, 3))
    torch.testing.assert_close((weights * mask).mean((1, 2, 3)), r * (1 - r))
    torch.testing.assert_close((weights * (1 - mask)).mean((1, 2, 3)), r * (1 - r))


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["no_lesion", "full"])
def test_pictures_without_lesion_or_background_weigh_nothing(value: float) -> None:
    assert not area_weights(torch.full((2, 1, 4, 4), value)).any()


def test_each_picture_has_its_own_ratio() -> None:
    both = torch.cat([quarter(), torch.ones(1, 1, 4, 4)])
    weights = area_weights(both)
    assert torch.equal(weights[:1], area_weights(quarter())) and not weights[1].any()


def test_the_weighted_losses_by_hand() -> None:
    prediction, eps = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[0.0, 4.0]]]])
    weights = torch.tensor([[[[0.75, 0.25]]]])
    assert float(weighted_l1(prediction, eps, weights)) == (0.75 * 2 + 0.25 * 3) / 2
    assert float(weighted_mse(prediction, eps, weights)) == (0.75 * 4 + 0.25 * 9) / 2


def test_with_weights_of_one_they_are_torchs_losses() -> None:
    draws = torch.Generator().manual_seed(1)
    a, b = (torch.randn(2, 3, 4, 4, generator=draws) for _ in range(2))
    ones = torch.ones(2, 1, 4, 4)
    torch.testing.assert_close(weighted_l1(a, b, ones), F.l1_loss(a, b))
    torch.testing.assert_close(weighted_mse(a, b, ones), F.mse_loss(a, b))


def test_gradient_of_the_absolute_error_is_the_weight() -> None:
    prediction = torch.tensor([[[[2.0, 1.0]]]], requires_grad=True)
    loss = weighted_l1(prediction, torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.75, 0.25]]]]))
    torch.autograd.backward(loss)
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [0.375, 0.125]
