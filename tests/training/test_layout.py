"""Weights change their strides and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from siamese_diffusion.training.layout import follow_layout, lay_out


def test_convolution_weights_change_their_layout_and_keep_their_values() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    weight = network.get_parameter("0.weight")
    before = weight.detach().clone()
    lay_out(network)
    assert weight.stride() == (27, 1, 9, 3)
    assert torch.equal(weight, before)
    lay_out(network, torch.contiguous_format)
    assert weight.stride() == before.stride() == (27, 9, 3, 1)


def test_moments_follow_the_layout_of_their_weights() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 6, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(2, 4, 8, 8)).sum().backward()
    optimizer.step()
    before = optimizer.state[layer.weight]["exp_avg"].clone()
    lay_out(layer)
    follow_layout(optimizer)
    moment = optimizer.state[layer.weight]["exp_avg"]
    assert moment.stride() == layer.weight.stride() != before.stride()
    assert torch.equal(moment, before)
    assert optimizer.state[layer.weight]["step"].shape == ()
