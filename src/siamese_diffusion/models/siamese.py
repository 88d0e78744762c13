"""The siamese network: one control branch and one U-Net for both controls, paper Sec. 3.2.

Built from diffusers' `UNet2DConditionModel` and `ControlNetModel`, taken apart so that the frozen
encoder runs once for several predictions, a control is computed once, hint features enter once
per mask instead of once per step, and the second weight set theta' is the same weights with their
gradients cut (no copy). It knows nothing of losses, data or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from siamese_diffusion.models.hints import build_hint
from siamese_diffusion.models.settings import ModelSettings

Controls = tuple[Tensor, ...]  # one per skip connection, the middle block's last


class Encoded(NamedTuple):
    """What the U-Net encoder hands to the decoder.

    Attributes:
        skips: Skip features, from full to low resolution.
        middle: Output of the middle block.
        embedding: Time embedding, (B, 4 * first width).
    """

    skips: tuple[Tensor, ...]
    middle: Tensor
    embedding: Tensor


class SiameseNetwork(nn.Module):
    """Frozen U-Net encoder, U-Net decoder and control branch; the modules of `unet` are shared.

    Args:
        unet: The base's U-Net; its decoder is trained in place.
        settings: Hint input, widths, and whether the decoder trains.
        control: A control branch to use instead of a fresh copy of the encoder.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        settings: ModelSettings,
        *,
        control: ControlNetModel | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.gradient_checkpointing = False
        self._upsample_factor = 2 ** (len(unet.config["block_out_channels"]) - 1)
        self.encoder = _Encoder(unet)
        self.decoder = _Decoder(unet)
        self.control = control if control is not None else fresh_control(unet, settings)
        self.encoder.requires_grad_(False)
        self.decoder.requires_grad_(settings.train_decoder)
        self.control.requires_grad_(True)

    def hint(self, picture: Tensor) -> Tensor:
        """Encode a mask or image, (B, 3, H, W) in [0, 1], to the control branch's first width."""
        features = self.control.controlnet_cond_embedding(picture)
        assert isinstance(features, Tensor)
        return features

    def encode(self, zt: Tensor, t: Tensor, c_text: Tensor) -> Encoded:
        """Run the frozen encoder once; no gradient is kept.

        Args:
            zt: Noisy latent, (B, C, h, w).
            t: Timesteps, (B,), 0..999.
            c_text: Prompt embedding, (B, L, D).
        """
        with torch.no_grad():
            return self._down(self.encoder, zt, t, c_text, None)

    def controls(self, zt: Tensor, t: Tensor, c_text: Tensor, hint: Tensor) -> Controls:
        """Control features of a hint (output of `hint`), 13 tensors for SD 1.5; gradient flows."""
        branch = self.control
        encoded = self._down(branch, zt, t, c_text, hint)
        zeros = branch.controlnet_down_blocks
        downs = [zero(skip) for zero, skip in zip(zeros, encoded.skips, strict=True)]
        return (*downs, branch.controlnet_mid_block(encoded.middle))

    def predict(
        self, encoded: Encoded, c_text: Tensor, controls: Controls, *, frozen: bool = False
    ) -> Tensor:
        """Noise prediction of the decoder under a control, (B, C, h, w).

        Args:
            encoded: From `encode` at the same latent and timestep.
            c_text: Prompt embedding, (B, L, D).
            controls: Added to the skips and the middle output, all with weight 1.
            frozen: theta': same weights, gradient reaches the controls but not the decoder.
        """
        net = self.decoder
        *downs, middle = controls
        sample = encoded.middle + middle
        skips = [skip + down for skip, down in zip(encoded.skips, downs, strict=True)]
        run = partial(self._run, frozen=frozen)
        size = encoded.skips[0].shape[-2:]
        odd = any(side % self._upsample_factor for side in size)
        sample = run_up_blocks(
            net.up_blocks, sample, skips, encoded.embedding, c_text, odd=odd, run=run
        )
        prediction: Tensor = run(net.head, {"x": sample})
        return prediction

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that training updates, in a fixed order."""
        return ((n, p) for n, p in self.named_parameters() if p.requires_grad)

    def _down(
        self,
        net: _Encoder | ControlNetModel,
        zt: Tensor,
        t: Tensor,
        c_text: Tensor,
        hint: Tensor | None,
    ) -> Encoded:
        embedding = net.time_embedding(net.time_proj(t.to(zt.device)).to(zt.dtype))
        sample = net.conv_in(zt)
        if hint is not None:
            sample = sample + hint
        skips: tuple[Tensor, ...] = (sample,)
        for block in net.down_blocks:
            arguments: dict[str, object] = {"hidden_states": sample, "temb": embedding}
            if getattr(block, "has_cross_attention", False):
                arguments["encoder_hidden_states"] = c_text
            sample, new = self._run(block, arguments)
            skips += tuple(new)
        arguments = {"hidden_states": sample, "temb": embedding}
        if getattr(net.mid_block, "has_cross_attention", False):
            arguments["encoder_hidden_states"] = c_text
        return Encoded(skips, self._run(net.mid_block, arguments), embedding)

    def _run(
        self, block: nn.Module, arguments: Mapping[str, object], *, frozen: bool = False
    ) -> Any:
        """Call a block, with its weights' gradients cut, or re-computed in backward, as asked.

        The cut is made inside the checkpointed function: outside, the recomputation would see
        the live weights.
        """

        def call() -> Any:
            if frozen:
                detached = {name: p.detach() for name, p in block.named_parameters()}
                return functional_call(block, detached, kwargs=dict(arguments))
            return block(**arguments)

        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(call, use_reentrant=False)
        return call()


def run_up_blocks(
    blocks: Iterable[Any],
    sample: Tensor,
    skips: Sequence[Tensor],
    embedding: Tensor,
    c_text: Tensor,
    *,
    odd: bool,
    run: Callable[[nn.Module, Mapping[str, object]], Any],
) -> Tensor:
    """The decoder's blocks on a middle output and the skips, full resolution first.

    Args:
        blocks: `up_blocks` of a U-Net.
        odd: Sides do not halve evenly on every level, so that sizes are handed on.
        run: Calls a block with its arguments.
    """
    left = list(skips)
    for block in blocks:
        n = len(block.resnets)
        taken, left = tuple(left[-n:]), left[:-n]
        arguments: dict[str, object] = {
            "hidden_states": sample,
            "temb": embedding,
            "res_hidden_states_tuple": taken,
            "upsample_size": tuple(left[-1].shape[-2:]) if odd and left else None,
        }
        if getattr(block, "has_cross_attention", False):
            arguments["encoder_hidden_states"] = c_text
        sample = run(block, arguments)
    return sample


class _Encoder(nn.Module):
    """The parts of a U-Net before its decoder."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.conv_in = unet.conv_in
        self.down_blocks = unet.down_blocks
        self.mid_block = unet.mid_block


class _Head(nn.Module):
    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.conv_norm_out = unet.conv_norm_out
        self.conv_act = unet.conv_act
        self.conv_out = unet.conv_out

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        assert isinstance(out, Tensor)
        return out


class _Decoder(nn.Module):
    """The decoder of a U-Net and its output head."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.up_blocks = unet.up_blocks
        self.head = _Head(unet)


def fresh_control(
    unet: UNet2DConditionModel, settings: ModelSettings, *, channels: int = 3
) -> ControlNetModel:
    """A control branch copied from the U-Net's encoder, with fresh hint and zero convolutions."""
    first_width = int(unet.config["block_out_channels"][0])
    control = ControlNetModel.from_unet(unet, load_weights_from_unet=True)
    control.controlnet_cond_embedding = build_hint(settings, first_width, channels=channels)
    return control
