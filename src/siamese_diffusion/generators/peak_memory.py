"""Peak memory of a training step, counted without that memory.

A step runs on fake tensors: shapes, types and lifetimes are those of a real one, storages are
empty. What lives at once is added up operation by operation, forward and backward, checkpointing,
gradients, autocast's copies of the weights and temporaries of single operations included. Not
counted is what kernels take inside (workspaces of convolutions) and what an allocator loses.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from siamese_diffusion.generators.base import Generator
from siamese_diffusion.generators.run_folder import generator_class
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.base import LATENT_FACTOR, Base
from siamese_diffusion.training.precision import autocast_dtype
from siamese_diffusion.training.settings import TrainSettings

# Bytes of AdamW's two moments for each trained parameter.
_MOMENTS = {"adamw": 8, "adamw8bit": 2}


class FakeStep:
    """Training steps of a generator that take no memory.

    Args:
        settings: The run's settings.
        base: The base; only its architecture is used.
    """

    def __init__(self, settings: FitSettings, base: Base) -> None:
        self._settings = settings
        self._base = base
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            unet = UNet2DConditionModel.from_config(base.unet.config).requires_grad_(False)
            empty = Base(
                base.vae,
                unet,
                base.text_encoder,
                base.tokenizer,
                base.scheduler,
                base.reference,
                base.kind,
            )
            self._generator = generator_class(settings.generator).build(settings, empty)

    def fixed_bytes(self, train: TrainSettings) -> int:
        """Weights, moments, moving average and the autoencoder, which stays on the device."""
        trained = sum(p.numel() for _, p in self._generator.trained_parameters())
        everything = sum(p.numel() for p in self._generator.objective.parameters())
        average = 4 if train.ema_decay is not None else 0
        autoencoder = sum(p.numel() for p in self._base.vae.parameters())
        return int(4 * (everything + autoencoder) + (_MOMENTS[train.optimizer] + average) * trained)

    def peak_bytes(
        self,
        train: TrainSettings,
        *,
        samples: int,
        gated: int,
        device: torch.device | None = None,
    ) -> int:
        """Most that lives at once beyond `fixed_bytes`: batch, activations, gradients.

        Args:
            train: Precision and checkpointing.
            samples: Of the micro-batch.
            gated: Samples of it that count in Eq. (12); the step is one after K_tau.
            device: Decides the precision `auto`; None is where a training runs by default.
        """
        t = [0] * gated + [999] * (samples - gated)
        with self._mode:
            batch = empty_batch(self._base, self._settings.data.size, samples)
        return counted_peak(self._generator, batch, t, step=train.steps, train=train, device=device)


def empty_batch(base: Base, size: int, samples: int) -> dict[str, Tensor]:
    """Tensors of a batch as `siamese_terms` takes it, without timesteps; values are undefined."""
    side = size // LATENT_FACTOR
    latent = (samples, int(base.unet.config["in_channels"]), side, side)
    text = (int(base.tokenizer.model_max_length), int(base.unet.config["cross_attention_dim"]))
    return {
        "z0": torch.empty(latent),
        "eps": torch.empty(latent),
        "alpha_bar_t": torch.empty(samples),
        "c_text": torch.empty(samples, *text),
        "mask": torch.empty(samples, 3, size, size),
        "image": torch.empty(samples, 3, size, size),
    }


def counted_peak(
    generator: Generator,
    batch: Mapping[str, Tensor],
    t: Sequence[int],
    *,
    step: int,
    train: TrainSettings,
    device: torch.device | None = None,
) -> int:
    """Bytes that one forward and backward keep at once; the batch counts, the weights do not.

    Works on real tensors too, which is how the count on fake ones is checked. `device` as of
    `peak_bytes`.
    """
    dtype = autocast_dtype(train, device)
    network = getattr(generator, "network", None)
    if network is not None:
        network.gradient_checkpointing = train.gradient_checkpointing
    given = sum(tensor.numel() * tensor.element_size() for tensor in batch.values())
    there = [*generator.objective.parameters(), *generator.objective.buffers(), *batch.values()]
    with LiveBytes(there) as live:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            # timesteps hold values: the gate of Eq. (13) is read from them
            terms = generator.objective(step, {**batch, "t": torch.tensor(list(t))})
        losses = [value for name, value in terms.items() if name.startswith("loss/")]
        torch.autograd.backward(torch.stack(losses).sum())
    for _, parameter in generator.trained_parameters():
        parameter.grad = None
    return int(given + live.peak)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of the base's subclass hook
    """Adds up storages that operations make and drops them when they die.

    Args:
        there: Tensors that exist already: views of them cost nothing.
    """

    def __init__(self, there: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._there = {tensor.untyped_storage()._cdata for tensor in there}
        self.peak = 0
        self._now = 0
        self._living: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self._now)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._living or key in self._there:
            return

        def gone(_: object) -> None:
            self._living.pop(key, None)
            self._now -= size

        self._living[key] = weakref.ref(storage, gone)
        self._now += size
