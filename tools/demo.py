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

PAIRS, SIZE = 240, 128
# Lesions show in their outlines after some 100 steps of 16; the rest is for their looks.
STEPS, RATE = 240, 3e-4
SHOWN = 8  # pairs in the picture
SEGMENTER_STEPS = 200  # of each of two segmenters
MIXING_NEEDS = 10  # images, for neighbours and t-SNE


def siamdiff(*arguments: str) -> None:
    """Run one verb as a user would, showing the command."""
    print("\n$ siamdiff " + " ".join(arguments), flush=True)
    try:
        subprocess.run([sys.executable, "-m", "siamese_diffusion", *arguments], check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # the verb has said why


def score_images(data: Path, synthetic: Path, out: Path) -> Path:
    """Scores by an untrained network, since the demo downloads no weights; the page says so."""
    metrics = "fid,kid,prdc" + (",mixing" if count_pairs(synthetic) >= MIXING_NEEDS else "")
    if not out.exists():
        siamdiff(
            "score",
            *("--real", str(data), "--synthetic", str(synthetic), "--out", str(out)),
            *("--holdout", str(data), "--holdout-split", "val", "--metrics", metrics),
            *("--set", "fidelity=random", "--set", f"size={SIZE}"),
            *("--cache", str(out.parent / "features")),
        )
    return out


def audit_images(data: Path, synthetic: Path, out: Path) -> Path:
    """Both audits; the rate is the least that the few hold-out images can support."""
    if not (out / "alignment.json").exists():
        siamdiff(
            *("audit", "alignment", "--real", str(data), "--synthetic", str(synthetic)),
            *("--out", str(out), "--set", "folds=2", "--set", f"steps={SEGMENTER_STEPS}"),
        )
    if not (out / "memorisation.json").exists():
        held_out = len((data / "val.txt").read_text().split())
        siamdiff(
            *("audit", "memorisation", "--real", str(data), "--synthetic", str(synthetic)),
            *("--holdout", str(data), "--holdout-split", "val", "--out", str(out)),
            *("--set", f"rate={max(0.01, 1.001 / (held_out + 1)):.6f}"),
        )
    return out


def plot_plane(data: Path, synthetic: Path, out: Path) -> list[str]:
    """The t-SNE, if there are enough images for one; the figure as an argument of the report."""
    pairs = count_pairs(synthetic)
    if pairs < MIXING_NEEDS:
        return []
    if not out.with_suffix(".json").exists():
        siamdiff(
            *("plot", "tsne", "--real", str(data), "--synthetic", f"synthetic={synthetic}"),
            *("--out", str(out), "--set", "fidelity=random", "--set", f"size={SIZE}"),
            *("--set", f"perplexity={max(2, pairs // 3)}", "--set", "iterations=500"),
            *("--cache", str(out.parent / "features")),
        )
    return [str(out)]


def count_pairs(folder: Path) -> int:
    return sum(1 for _ in (folder / "images").iterdir())


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
    score_file = score_images(data, synthetic, out / "score.json")
    audit = audit_images(data, synthetic, out / "audit")
    figures = plot_plane(data, synthetic, out / "tsne.png")
    numbers = json.loads((audit / "alignment.json").read_text())
    draw_picture(data, synthetic, out / "picture.png")
    siamdiff(
        *("report", str(run), str(synthetic), str(audit), str(score_file), *figures),
        *("--out", str(out / "report.html")),
    )

    print(
        f"\nDo the images follow their masks? Dice of segmenters that saw real pairs only:\n"
        f"  synthetic images with their own masks    {numbers['dice_on_synthetic']:.4f}\n"
        f"  synthetic images with shuffled masks     {numbers['dice_on_shuffled']:.4f}\n"
        f"  real pairs it had not seen               {numbers['dice_on_real']:.4f}\n"
        f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open this page:\n"
        f"{(out / 'report.html').resolve()}"
    )


if __name__ == "__main__":
    main()
