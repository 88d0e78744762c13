"""Images/s beside a release-style loop and beside diffusers' own pipeline, and whether they agree.

    python -m benchmarks.sampling --device cuda
    python -m benchmarks.sampling --device cpu --small

Guidance 9 and 50 steps (5 when small), decoding included. The release-style loop has batch 1 in
fp32 and encodes the hint in both passes of every step. diffusers' pipeline
(`StableDiffusionControlNetPipeline`) runs at the same precision as ours, each at its own best
batch, and decodes in that precision, ours in fp32. All start from the same noise, so that their
images can be compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionControlNetPipeline

from benchmarks.record import Found, Line, beside, rate_line
from benchmarks.stopwatch import Timing, take_turns
from benchmarks.workload import DTYPES, Workload, in_memory_run, run_alone
from reference.literal_sampling import literal_sample
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.generators.base import move
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.latents import decode, to_uint8
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

QUESTION = "How many images a second does sampling give, beside a release-style loop and diffusers?"
UNIT = "images/s"
GUIDANCE_SCALE = 9.0
OVER_RELEASE, OVER_DIFFUSERS = 8.0, 1.3  # ratios asked for at full size on a GPU
# Grey levels of 255 that images of the same noise may differ by: most of any pixel in fp32, where
# only the order of sums differs; mean of all pixels in bf16, which keeps eight bits of each number
# and carries its rounding through every step.
FP32_MOST, BF16_MEAN = 2.0, 4.0

Images = np.ndarray  # (B, H, W, 3) uint8


def measure(load: Workload) -> Found:
    """Release-style loop in fp32, then ours and diffusers' in bf16 at each batch."""
    base = load.base()
    generator = load.generator(base, moved=True)
    samplers = Samplers(load, base, generator)
    most, _ = differences(samplers.ours("fp32")(2), samplers.literal()(2))
    remarks = [
        f"this project and the release-style loop, fp32, same noise: images differ by at most "
        f"{most:.0f} grey levels ({_verdict(most <= FP32_MOST)} tolerance {FP32_MOST:.0f})"
    ]
    literal = samplers.literal()
    timing = take_turns({"literal": (lambda: literal(1), 1)}, load.device, repeats=load.repeats)
    released = rate_line("release-style loop, fp32, batch 1", timing["literal"], UNIT)
    lines = [released]
    for precision in ("fp32", "bf16") if load.small else ("bf16",):
        ours, theirs = samplers.ours(precision), samplers.diffusers(precision)
        most, mean = differences(ours(2), theirs(2))
        within = most <= FP32_MOST if precision == "fp32" else mean <= BF16_MEAN
        limit = f"{FP32_MOST:g} at most" if precision == "fp32" else f"{BF16_MEAN:g} in the mean"
        remarks.append(
            f"this project and diffusers, {precision}, same noise: images differ by {mean:.2f} "
            f"grey levels in the mean and {most:.0f} at most ({_verdict(within)} tolerance {limit})"
        )
        found = _best(load, {"ours": ours, "theirs": theirs}, remarks, precision)
        if found is None:
            continue
        mine = _line(f"this project, {precision}", found["ours"])
        other = _line(f"diffusers, {precision}", found["theirs"])
        lines += [beside(mine, released, target=load.target(OVER_RELEASE)), other]
        lines.append(beside(mine, other, target=load.target(OVER_DIFFUSERS)))
    return Found("sampling", QUESTION, tuple(lines), tuple(remarks))


@dataclass
class Samplers:
    """Three ways from noise to images on the same weights; each gives a function of the count.

    Weights are turned to a sampler's precision when it is asked for: ask for one precision at a
    time.
    """

    load: Workload
    base: Base
    generator: Siamese

    def __post_init__(self) -> None:
        size = self.load.size
        self._mask = np.zeros((size, size), np.uint8)
        self._mask[size // 4 : size // 2, size // 3 : 3 * size // 4] = 255
        self._hint = torch.from_numpy(self._mask > 127).float().expand(1, 3, -1, -1)
        self._context = self.base.embed(["A photo of a polyp.", ""])

    def ours(self, precision: str) -> Callable[[int], Images]:
        """The package's pipeline."""
        dtype = DTYPES[precision]
        run = in_memory_run(self.load, self.base, self.generator)
        pipeline = SiameseDiffusionPipeline(run, device=self.load.device, dtype=dtype)

        def draw(n: int) -> Images:
            images = pipeline(
                [self._mask] * n,
                list(range(n)),
                steps=self.load.steps,
                guidance_scale=GUIDANCE_SCALE,
            )
            return np.stack([np.asarray(image) for image in images])

        return draw

    def literal(self) -> Callable[[int], Images]:
        """The release-style loop, one image after the other, in fp32."""
        move(self.generator, self.load.device, torch.float32)
        device = self.load.device
        alpha_bar = self.base.scheduler.alphas_cumprod.float()

        def draw(n: int) -> Images:
            images = []
            for seed in range(n):
                latent = literal_sample(
                    self.base.unet,
                    self.generator.network.control,
                    self._hint.to(device),
                    self._context[:1],
                    self._context[1:],
                    self._noise([seed], torch.float32),
                    alpha_bar=alpha_bar,
                    steps=self.load.steps,
                    guidance_scale=GUIDANCE_SCALE,
                )
                images.append(to_uint8(decode(self.base.vae, latent)).numpy()[0])
            return np.stack(images)

        return draw

    def diffusers(self, precision: str) -> Callable[[int], Images]:
        """diffusers' pipeline, whole in one precision, as its users run it."""
        dtype = DTYPES[precision]
        move(self.generator, self.load.device, dtype)
        pipeline = StableDiffusionControlNetPipeline(
            vae=copy.deepcopy(self.base.vae).to(dtype),
            text_encoder=copy.deepcopy(self.base.text_encoder).to(dtype),
            tokenizer=self.base.tokenizer,
            unet=self.base.unet,
            controlnet=self.generator.network.control,
            scheduler=DDIMScheduler.from_config(self.base.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        c_text, c_empty = (row.to(dtype) for row in self._context)

        def draw(n: int) -> Images:
            images = pipeline(
                prompt_embeds=c_text.expand(n, -1, -1),
                negative_prompt_embeds=c_empty.expand(n, -1, -1),
                image=self._hint.expand(n, -1, -1, -1).to(self.load.device, dtype),
                latents=self._noise(range(n), dtype),
                num_inference_steps=self.load.steps,
                guidance_scale=GUIDANCE_SCALE,
                eta=0.0,
                output_type="pil",
            ).images
            return np.stack([np.asarray(image) for image in images])

        return draw

    def _noise(self, seeds: range | list[int], dtype: torch.dtype) -> torch.Tensor:
        side, channels = self.load.size // 8, int(self.base.unet.config["in_channels"])
        rows = [normal((channels, side, side), seed, "sample") for seed in seeds]
        return torch.stack(rows).to(self.load.device, dtype)


def differences(first: Images, second: Images) -> tuple[float, float]:
    """Largest and mean absolute difference in grey levels."""
    gap = np.abs(first.astype(int) - second.astype(int))
    return float(gap.max()), float(gap.mean())


def _best(
    load: Workload, samplers: dict[str, Callable[[int], Images]], remarks: list[str], precision: str
) -> dict[str, Timing] | None:
    """The fastest batch of each sampler."""
    best: dict[str, Timing] = {}
    for n in load.batches:
        works = {name: ((lambda draw=draw, n=n: draw(n)), n) for name, draw in samplers.items()}
        try:
            found = take_turns(works, load.device, repeats=load.repeats)
        except torch.OutOfMemoryError:
            remarks.append(f"{precision}, batch {n}: out of memory")
            continue
        for name, timing in found.items():
            if name not in best or timing.rate > best[name].rate:
                best[name] = timing
    return best or None


def _line(what: str, timing: Timing) -> Line:
    return rate_line(f"{what}, batch {timing.units}", timing, UNIT)


def _verdict(within: bool) -> str:
    return "within" if within else "OUTSIDE"


if __name__ == "__main__":
    run_alone(measure, __doc__)
