"""A pipeline without a model for the tests of bulk sampling; run as a script, one worker."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from siamese_diffusion.core.errors import SiamDiffError
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.sampling.bulk import sample_with
from siamese_diffusion.sampling.settings import SampleSettings

Mask = npt.NDArray[np.uint8]
SIZE = 32


class PaintingPipeline:
    """Paints an image from mask, seed and settings.

    Args:
        seconds: Time an image takes.
        rounds: Whether pixels depend on who shares the batch, as rounding does in real networks.
        signal_at: Send this process SIGTERM during the call of this number, from 0.
    """

    def __init__(
        self, *, seconds: float = 0.0, rounds: bool = False, signal_at: int | None = None
    ) -> None:
        self.size = SIZE
        self.prompt = "A photo of a polyp."
        self.model_sha256 = "m" * 64
        self.run = Path("runs/phantom")
        self.seeds: list[list[int]] = []
        self.masks: list[Mask] = []
        self.samplers: set[Sampler] = set()
        self._seconds = seconds
        self._rounds = rounds
        self._signal_at = signal_at

    def __call__(
        self,
        masks: Sequence[Mask],
        seeds: Sequence[int],
        *,
        prompts: Sequence[str] | None = None,
        steps: int = 50,
        guidance_scale: float = 9.0,
        batch_size: int | None = None,
        exact: bool = False,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]:
        if self._signal_at == len(self.seeds):
            os.kill(os.getpid(), signal.SIGTERM)
        self.seeds.append(list(seeds))
        self.masks.extend(masks)
        self.samplers.add(sampler)
        shared = 0 if exact or not self._rounds else sum(seeds) % 251
        return [self._paint(mask, seed + shared) for mask, seed in zip(masks, seeds, strict=True)]

    def _paint(self, mask: Mask, seed: int) -> Image.Image:
        assert mask.shape == (SIZE, SIZE) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        time.sleep(self._seconds)
        noise = np.random.default_rng(seed).integers(0, 128, (SIZE, SIZE, 3), dtype=np.uint8)
        noise[..., 0] += mask // 2
        return Image.fromarray(noise)


def write_masks(folder: Path, n: int, *, size: int = SIZE, first: int = 0) -> Path:
    """Write `n` masks of one rectangle each directly into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + n):
        rng = np.random.default_rng(index)
        top, left = (int(v) for v in rng.integers(size // 8, size // 2, 2))
        mask = np.zeros((size, size), np.uint8)
        mask[top : top + size // 3, left : left + size // 4] = 255
        Image.fromarray(mask).save(folder / f"m{index:02d}.png")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative name, except the plan's header (it has paths)."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in _walk(folder)
        if path.name != "plan.json"
    }


def _walk(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def main() -> int:
    """One worker: prints 'ready', waits for a line, works, prints how many items it made."""
    parser = argparse.ArgumentParser()
    parser.add_argument("masks", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--rounds", action="store_true")
    asked = parser.parse_args()
    print("ready", flush=True)
    sys.stdin.readline()
    settings = SampleSettings(recipe="random", folds=asked.folds, batch_size=asked.batch_size)
    pipeline = PaintingPipeline(seconds=asked.seconds, rounds=asked.rounds)
    try:
        summary = sample_with(pipeline, asked.masks, asked.out, settings=settings, progress=False)
    except SiamDiffError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(summary.made, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
