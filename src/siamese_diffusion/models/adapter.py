"""T2I-Adapter on a frozen U-Net: features of the mask are added inside the encoder.

The adapter is diffusers' own. The U-Net's forward is written out here because diffusers' hook
(`down_intrablock_additional_residuals`) pops from the list it is given, adds in place, and on a
level without attention adds after the downsampling, where a small base's shapes differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from siamese_diffusion.models.base import LATENT_FACTOR
from siamese_diffusion.models.siamese import run_up_blocks

_BLOCKS = 2  # residual blocks a level, as trained by the authors (not the class default there)


class AdapterNetwork(nn.Module):
    """Frozen U-Net and trained adapter.

    Args:
        unet: The base's U-Net; nothing of it is trained, gradient flows through it.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.unet = unet.requires_grad_(False)
        widths = [int(width) for width in unet.config["block_out_channels"]]
        self.adapter = T2IAdapter(
            in_channels=3,
            channels=widths,
            num_res_blocks=_BLOCKS,
            downscale_factor=LATENT_FACTOR,
            adapter_type="full_adapter",
        )
        self._halvings = 2 ** (len(widths) - 1)

    def features(self, mask: Tensor) -> tuple[Tensor, ...]:
        """One feature map a level for masks (B, 3, H, W) in {0, 1}; at 384 px and SD 1.5's widths
        (320, 48, 48), (640, 24, 24), (1280, 12, 12), (1280, 6, 6).
        """  # noqa: D205
        return tuple(self.adapter(mask))

    def forward(
        self, zt: Tensor, t: Tensor, c_text: Tensor, features: tuple[Tensor, ...]
    ) -> Tensor:
        """Noise prediction, (B, C, h, w).

        Args:
            zt: Noisy latent, (B, C, h, w).
            t: Timesteps, (B,).
            c_text: Prompt embedding, (B, L, D).
            features: From `features`; they are not changed.
        """
        net = self.unet
        embedding = net.time_embedding(net.time_proj(t.to(zt.device)).to(zt.dtype))
        sample = net.conv_in(zt)
        skips: tuple[Tensor, ...] = (sample,)
        for block, feature in zip(net.down_blocks, features, strict=True):
            sample, new = self._level(block, sample, embedding, c_text, feature)
            skips += tuple(new)
        arguments: dict[str, object] = {"hidden_states": sample, "temb": embedding}
        if getattr(net.mid_block, "has_cross_attention", False):
            arguments["encoder_hidden_states"] = c_text
        sample = self._run(net.mid_block, arguments)
        odd = any(side % self._halvings for side in zt.shape[-2:])
        sample = run_up_blocks(
            net.up_blocks, sample, skips, embedding, c_text, odd=odd, run=self._run
        )
        prediction: Tensor = net.conv_out(net.conv_act(net.conv_norm_out(sample)))
        return prediction

    def _level(
        self, block: nn.Module, sample: Tensor, embedding: Tensor, c_text: Tensor, feature: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One encoder level; the feature joins its last map, before the downsampling."""
        if getattr(block, "has_cross_attention", False):
            arguments: dict[str, object] = {
                "hidden_states": sample,
                "temb": embedding,
                "encoder_hidden_states": c_text,
                "additional_residuals": feature,
            }
            out: tuple[Tensor, tuple[Tensor, ...]] = self._run(block, arguments)
            return out
        skips: tuple[Tensor, ...] = ()
        last = len(block.resnets) - 1  # type: ignore[arg-type]
        for i, resnet in enumerate(block.resnets):  # type: ignore[arg-type]
            sample = self._run(resnet, {"input_tensor": sample, "temb": embedding})
            sample = sample + feature if i == last else sample
            skips += (sample,)
        for down in block.downsamplers or ():  # type: ignore[union-attr]
            sample = down(sample)
            skips += (sample,)
        return sample, skips

    def _run(self, block: nn.Module, arguments: Mapping[str, object]) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(lambda: block(**arguments), use_reentrant=False)
        return block(**arguments)
