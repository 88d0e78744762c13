"""From pictures to maps: prepared, predicted, brought back to their own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from siamese_diffusion.core.artifacts import atomic_write_bytes, make_folder
from siamese_diffusion.core.errors import NumericsError
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.images import encode_png
from siamese_diffusion.data.listing import PairFile
from siamese_diffusion.data.pairs import PairFolder, read_image
from siamese_diffusion.segmentation.base import Outputs, Segmenter
from siamese_diffusion.segmentation.run_folder import load_segmenter
from siamese_diffusion.segmentation.samples import Pixels, resize_picture
from siamese_diffusion.training.processes import choose_device

BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """One picture's result at one size.

    Attributes:
        grey: Map as it is stored, (H, W) uint8.
        decision: Foreground, (H, W) bool.
    """

    grey: Pixels
    decision: npt.NDArray[np.bool_]


@torch.no_grad()
def predict(
    model: Segmenter, pairs: Sequence[PairFile], size: int, device: torch.device
) -> Iterator[tuple[PairFile, Prediction, Prediction]]:
    """Predict every picture, in order.

    Yields:
        The pair, its prediction at the picture's own size, and the one at the network's.

    Raises:
        DataError: If a picture cannot be read.
        NumericsError: If a logit is not finite, naming the picture.
    """
    model.to(device)
    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        pictures = [read_image(pair) for pair in part]
        small = np.stack([resize_picture(picture, size) for picture in pictures])
        images = torch.from_numpy(small).permute(0, 3, 1, 2).to(device)
        outputs = model(model.prepare(images))
        for row, (pair, picture) in enumerate(zip(part, pictures, strict=True)):
            one = Outputs(outputs.logits[row : row + 1])
            if not torch.isfinite(one.logits).all():
                raise NumericsError(
                    f"the logits of '{pair.stem}' are not finite",
                    hint="the weights are broken: train again with a lower "
                    "optimizer.learning_rate or train.precision=fp32",
                )
            sizes = (picture.shape[:2], (size, size))
            own, network = (_prediction(model, model.foreground(one, s)) for s in sizes)
            yield pair, own, network


def predict_folder(
    run: Path | str,
    images: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> int:
    """Write a mask for every picture of a folder, at the picture's own size.

    Args:
        run: Run folder of a segmenter.
        images: Data-set folder, or a folder of pictures alone.
        out: Folder for `<stem>.png`, foreground 255.
        split: Pictures of this list only.
        device: "cpu" or "cuda"; None takes what is there.
        quiet: No progress bar.

    Returns:
        How many masks were written.

    Raises:
        SiamDiffError: Of the kind that says what to mend; see `core.errors`.
    """
    where = choose_device(device)
    folder = PairFolder.open(Path(images), split=split, need="images")
    model, settings, _ = load_segmenter(Path(run))
    target = make_folder(Path(out))
    with ProgressBar("predict", len(folder), enabled=not quiet) as bar:
        found = predict(model, folder.pairs, settings.inputs.size, where)
        for done, (pair, own, _) in enumerate(found, start=1):
            mask = (255 * own.decision).astype(np.uint8)
            atomic_write_bytes(target / f"{pair.stem}.png", encode_png(mask))
            bar.advance_to(done)
    return len(folder)


def _prediction(model: Segmenter, z: Tensor) -> Prediction:
    grey = (255 * model.probability(z)).round().to(torch.uint8)
    return Prediction(grey[0, 0].cpu().numpy(), (z[0, 0] >= 0).cpu().numpy())
