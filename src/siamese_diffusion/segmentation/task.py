"""A segmenter and its data as a task of the training loop.

Everything random follows from (seed, step, position): order, augmentation, colours, scale, and
what the network draws for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from siamese_diffusion.core.artifacts import atomic_write_bytes
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.core.seeding import generator as stream
from siamese_diffusion.data.order import sample_order
from siamese_diffusion.segmentation.augment import apply, draw
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.counts import count_image, stack_counts
from siamese_diffusion.segmentation.definitions import IMAGE_FG, image_values
from siamese_diffusion.segmentation.recipe import (
    Plateau,
    build_optimizer,
    scheduled_rate,
    updates_per_epoch,
)
from siamese_diffusion.segmentation.samples import ColourPools, Samples, recoloured
from siamese_diffusion.segmentation.settings import SegmentSettings

VALIDATION_BATCH = 8


class Objective(nn.Module):
    """The network with its loss, and the state that training keeps besides weights.

    Args:
        model: The network.
        settings: Of the run.
    """

    best: Tensor

    def __init__(self, model: Segmenter, settings: SegmentSettings) -> None:
        super().__init__()
        self.model = model
        self.plateau = Plateau(settings.schedule)
        self.register_buffer("best", torch.tensor(-1.0, dtype=torch.float64))
        self._seed = settings.train.seed

    def forward(self, step: int, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Dropout, stochastic depth and drawn pixels come from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self._seed, "network", step, int(batch["position"])))
            outputs = self.model(batch["image"])
            return self._loss(outputs, batch["mask"])

    def _loss(self, outputs: Outputs, mask: Tensor) -> dict[str, Tensor]:
        """In float32 whatever the precision of the network: sums over pixels overflow fp16."""
        with torch.autocast(mask.device.type, enabled=False):
            full = Outputs(
                outputs.logits.float(), {n: t.float() for n, t in outputs.auxiliary.items()}
            )
            return self.model.loss(full, mask)


class SegmentTask:
    """What the loop trains.

    Args:
        model: The network.
        samples: Distinct training pairs at the training size.
        rows: Row among them of every entry of the training list.
        validation: Pairs that steer schedule and choice of weights; None without.
        pools: Colour statistics, where the recipe exchanges colours.
        settings: Of the run.
        steps: Updates of the whole training.
        paths: Where the best weights go; None keeps none.
    """

    def __init__(
        self,
        model: Segmenter,
        samples: Samples,
        rows: Sequence[int],
        *,
        validation: Samples | None,
        pools: ColourPools | None,
        settings: SegmentSettings,
        steps: int,
        paths: SegmenterPaths | None = None,
    ) -> None:
        self._objective = Objective(model, settings)
        self.objective: nn.Module = self._objective
        self._model = model
        self._samples = samples
        self._rows = rows
        self._validation = validation
        self._pools = pools
        self._settings = settings
        self._steps = steps
        self._paths = paths
        self._seen = 0

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self._model.named_parameters()

    def build_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self._model, self._settings.optimizer)

    def learning_rate(self, k: int) -> float:
        rate = self._settings.optimizer.learning_rate
        planned = scheduled_rate(rate, self._settings.schedule, k, self._steps)
        return planned * self._objective.plateau.factor

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Prepared images (B, 3, s, s), masks (B, 1, s, s) in {0, 1} and the first position."""
        settings, seed = self._settings, self._settings.train.seed
        self._seen = step
        number, scale = self._scale(step)
        images, masks = [], []
        for position, row in zip(positions, self._order(number, positions), strict=True):
            image = self._samples.image[row]
            if self._pools is not None:
                image = recoloured(
                    self._samples, self._pools, row, settings.colour, seed, number, position
                )
            change = draw(settings.augment, stream(seed, "augment", number, position))
            image, mask = apply(image, self._samples.mask[row], change)
            images.append(image)
            masks.append(mask)
        image = self._model.prepare(torch.stack(images).to(device))
        mask = (torch.stack(masks).to(device) > 127).float().unsqueeze(1)
        if scale != image.shape[-1]:
            corners = settings.inputs.scale_corners
            image = F.interpolate(
                image, size=[scale, scale], mode="bilinear", align_corners=corners
            )
            mask = F.interpolate(mask, size=[scale, scale], mode="nearest")
        return {"image": image, "mask": mask, "position": torch.tensor(positions[0])}

    @torch.no_grad()
    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Composition of the epoch, and with validation pairs their loss and Dice."""
        values: dict[str, float] = {
            f"epoch/{kind}": float(n) for kind, n in self.composition(self._seen).items()
        }
        if self._validation is None:
            return values
        self.objective.eval()
        try:
            losses, dice = self._measure(self._validation, device)
        finally:
            self.objective.train()
        total = sum(losses.values())
        if self._settings.schedule.name == "plateau":
            self._objective.plateau.follow(total)
        if dice > float(self._objective.best):
            self._objective.best.fill_(dice)
            if self._paths is not None and self._settings.validation.select == "best":
                state = {n: t.cpu().contiguous() for n, t in self._model.state_dict().items()}
                atomic_write_bytes(self._paths.best, save(state))
        best = float(self._objective.best)
        return {"dice": dice, "best_dice": best, "loss/total": total, **losses, **values}

    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        return {}

    def composition(self, step: int) -> dict[str, int]:
        """Real and synthetic entries in the epoch that update `step` (from 0) belongs to."""
        size = self._settings.train.batch_size
        number, _ = self._scale(step)
        per_epoch = updates_per_epoch(len(self._rows), size)
        first = number - number % per_epoch
        rows = [r for n in range(first, first + per_epoch) for r in self._order(n, range(size))]
        counted = Counter(bool(self._samples.synthetic[row]) for row in rows)
        return {
            "number": number // per_epoch + 1,
            "real": counted[False],
            "synthetic": counted[True],
        }

    def _order(self, number: int, positions: Sequence[int]) -> list[int]:
        train = self._settings.train
        order = sample_order(
            train.seed, number, positions, n=len(self._rows), batch_size=train.batch_size
        )
        return [self._rows[place] for place in order]

    def _scale(self, step: int) -> tuple[int, int]:
        """Number of the batch that update `step` uses, and the side of its images."""
        inputs = self._settings.inputs
        if not inputs.scales:
            return step, inputs.size
        if not inputs.scale_shares:  # every batch at every scale, one update each
            number, which = divmod(step, len(inputs.scales))
            return number, inputs.scales[which]
        u = torch.rand((), generator=stream(self._settings.train.seed, "scale", step)).item()
        which = int(np.searchsorted(np.cumsum(inputs.scale_shares), u, side="right"))
        return step, inputs.scales[min(which, len(inputs.scales) - 1)]

    def _measure(self, samples: Samples, device: torch.device) -> tuple[dict[str, float], float]:
        sums: dict[str, float] = {}
        counts = []
        for start in range(0, len(samples), VALIDATION_BATCH):
            part = slice(start, start + VALIDATION_BATCH)
            mask = (samples.mask[part].to(device) > 127).float().unsqueeze(1)
            outputs = self._model(self._model.prepare(samples.image[part].to(device)))
            for name, value in self._model.loss(outputs, mask).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(mask)
            z = self._model.foreground(outputs, mask.shape[2:])
            grey = (255 * z.sigmoid()).round().to(torch.uint8).cpu().numpy()
            decided = (z >= 0).cpu().numpy()
            truth = (mask > 0.5).cpu().numpy()
            counts += [
                count_image(g[0], d[0], t[0]) for g, d, t in zip(grey, decided, truth, strict=True)
            ]
        dice = float(image_values(stack_counts(counts))[IMAGE_FG][0].mean())
        return {name: value / len(samples) for name, value in sums.items()}, dice
