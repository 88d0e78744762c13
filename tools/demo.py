"""The whole chain on phantom data with the embedded base, through the command line alone.

`make demo` runs it. Interrupted, it goes on where it was; finished, it only prints the report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from siamese_diffusion.core.artifacts import atomic_write_json
from siamese_diffusion.core.environment import snapshot

PAIRS, SIZE = 240, 128
# Lesions show in their outlines after some 100 steps of 16; the rest is for their looks.
STEPS, RATE = 320, 3e-4
SHOWN = 8  # pairs in the picture


def siamdiff(*arguments: str) -> None:
    """Run one verb as a user would, showing the command."""
    print("\n$ siamdiff " + " ".join(arguments), flush=True)
    try:
        subprocess.run([sys.executable, "-m", "siamese_diffusion", *arguments], check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the verb has said why


def measure_alignment(data: Path, synthetic: Path) -> dict[str, object]:
    """Dice of a segmenter that saw real pairs only; kept in the synthetic folder."""
    from siamese_diffusion.audit.alignment import alignment
    from siamese_diffusion.data.pairs import PairFolder

    target = synthetic / "alignment.json"
    if not target.exists():
        numbers = alignment(
            PairFolder.open(data, split="train"),
            PairFolder.open(data, split="val"),
            PairFolder.open(synthetic),
        )
        atomic_write_json(target, {**numbers, "commit": snapshot()["commit"]})
    found: dict[str, object] = json.loads(target.read_text())
    return found


def draw_picture(data: Path, synthetic: Path, target: Path) -> None:
    """Masks, the synthetic images made from them, and the real images they belong to."""
    import numpy as np

    from siamese_diffusion.data.images import resize_image
    from siamese_diffusion.data.pairs import PairFolder, read_image
    from siamese_diffusion.generators.model_card import tile

    made, real = PairFolder.open(synthetic), PairFolder.open(data)
    rows: list[list[np.ndarray]] = [[], [], []]
    step = max(1, len(made) // SHOWN)
    for index in range(0, step * min(SHOWN, len(made)), step):
        pair = made.pairs[index]
        origin = real.pairs[real.stems.index(pair.stem)]
        rows[0].append(np.repeat(made.mask(index, SIZE)[..., None], 3, axis=-1))
        rows[1].append(read_image(pair))
        rows[2].append(resize_image(read_image(origin), SIZE))
    tile(np.stack([image for row in rows for image in row]), len(rows[0])).save(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="phantom pairs")
    options = parser.parse_args()
    out: Path = options.out
    started = time.monotonic()
    data, run, synthetic = out / "phantoms", out / "run", out / "synthetic"

    siamdiff(
        "data",
        "phantom",
        str(data),
        "--pairs",
        str(options.pairs),
        "--seed",
        "7",
        "--size",
        str(SIZE),
    )
    siamdiff(
        "fit",
        "--data",
        str(data),
        "--base",
        "tiny",
        "--preset",
        "small",
        "--out",
        str(run),
        "--set",
        f"train.steps={options.steps}",
        "--set",
        "train.precision=auto",
        "--set",
        f"train.learning_rate={RATE}",
    )
    # masks that the training never saw
    siamdiff(
        "sample",
        str(run),
        "--masks",
        str(data),
        "--split",
        "test",
        "--out",
        str(synthetic),
        "--steps",
        "25",
        "--guidance",
        "2",
    )
    numbers = measure_alignment(data, synthetic)
    draw_picture(data, synthetic, out / "picture.png")
    siamdiff("report", str(run), str(synthetic), "--out", str(out / "report.html"))

    print(
        f"\nDo the images follow their masks? Dice of a segmenter that saw real pairs only:\n"
        f"  synthetic images with their own masks    {numbers['dice_on_synthetic']}\n"
        f"  synthetic images with shuffled masks     {numbers['dice_on_shuffled']}\n"
        f"  real pairs it had not seen               {numbers['dice_on_real']}\n"
        f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open this page:\n"
        f"{(out / 'report.html').resolve()}"
    )


if __name__ == "__main__":
    main()
