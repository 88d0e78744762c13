"""Do the metrics order sets as they must? Real halves against each other, then against blur.

Takes images of one split in a seeded order: `a` and `b` are disjoint, `blur1` and `blur3` are `a`
blurred by a Gaussian of 1 and 3 pixels. Writes one score file each and prints them side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from siamese_diffusion.core.artifacts import make_folder
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.metrics.passport import comparison_text
from siamese_diffusion.metrics.scoring import parse_weights, score
from siamese_diffusion.metrics.settings import ScoreSettings

BLURS = {"blur1": 1.0, "blur3": 3.0}


def write_sets(data: Path, out: Path, *, split: str | None, images: int, seed: int) -> None:
    """PNG files of equal names in `a`, `blur1` and `blur3`, others in `b`."""
    folder = PairFolder.open(data, split=split, need="images")
    order = np.random.default_rng(derive_seed(seed, "order")).permutation(len(folder))
    for place, row in enumerate(order[: 2 * images]):
        image = Image.fromarray(folder.image(int(row)))
        stem = folder.pairs[int(row)].stem
        versions = {"a": image} if place < images else {"b": image}
        if place < images:
            blurred = {n: image.filter(ImageFilter.GaussianBlur(r)) for n, r in BLURS.items()}
            versions = {**versions, **blurred}
        for name, version in versions.items():
            path = make_folder(out / name / "images") / f"{stem}.png"
            if not path.exists():
                version.save(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default=None)
    parser.add_argument("--images", type=int, default=200, help="in each set")
    parser.add_argument("--metrics", default="fid,kid,prdc,mixing,lpips-cross")
    parser.add_argument("--paired", default="lpips", help="metrics of the blurred sets only")
    parser.add_argument("--extractor", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args(arguments)
    from siamese_diffusion.core.config import resolve

    out: Path = options.out
    write_sets(options.data, out, split=options.split, images=options.images, seed=options.seed)
    settings = resolve(ScoreSettings, overrides=options.overrides)
    for name in ("b", *BLURS):
        metrics = options.metrics.split(",")
        paired = [m for m in options.paired.split(",") if m] if name in BLURS else []
        report = score(
            out / "a",
            out / name,
            metrics=[*metrics, *paired],
            settings=settings,
            weights=parse_weights(options.extractor),
            cache=out / "cache",
            out=out / f"{name}.json",
        )
        print(f"\na against {name}\n{report.text()}", flush=True)
    print("\n" + comparison_text([out / f"{name}.json" for name in ("b", *BLURS)]))


if __name__ == "__main__":
    main()
