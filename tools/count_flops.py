"""Count what one training step of Stable Diffusion 1.5 costs at 384 x 384, on the meta device.

    python tools/count_flops.py [--checkpointing] [--sampling]

Prints GFLOP per sample, forward and backward, multiply-add counted as 2, of the project's step and
of a literal transcription of the authors' release, before and after K_tau with w_a = 1 for one
sample in five. Exits with 1 if the project's step costs more than its limits. No weights are read
and nothing is computed: PyTorch's counter adds up the shapes. Half a minute, 0.5 GB.

With --sampling also what an image costs (50 steps, guidance 9) by the project's sampler, by a
release-style loop and by diffusers' pipeline (`sampling_flops.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import sampling_flops

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.literal import literal_terms
from siamese_diffusion.models.sd15 import meta_sd15
from siamese_diffusion.models.settings import ModelSettings
from siamese_diffusion.models.siamese import Controls, Encoded, SiameseNetwork
from siamese_diffusion.objectives.settings import SiameseSettings
from siamese_diffusion.objectives.siamese import Siamese, siamese_terms

SIZE = 384  # pixels
BATCH, GATED = 5, 1  # 20 % of the samples with w_a = 1, close to T_tau / T
N_ITER = 3000
BEFORE, AFTER = 500, 2000  # iterations before and after K_tau = N_ITER / 3
LIMITS = {BEFORE: 2700.0, AFTER: 3000.0}  # GFLOP per sample


class Part(NamedTuple):
    """Forward cost of one part, GFLOP per sample, and what the method's reference says of it."""

    name: str
    counted: float
    expected: float


class _OnMeta:
    """The network on the meta device under timesteps that hold values.

    The gate of Eq. (13) has to be evaluated, so `t` stays on the CPU; the network takes only its
    shape.
    """

    def __init__(self, network: SiameseNetwork) -> None:
        self._network = network

    def hint(self, picture: Tensor) -> Tensor:
        return self._network.hint(picture)

    def encode(self, zt: Tensor, t: Tensor, c_text: Tensor) -> Encoded:
        return self._network.encode(zt, t.to(zt.device), c_text)

    def controls(self, zt: Tensor, t: Tensor, c_text: Tensor, hint: Tensor) -> Controls:
        return self._network.controls(zt, t.to(zt.device), c_text, hint)

    def predict(
        self, encoded: Encoded, c_text: Tensor, controls: Controls, *, frozen: bool = False
    ) -> Tensor:
        return self._network.predict(encoded, c_text, controls, frozen=frozen)


def stable_diffusion_unet() -> UNet2DConditionModel:
    """The U-Net of Stable Diffusion 1.5 without memory for its weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            layers_per_block=2,
            attention_head_dim=8,
            cross_attention_dim=768,
        )


def meta_network(unet: UNet2DConditionModel) -> SiameseNetwork:
    """The siamese network over `unet`, on its device."""
    with torch.device("meta"):
        return SiameseNetwork(unet, ModelSettings())


def meta_batch(*, gated: int = GATED) -> dict[str, Tensor]:
    """Shapes of a batch; only the timesteps hold values, `gated` of them below T_tau."""
    shapes = {
        "z0": (4, SIZE // 8, SIZE // 8),
        "eps": (4, SIZE // 8, SIZE // 8),
        "alpha_bar_t": (),
        "c_text": (77, 768),
        "mask": (3, SIZE, SIZE),
        "image": (3, SIZE, SIZE),
    }
    batch = {name: torch.empty(BATCH, *shape, device="meta") for name, shape in shapes.items()}
    batch["t"] = torch.tensor([100] * gated + [600] * (BATCH - gated))
    return batch


def gflop_per_sample(work: Callable[[], object]) -> float:
    """Floating-point operations of `work` on a batch, in 10^9 per sample."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / BATCH / 1e9


def step_cost(network: SiameseNetwork, batch: Mapping[str, Tensor], *, k: int) -> float:
    """Forward and backward of the project's step."""
    on_meta: Siamese = _OnMeta(network)

    def step() -> None:
        settings = SiameseSettings()
        terms = siamese_terms(on_meta, batch, k=k, n_iter=N_ITER, settings=settings)
        _backward(terms)

    return gflop_per_sample(step)


def literal_cost(
    unet: UNet2DConditionModel, network: SiameseNetwork, batch: Mapping[str, Tensor], *, k: int
) -> float:
    """Forward and backward of the release's step, on the same weights."""

    def step() -> None:
        _backward(literal_terms(unet, network.control, batch, k=k, n_iter=N_ITER))

    return gflop_per_sample(step)


def part_costs(network: SiameseNetwork, batch: Mapping[str, Tensor]) -> list[Part]:
    """Forward cost of each part beside the numbers of the method's reference."""
    net = _OnMeta(network)
    zt, t, c_text, mask = batch["z0"], batch["t"], batch["c_text"], batch["mask"]
    dense = network.control.controlnet_cond_embedding
    encoded, hint = net.encode(zt, t, c_text), net.hint(mask)
    controls = net.controls(zt, t, c_text, hint)
    features = gflop_per_sample(lambda: dense.features(mask))
    return [
        Part(
            "U-Net encoder, middle block", gflop_per_sample(lambda: net.encode(zt, t, c_text)), 136
        ),
        Part(
            "U-Net decoder", gflop_per_sample(lambda: net.predict(encoded, c_text, controls)), 287
        ),
        Part(
            "control branch without hint",
            gflop_per_sample(lambda: net.controls(zt, t, c_text, hint)),
            140,
        ),
        Part("dense hint, before its zero convolution", features, 34.6),
    ]


def _backward(terms: Mapping[str, Tensor]) -> None:
    losses = [value.to("meta") for name, value in terms.items() if name.startswith("loss/")]
    torch.autograd.backward(torch.stack(losses).sum())


def _print_sampling() -> None:
    base = meta_sd15()
    title = f"one image, {sampling_flops.STEPS} steps, guidance {sampling_flops.GUIDANCE_SCALE:g}"
    print(f"\n{title:<40}{'GFLOP':>10}{'hints':>11}")
    for cost in sampling_flops.sampler_costs(base, size=SIZE):
        print(f"{cost.name:<40}{cost.gflop:>10.0f}{cost.hints:>11}")
    for cost in sampling_flops.option_costs(base, size=SIZE):
        print(f"{cost.name:<40}{cost.gflop:>10.0f}{cost.hints:>11}")
    decoder = sampling_flops.decoder_gflop(base.vae, size=SIZE)
    print(f"{'decoding it, the same for all':<40}{decoder:>10.0f}")


def _print_row(name: str, before: float, after: float) -> None:
    print(f"{name:<40}{before:>10.0f}{after:>11.0f}")


def main() -> int:
    """Print both tables; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description="GFLOP per sample of one training step")
    parser.add_argument(
        "--checkpointing", action="store_true", help="also count with gradient checkpointing"
    )
    parser.add_argument(
        "--sampling", action="store_true", help="also count the samplers, per image"
    )
    asked = parser.parse_args()
    checkpointing = asked.checkpointing
    unet = stable_diffusion_unet()
    network, batch = meta_network(unet), meta_batch()

    print(f"Stable Diffusion 1.5 at {SIZE} x {SIZE}, GFLOP per sample, multiply-add = 2\n")
    print(f"{'forward':<40}{'counted':>10}{'reference':>11}")
    for part in part_costs(network, batch):
        print(f"{part.name:<40}{part.counted:>10.1f}{part.expected:>11g}")

    title = f"one step, w_a = 1 for {GATED} of {BATCH} samples"
    print(f"\n{title:<40}{'to K_tau':>10}{'after it':>11}")
    ours = {k: step_cost(network, batch, k=k) for k in LIMITS}
    _print_row("this project", ours[BEFORE], ours[AFTER])
    _print_row("  at most", LIMITS[BEFORE], LIMITS[AFTER])
    _print_row(
        "literal transcription of the release",
        *(literal_cost(unet, network, batch, k=k) for k in LIMITS),
    )
    if checkpointing:
        print("with gradient checkpointing")
        network.gradient_checkpointing = True
        _print_row("  this project", *(step_cost(network, batch, k=k) for k in LIMITS))
        unet.enable_gradient_checkpointing()
        network.control.enable_gradient_checkpointing()
        _print_row(
            "  literal transcription", *(literal_cost(unet, network, batch, k=k) for k in LIMITS)
        )

    if asked.sampling:
        _print_sampling()

    over = [k for k in LIMITS if ours[k] > LIMITS[k]]
    for k in over:
        print(f"over the limit at k = {k}: {ours[k]:.0f} > {LIMITS[k]:.0f}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
