"""An extractor's features as descriptors for the memorisation audit, under flips and turns.

Crops are left to the network, which hardly notices small ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from siamese_diffusion.audit import descriptors
from siamese_diffusion.audit.search import Rows
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.metrics.clip_i import unit_rows
from siamese_diffusion.metrics.extractors import Extractor, loader, require_path
from siamese_diffusion.metrics.features import run_features
from siamese_diffusion.metrics.scoring import default_cache, parse_weights, pick_device
from siamese_diffusion.metrics.sets import ImageSet
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.store import RowStore


class FeatureSpace:
    """Makes `Rows` of a set through an extractor; its features are kept in the feature cache.

    Args:
        extractor: The network.
        cache: Folder of the feature cache.
        device: Where the network runs.
        batch_size: Images at once.
        progress: Whether to show bars.
        option: What `open_space` knows the extractor by.
        weights: File that it was read from; None if it needs none.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        cache: Path,
        device: torch.device,
        batch_size: int = 16,
        progress: bool = True,
        option: str | None = None,
        weights: Path | None = None,
    ) -> None:
        self._extractor = extractor
        self._cache = cache
        self._device = device
        self._batch_size = batch_size
        self._progress = progress
        self._option = option or extractor.name
        self._weights = weights
        extractor.network.to(device)

    @property
    def name(self) -> str:
        """Name of the extractor."""
        return self._extractor.name

    def record(self) -> dict[str, object]:
        """Name, weights file and hash, from which `open_space` makes the same space."""
        path = None if self._weights is None else str(self._weights.resolve())
        return {"name": self._option, "path": path, "sha256": self._extractor.sha256}

    def __call__(self, images: ImageSet) -> Rows:
        turned = [self._rows(images, turn) for turn in range(descriptors.TURNS)]
        return Rows(np.stack(turned, 1), turned[0][:, None])

    def _rows(self, images: ImageSet, turn: int) -> npt.NDArray[np.float32]:
        plain = self._extractor

        def prepare(image: Pixels) -> npt.NDArray[np.float32]:
            return plain.prepare(descriptors.turned(image, turn))

        identity = f"{plain.name} {plain.sha256} {plain.resize}"
        if turn:  # unturned features are those of the metrics
            identity += f" turn-{turn}"
        store = RowStore(self._cache, identity, plain.width)
        absent = set(store.missing([file.sha256 for file in images.files]))
        todo = [f for f in {f.sha256: f for f in images.files}.values() if f.sha256 in absent]
        label = f"{plain.name} of {images.root.name}, turn {turn + 1} of {descriptors.TURNS}"
        with ProgressBar(label, len(todo), enabled=self._progress and bool(todo)) as bar:
            run_features(
                replace(plain, prepare=prepare),
                todo,
                store,
                batch_size=self._batch_size,
                device=self._device,
                progress=bar.advance_to,
            )
        found = unit_rows(store.rows([file.sha256 for file in images.files]))
        return found.astype(np.float32)


def open_space(text: str, *, cache: Path | None = None, device: str | None = None) -> FeatureSpace:
    """The space of an option `NAME=PATH`, or of the name alone where no weights are needed.

    Raises:
        ConfigError: If the text names no extractor of features.
        WeightsError: If its weights are missing or not the ones expected.
    """
    name = text.partition("=")[0].strip()
    weights = parse_weights([text]) if "=" in text else {}
    require_path(name, weights.get(name), wanted_by="the second space")
    found = loader(name).load(weights.get(name), ScoreSettings())
    if not isinstance(found, Extractor):
        raise ConfigError(
            f"'{name}' measures pairs and has no features",
            hint="use inception, clip or vision",
        )
    return FeatureSpace(
        found,
        cache=cache or default_cache(),
        device=pick_device(device),
        option=name,
        weights=weights.get(name),
    )
