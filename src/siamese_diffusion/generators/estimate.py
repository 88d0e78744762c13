"""What a fit would do and need, before anything expensive: `siamdiff fit --dry-run`."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from siamese_diffusion.core.config import to_yaml
from siamese_diffusion.generators.base import Generator
from siamese_diffusion.generators.fitting import FitPlan
from siamese_diffusion.generators.run_folder import generator_class
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.pixels import PixelSpace, Space, sample_shape
from siamese_diffusion.training.settings import TrainSettings

# Bytes a trained parameter needs: weight and gradient in float32, two moments.
_BYTES = {"adamw": 16, "adamw8bit": 10}


def describe(plan: FitPlan) -> str:
    """The resolved settings and the size of the job, as text."""
    settings = plan.settings
    train = settings.train
    generator, base = _on_meta(plan)
    parts = []
    for name, module in generator.modules.items():
        total = sum(p.numel() for p in module.parameters())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        parts.append(f"  {name}: {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained")
    n = len(plan.folder)
    per_epoch = n // train.batch_size
    epochs = train.steps / per_epoch if per_epoch else train.steps * train.batch_size / n
    micro = train.micro_batch_size or train.batch_size
    if any(True for _ in generator.trained_parameters()):
        fixed, per_sample = memory_mb(generator, base, size=settings.data.size, train=train)
        job = [
            f"steps: {train.steps} of {train.batch_size} (effective batch; micro-batch {micro}, "
            f"accumulation {train.batch_size // micro} on one process), "
            f"{per_epoch or 'less than 1'} steps per epoch, {epochs:.1f} epochs",
            f"memory: about {fixed + micro * per_sample:,.0f} MB on the device ({fixed:,.0f} MB "
            f"for weights, gradients and optimizer, {per_sample:,.0f} MB per sample of the "
            "micro-batch; counted in fp32 whatever the precision, from saved tensors, without "
            "temporaries of single operations)",
        ]
    else:
        job = ["steps: none, there is nothing to train"]
    return "\n".join(
        [
            to_yaml(settings).rstrip(),
            "---",
            f"data: {n} pairs in '{plan.folder.root}'"
            + (f", split '{plan.folder.split}'" if plan.folder.split else "")
            + f"; {plan.folder.mask_rule.statement}",
            f"prompt: {plan.folder.pairs[0].prompt}",
            _told(plan.base),
            *parts,
            *job,
        ]
    )


def _told(base: Space) -> str:
    if isinstance(base, PixelSpace):
        return "base: none, trained from scratch on pixels"
    return f"base: {base.reference} ({base.kind}), first width {base.first_width}"


def _on_meta(plan: FitPlan) -> tuple[Generator, Space]:
    """The same generator without memory behind it."""
    if isinstance(plan.base, PixelSpace):
        with torch.device("meta"):
            return generator_class(plan.settings.generator).build(
                plan.settings, plan.base
            ), plan.base
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(plan.base.unet.config)
    base = Base(
        plan.base.vae,
        unet,
        plan.base.text_encoder,
        plan.base.tokenizer,
        plan.base.scheduler,
        plan.base.reference,
        plan.base.kind,
    )
    unet.requires_grad_(False).eval()
    with torch.device("meta"):
        return generator_class(plan.settings.generator).build(plan.settings, base), base


def _text_shape(base: Space) -> tuple[int, int]:
    if isinstance(base, PixelSpace):
        return 1, 1
    return int(base.tokenizer.model_max_length), int(base.unet.config["cross_attention_dim"])


def memory_mb(
    generator: Generator, base: Space, *, size: int, train: TrainSettings
) -> tuple[float, float]:
    """Fixed memory and memory per sample of a training step in MB.

    The first is exact; the second adds up what autograd keeps for backward in one step on the
    meta device (before K_tau; the few samples of Eq. 12 come on top). It is that of fp32: autocast
    does not reach the meta device; `peak_memory` counts the other precisions too.
    """
    trained = sum(p.numel() for _, p in generator.trained_parameters())
    everything = sum(p.numel() for p in generator.objective.parameters())
    fixed = trained * _BYTES[train.optimizer] + (everything - trained) * 4
    fixed += trained * 4 if train.ema_decay is not None else 0
    z = torch.empty(1, *sample_shape(base, size), device="meta")
    batch = {
        "z0": z,
        "eps": z,
        "mask": torch.empty(1, 3, size, size, device="meta"),
        "image": torch.empty(1, 3, size, size, device="meta"),
        # on the CPU: whether a sample counts in Eq. 12 is decided from its value
        "t": torch.full((1,), 999),
        "alpha_bar_t": torch.empty(1, device="meta"),
        "c_text": torch.empty(1, *_text_shape(base), device="meta"),
    }
    own = {id(p) for p in generator.objective.parameters()}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []  # identities stay unique only while the tensors live

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and not tensor.is_leaf:
            seen[storage._cdata] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = generator.objective(0, batch)
    del losses
    return fixed / 1e6, sum(seen.values()) / 1e6
