"""Stable Diffusion 1.5's architecture at full size with random weights: for speed and memory.

What a user trains on comes from `load_base`; this needs no download and gives the same shapes.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from siamese_diffusion.models.base import Base
from siamese_diffusion.models.scheduler import SD_SCHEDULE
from siamese_diffusion.models.tokenizer import byte_tokenizer

UNET_CONFIG: dict[str, object] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # diffusers' name for the number of heads
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}


def build_sd15(*, seed: int = 0, device: torch.device | str = "cpu") -> Base:
    """A base of full size, 1.07 billion random float32 parameters; not for pictures.

    Args:
        seed: Of the weights; each kind of device draws its own.
        device: Where they are drawn; on a GPU that is much faster than to bring them there.
    """
    where = torch.device(device)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        with where:
            base = _build()
    base.scheduler = DDIMScheduler(**SD_SCHEDULE)  # its numbers are read on the CPU
    return base


def meta_sd15() -> Base:
    """The same base without memory behind its weights, to count operations and bytes."""
    with torch.device("meta"):
        base = _build()
    base.scheduler = DDIMScheduler(**SD_SCHEDULE)  # its numbers are read
    return base


def _build() -> Base:
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
        scaling_factor=0.18215,
    )
    unet = UNet2DConditionModel(**UNET_CONFIG)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=512,
            eos_token_id=513,
            pad_token_id=513,
        )
    )
    for module in (vae, unet, text_encoder):
        module.requires_grad_(False).eval()
    return Base(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=byte_tokenizer(),
        scheduler=DDIMScheduler(**SD_SCHEDULE),
        reference="sd15-random",
        kind="fresh",
    )
