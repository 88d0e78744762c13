"""Weights change their strides and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from siamese_diffusion.training.layout import lay_out


def test_convolution_weights_change_their_layout_and_keep_their_values() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    weight = network.get_parameter("0.weight")
    before = weight.detach().clone()
    lay_out(network)
    assert weight.stride() == (27, 1, 9, 3)
    assert torch.equal(weight, before)
    lay_out(network, torch.contiguous_format)
    assert weight.stride() == before.stride() == (27, 9, 3, 1)
