"""Classifier-free guidance (Ho and Salimans, 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from siamese_diffusion.diffusion.sampler import PAPER, Sampler

Predict: TypeAlias = Callable[[Tensor, Tensor, Tensor, tuple[Tensor, ...]], Tensor]


def guide(eps_empty: Tensor, eps_text: Tensor, scale: float) -> Tensor:
    """eps_empty + scale (eps_text - eps_empty); scale 1 is the plain conditional prediction.

    Both predictions stand under the same mask control; only the text differs (reference, Sec. 3).
    """
    return eps_empty + scale * (eps_text - eps_empty)


def guided_predictor(
    predict: Predict,
    condition: tuple[Tensor, ...],
    *,
    c_text: Tensor,
    c_empty: Tensor,
    scale: float,
    sampler: Sampler = PAPER,
) -> Callable[[Tensor, int], Tensor]:
    """A noise predictor for solvers; both prompts share a batch and the same condition.

    Args:
        predict: `predict(zt, t, context, condition)` gives the noise prediction, (B, C, h, w), for
            timesteps (B,).
        condition: Tensors of the B images, batch first; the same for all timesteps.
        c_text, c_empty: Embeddings of prompt and empty prompt, (B, L, D).
        scale: Of guidance; 1 runs the prompt's branch alone and never looks at the empty prompt.
        sampler: Says at which timesteps guidance acts; elsewhere it is as with scale 1.
    """

    def plain(zt: Tensor, t: int) -> Tensor:
        return predict(zt, torch.full((len(zt),), t, device=zt.device), c_text, condition)

    if scale == 1:
        return plain
    both = torch.cat([c_empty, c_text])
    doubled = tuple(torch.cat([part] * 2) for part in condition)

    def guided(zt: Tensor, t: int) -> Tensor:
        if not sampler.guides(t):
            return plain(zt, t)
        times = torch.full((2 * len(zt),), t, device=zt.device)
        eps_empty, eps_text = predict(torch.cat([zt] * 2), times, both, doubled).chunk(2)
        return guide(eps_empty, eps_text, scale)

    return guided
