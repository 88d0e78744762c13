"""The denoising loss, Eq. (4)."""

from __future__ import annotations

import pytest
import torch

from siamese_diffusion.objectives.denoising import denoising_loss


def test_it_is_the_mean_square_over_batch_and_elements() -> None:
    prediction = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    eps = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).view(2, 1, 1, 2)
    assert float(denoising_loss(prediction, eps)) == pytest.approx((0 + 4 + 9 + 0) / 4)


def test_a_perfect_prediction_costs_nothing() -> None:
    eps = torch.randn(2, 4, 2, 2)
    assert float(denoising_loss(eps, eps)) == 0.0


def test_its_gradient_is_twice_the_error_over_the_number_of_elements() -> None:
    prediction = torch.tensor([3.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2).requires_grad_()
    torch.autograd.backward(denoising_loss(prediction, torch.zeros(1, 1, 2, 2)))
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [1.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_averaged_in_float32(dtype: torch.dtype) -> None:
    prediction = torch.full((1, 1, 64, 64), 300.0, dtype=dtype)  # its square overflows float16
    loss = denoising_loss(prediction, torch.zeros_like(prediction))
    assert loss.dtype == torch.float32
    assert float(loss) == 90_000.0
