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
from siamese_diffusion.core.folders import AuditPaths

PAIRS, SIZE = 240, 128
# Lesions show in their outlines after some 150 steps; the rest is for their looks.
# More and smaller updates than the preset's: 400 of 8 gave a Dice of 0.51, 200 of 16 one of 0.34.
STEPS, BATCH, RATE, AVERAGE = 440, 8, 3e-4, 0.97
SHOWN = 8  # pairs in the picture
SEGMENTER_STEPS = 200  # of each of two segmenters
MIXING_NEEDS = 10  # images, for neighbours and t-SNE
# Of the segmenters that compare real pairs with real and synthetic ones.
USE_PAIRS, USE_STEPS, USE_SIZE, USE_SEEDS = 60, 120, 48, (0, 1)


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
    paths = AuditPaths(out)
    if not paths.alignment.exists():
        siamdiff(
            *("audit", "alignment", "--real", str(data), "--synthetic", str(synthetic)),
            *("--out", str(out), "--set", "folds=2", "--set", f"steps={SEGMENTER_STEPS}"),
        )
    if not paths.memorisation.exists():
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


def measure_use(data: Path, synthetic: Path, unseen: Path, target: Path) -> dict[str, object]:
    """Dice of a small segmenter trained on real pairs, and on real and synthetic ones.

    Both see as many pairs an update, as many updates, and the same seeds. They are judged on pairs
    drawn with another seed, of which neither images nor masks were used anywhere.
    """
    if not target.exists():
        import torch

        from siamese_diffusion.audit.alignment import dice
        from siamese_diffusion.audit.segmenter import as_tensors, predict, train_segmenter
        from siamese_diffusion.core.environment import snapshot
        from siamese_diffusion.data.pairs import PairFolder

        real = as_tensors(PairFolder.open(data, split="train"), USE_SIZE)
        made = as_tensors(PairFolder.open(synthetic), USE_SIZE)
        image, mask = as_tensors(PairFolder.open(unseen), USE_SIZE)
        both = (torch.cat([real[0], made[0]]), torch.cat([real[1], made[1]]))
        scores: dict[str, list[torch.Tensor]] = {"real": [], "both": []}
        for seed in USE_SEEDS:
            for name, pairs in (("real", real), ("both", both)):
                network = train_segmenter(*pairs, steps=USE_STEPS, seed=seed, progress=None)
                scores[name].append(dice(predict(network, image), mask))
        gains = torch.stack(scores["both"]) - torch.stack(scores["real"])  # (seeds, images)
        of_images = gains.mean(0)
        numbers = {
            "dice_real_only": float(torch.stack(scores["real"]).mean()),
            "dice_real_and_synthetic": float(torch.stack(scores["both"]).mean()),
            "gain": float(gains.mean()),
            "gain_half_width": float(1.96 * of_images.std() / len(of_images) ** 0.5),
            "gain_by_seed": [float(gain) for gain in gains.mean(1)],
            "n_unseen": len(mask),
            "n_real": len(real[1]),
            "n_synthetic": len(made[1]),
            "updates": USE_STEPS,
            "size_px": USE_SIZE,
            "seeds": list(USE_SEEDS),
            "commit": snapshot()["commit"],
        }
        atomic_write_json(target, numbers)
    found: dict[str, object] = json.loads(target.read_text())
    return found


def use_in_words(numbers: dict[str, object]) -> str:
    """The comparison as one honest sentence."""
    gain, half = float(str(numbers["gain"])), float(str(numbers["gain_half_width"]))
    verdict = "no clear difference" if abs(gain) <= half else "a gain" if gain > 0 else "a loss"
    return (
        f"A small segmenter on {numbers['n_unseen']} new pairs: Dice "
        f"{float(str(numbers['dice_real_only'])):.3f} from {numbers['n_real']} real pairs, "
        f"{float(str(numbers['dice_real_and_synthetic'])):.3f} with {numbers['n_synthetic']} "
        f"synthetic ones added; {verdict} ({gain:+.3f}, 95 % over images "
        f"{gain - half:+.3f} to {gain + half:+.3f}; {len(USE_SEEDS)} seeds)."
    )


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
    unseen = out / "unseen"

    for folder, pairs, seed in ((data, options.pairs, 7), (unseen, USE_PAIRS, 8)):
        siamdiff(
            *("data", "phantom", str(folder), "--pairs", str(pairs)),
            *("--seed", str(seed), "--size", str(SIZE)),
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
        f"train.batch_size={BATCH}",
        "--set",
        f"train.learning_rate={RATE}",
        "--set",
        f"train.ema_decay={AVERAGE}",
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
    numbers = json.loads(AuditPaths(audit).alignment.read_text())
    use = measure_use(data, synthetic, unseen, out / "use.json")
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
        f"{use_in_words(use)}\n"
        f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open this page:\n"
        f"{(out / 'report.html').resolve()}"
    )


if __name__ == "__main__":
    main()
