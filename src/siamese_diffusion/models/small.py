"""A base of Stable Diffusion's classes at small width, with fresh weights."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from siamese_diffusion.models.base import LATENT_FACTOR, Base
from siamese_diffusion.models.scheduler import SD_SCHEDULE
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.tokenizer import PROMPT_LENGTH, byte_tokenizer

_GROUPS = 16


def build_small_base(settings: SmallBaseSettings, *, size: int, seed: int) -> Base:
    """Fresh small base for images of `size` pixels; weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Base(
            vae=build_autoencoder(settings, size=size),
            unet=build_unet(settings, size=size),
            text_encoder=_text_encoder(settings),
            tokenizer=byte_tokenizer(),
            scheduler=DDIMScheduler(**SD_SCHEDULE),
            reference="small",
            kind="fresh",
        )


def build_autoencoder(settings: SmallBaseSettings, *, size: int) -> AutoencoderKL:
    """KL autoencoder, factor 8; without attention, which a small one does not need."""
    levels = len(settings.autoencoder_widths)
    return AutoencoderKL(
        latent_channels=settings.latent_channels,
        block_out_channels=settings.autoencoder_widths,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=settings.autoencoder_layers,
        norm_num_groups=_GROUPS,
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,
    )


def build_unet(settings: SmallBaseSettings, *, size: int) -> UNet2DConditionModel:
    """U-Net with attention everywhere but at the first level, where it costs most."""
    levels = len(settings.unet_widths)
    attended = levels - 1
    return UNet2DConditionModel(
        sample_size=size // LATENT_FACTOR,
        in_channels=settings.latent_channels,
        out_channels=settings.latent_channels,
        block_out_channels=settings.unet_widths,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attended,
        up_block_types=("CrossAttnUpBlock2D",) * attended + ("UpBlock2D",),
        layers_per_block=settings.unet_layers,
        attention_head_dim=settings.attention_heads,  # diffusers' name for the number of heads
        cross_attention_dim=settings.text_width,
        norm_num_groups=_GROUPS,
    )


def _text_encoder(settings: SmallBaseSettings) -> CLIPTextModel:
    tokenizer = byte_tokenizer()
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=max(1, settings.text_width // 32),
            max_position_embeddings=PROMPT_LENGTH,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
