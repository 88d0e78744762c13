"""Settings of `siamdiff score`; free of torch. Everything here is part of a value's passport."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from siamese_diffusion.core.config import Settings

DEFAULT_METRICS: Final = ("fid", "kid", "clip-i", "lpips", "cmmd", "prdc")
Protocol = Literal["all", "paper"]
Variant = Literal["clean", "torch", "tf1", "torch_aa"]


class ScoreSettings(Settings):
    """How a synthetic set is compared with a real one."""

    protocol: Protocol = "all"
    """`all`: every image given; `paper`: training images against one synthetic image per mask."""
    size: int = Field(default=384, ge=32, le=4096)
    """Side in pixels that all images are brought to first, by the filter of training (paper, Sec.
    4.2: 384)."""
    resize: Variant = "clean"
    """How Inception's 299 pixels are reached from there."""
    fidelity: Literal["inception", "clip", "vision", "random"] = "inception"
    """Extractor of fid, kid, prdc and mixing."""
    similarity: Literal["clip", "vision", "random"] = "clip"
    """Extractor of clip-i and cmmd; another than CLIP gives values of another name."""
    perceptual: Literal["lpips-alex", "lpips-squeeze", "lpips-vgg"] = "lpips-alex"
    """Trunk of the LPIPS metrics."""
    inception_features: Literal[64, 192, 768, 2048] | None = None
    """Width of Inception's features; None takes the widest that the file has layers for."""
    kid_blocks: int = Field(default=100, ge=1, le=10_000)
    """Blocks of the block estimate of KID."""
    kid_block_size: int = Field(default=1000, ge=2)
    """Images of each set in a block; smaller sets take what they have."""
    neighbours: int = Field(default=5, ge=1, le=100)
    """k of precision, recall, density and coverage."""
    lpips_pairs: int = Field(default=2000, ge=1)
    """Random pairs of lpips-cross."""
    lpips_floor_pairs: int = Field(default=100, ge=1)
    """Random pairs of real images beside every LPIPS value."""
    bootstrap: int = Field(default=100, ge=0, le=10_000)
    """Bootstrap draws of the 95 % intervals; 0 leaves them out."""
    floor_splits: int = Field(default=3, ge=0, le=100)
    """Random splits of the real set into halves for the floor; 0 leaves it out."""
    seed: int = Field(default=0, ge=0)
    """Of blocks, splits, pairs and bootstrap."""
    batch_size: int = Field(default=16, ge=1, le=1024)
    """Images in the network at once; features may differ in the last digits between sizes."""
