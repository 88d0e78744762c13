"""What is measured: a base, a generator and batches, at full size or small; shared options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.record import Found, machine, table, write
from reference.literal import disturb, literal_terms
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators.run_folder import COMPLETE, LoadedRun, RunInfo
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import LATENT_FACTOR, Base
from siamese_diffusion.models.sd15 import build_sd15
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.training.layout import follow_layout, lay_out
from siamese_diffusion.training.optimizer import build_optimizer
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import channels_last

GATED_SHARE = 0.2  # of uniform timesteps that lie below T_tau
BEFORE, AFTER = 500, 2000  # iterations before and after K_tau = 1000
SMALL_BASE = SmallBaseSettings(
    autoencoder_widths=(16, 32, 32, 32), unet_widths=(32, 64), unet_layers=1
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Workload:
    """Where and at what size is measured.

    Attributes:
        small: A small base instead of Stable Diffusion 1.5's architecture; both random.
        size: Pixels along each side.
        micro_batch: Samples of one training step.
        batches: Image batches tried in sampling; the fastest counts.
        steps: DDIM steps.
        repeats: Timed runs of each piece of work.
    """

    device: torch.device
    small: bool
    size: int
    micro_batch: int
    batches: tuple[int, ...]
    steps: int
    repeats: int

    @property
    def scale(self) -> str:
        """The size in words."""
        base = "a small base" if self.small else "Stable Diffusion 1.5's architecture"
        return f"{base}, random weights, {self.size} px"

    def target(self, ratio: float) -> float | None:
        """A ratio asked for at full size on a GPU; None elsewhere."""
        return None if self.small or self.device.type != "cuda" else ratio

    def base(self) -> Base:
        """A base with random weights, on the device."""
        base = (
            build_small_base(SMALL_BASE, size=self.size, seed=0)
            if self.small
            else build_sd15(device=self.device)
        )
        for module in (base.vae, base.unet, base.text_encoder):
            module.to(self.device).requires_grad_(False).eval()
        return base

    def generator(self, base: Base, *, moved: bool = False) -> Siamese:
        """The method on a base; `moved` off its initial values, so that the control shows."""
        with self.device:
            generator = Siamese.build(SiameseFitSettings(), base)
        if moved:
            disturb(generator.network.control, scale=0.01)
        generator.objective.to(self.device)
        return generator


def options(description: str | None) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="a small base, for CPUs: minutes")
    parser.add_argument("--size", type=int, help="pixels; default 384, small 64")
    parser.add_argument("--repeats", type=int, help="timed runs; default 3")
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    return parser


def workload(asked: argparse.Namespace) -> Workload:
    """The workload that the shared options ask for.

    Raises:
        SystemExit: If a GPU is asked for that is not there.
    """
    small = bool(asked.small)
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            f"error: --device {asked.device}, but this PyTorch ({torch.__version__}) finds no GPU\n"
            "hint: --device cpu --small, or install a CUDA build of PyTorch"
        )
    return Workload(
        device=device,
        small=small,
        size=asked.size or (64 if small else 384),
        micro_batch=5 if small else 6,
        batches=(4,) if small else (4, 16),
        steps=5 if small else 50,
        repeats=asked.repeats or 3,
    )


def run_alone(measure: Callable[[Workload], Found], description: str | None) -> None:
    """Main function of a script: options, measurement, table, file."""
    asked = options(description).parse_args()
    show(measure, workload(asked), asked.json)


def show(measure: Callable[[Workload], Found], load: Workload, path: Path | None) -> Found:
    """Measure and print; write to `path` if there is one."""
    found = measure(load)
    print(table(found), flush=True)
    if path is not None:
        write(path, [found], scale=load.scale, about=machine(load.device))
    return found


def in_memory_run(load: Workload, base: Base, generator: Siamese) -> LoadedRun:
    """A run that was never written, for what takes a loaded one."""
    info = RunInfo(
        generator="siamese",
        state=COMPLETE,
        base={"reference": base.reference, "kind": base.kind, "sha256": None},
        model_sha256="0" * 64,
        step=0,
        max_steps=0,
        size=load.size,
        prompt="A photo of a polyp.",
        data={},
    )
    generator.objective.requires_grad_(False).eval()
    return LoadedRun(RunPaths(Path("in-memory")), info, SiameseFitSettings(), base, generator)


def random_batch(base: Base, size: int, n: int, device: torch.device) -> dict[str, Tensor]:
    """A batch of `n` samples of which a fifth (at least one from three on) count in Eq. (12)."""
    side = size // LATENT_FACTOR
    gated = round(GATED_SHARE * n)
    t = torch.tensor([100] * gated + [600] * (n - gated))
    width = int(base.unet.config["cross_attention_dim"])
    shape = (n, int(base.unet.config["in_channels"]), side, side)
    return {
        "z0": torch.randn(shape, device=device),
        "eps": torch.randn(shape, device=device),
        "t": t,
        "alpha_bar_t": base.scheduler.alphas_cumprod.float()[t].to(device),
        "c_text": torch.randn(n, 77, width, device=device),
        "mask": (torch.rand(n, 1, size, size, device=device) > 0.5).float().expand(-1, 3, -1, -1),
        "image": torch.rand(n, 3, size, size, device=device),
    }


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast as the trainer sets it for a precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@dataclass
class Steps:
    """Training steps of both kinds on the same weights, with the same optimizer.

    Sharing them leaves both in memory only once and gives the literal step our fused AdamW.
    """

    base: Base
    generator: Siamese
    load: Workload

    def __post_init__(self) -> None:
        trained = [p for _, p in self.generator.trained_parameters()]
        self._optimizer = build_optimizer(SiameseFitSettings().train, trained)

    def lay_out(self, precision: str) -> None:
        """Keep the weights as the trainer keeps them at a precision on this device."""
        settings = TrainSettings.model_validate({"precision": precision})
        innermost = channels_last(settings, self.load.device)
        lay_out(
            self.generator.objective, torch.channels_last if innermost else torch.contiguous_format
        )
        follow_layout(self._optimizer)

    def ours(self, n: int, precision: str, *, k: int = AFTER, checkpointing: bool = False) -> None:
        """Forward, backward and update of the project's step on `n` samples."""
        self.generator.network.gradient_checkpointing = checkpointing
        batch = random_batch(self.base, self.load.size, n, self.load.device)
        with autocast(self.load.device, precision):
            terms = self.generator.objective(k, batch)
        self._update(terms)

    def literal(
        self, n: int, precision: str, *, k: int = AFTER, checkpointing: bool = False
    ) -> None:
        """The same by the literal transcription of the release's step."""
        control = self.generator.network.control
        for module in (self.base.unet, control):
            if checkpointing:
                module.enable_gradient_checkpointing()
            else:
                module.disable_gradient_checkpointing()
        batch = random_batch(self.base, self.load.size, n, self.load.device)
        with autocast(self.load.device, precision):
            terms = literal_terms(self.base.unet, control, batch, k=k, n_iter=3000)
        self._update(terms)

    def _update(self, terms: Mapping[str, Tensor]) -> None:
        losses = [v for name, v in terms.items() if name.startswith("loss/")]
        torch.autograd.backward(torch.stack(losses).sum())
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
