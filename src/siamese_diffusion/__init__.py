"""Siamese-Diffusion: realistic synthetic image-mask pairs for medical segmentation.

The public names are resolved on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from siamese_diffusion.generators.fitting import fit
    from siamese_diffusion.sampling.bulk import sample
    from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

__all__ = ["SiameseDiffusionPipeline", "__version__", "fit", "sample"]

_PUBLIC = {
    "fit": "siamese_diffusion.generators.fitting",
    "sample": "siamese_diffusion.sampling.bulk",
    "SiameseDiffusionPipeline": "siamese_diffusion.sampling.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'siamese_diffusion' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
