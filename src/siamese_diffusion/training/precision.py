"""Which precision a device computes fast."""

from __future__ import annotations

import logging

import torch

from siamese_diffusion.training.processes import choose_device
from siamese_diffusion.training.settings import TrainSettings

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
logger = logging.getLogger(__name__)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16.

    A processor without them emulates it: a 3x3 convolution with its backward took 25 times as long
    as in fp32 on an AMD EPYC without AVX-512.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(supported and supported())


def chosen_precision(settings: TrainSettings, device: torch.device) -> str:
    """`train.precision`, with `auto` decided: fp32, bf16 or fp16."""
    if settings.precision == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return settings.precision


def autocast_dtype(
    settings: TrainSettings, device: torch.device | None = None
) -> torch.dtype | None:
    """What autocast computes in for `train.precision`; None is float32 throughout.

    Args:
        settings: Of the training.
        device: Decides what `auto` is; None is where a training runs by default.
    """
    return _AUTOCAST.get(chosen_precision(settings, device or choose_device(None)))


def warn_of_emulation(precision: str, device: torch.device) -> None:
    """Say it if bf16 was asked for where it is slow."""
    if precision == "bf16" and not multiplies_bf16(device):
        logger.warning(
            "this %s has no instructions for bf16 and emulates it, many times slower than fp32; "
            "use auto or fp32",
            "processor" if device.type == "cpu" else "GPU",
        )
