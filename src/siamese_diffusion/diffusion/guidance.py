"""Classifier-free guidance (Ho and Salimans, 2022)."""

from __future__ import annotations

from torch import Tensor


def guide(eps_empty: Tensor, eps_text: Tensor, scale: float) -> Tensor:
    """eps_empty + scale (eps_text - eps_empty); scale 1 is the plain conditional prediction.

    Both predictions stand under the same mask control; only the text differs (reference, Sec. 3).
    """
    return eps_empty + scale * (eps_text - eps_empty)
