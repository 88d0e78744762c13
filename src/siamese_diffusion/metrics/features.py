"""Pictures through networks: decoded in threads, in batches, each picture once.

Memory holds a few batches of pictures and the features, whatever the number of images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from siamese_diffusion.core.artifacts import text_sha256
from siamese_diffusion.core.errors import DataError, NumericsError
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.images import read_image
from siamese_diffusion.metrics.base import Pair, Role
from siamese_diffusion.metrics.extractors import Extractor, Perceptual, loader
from siamese_diffusion.metrics.sets import ImageFile, ImageSet
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Features, Real
from siamese_diffusion.metrics.store import RowStore

_DECODERS: Final = 2  # threads; Pillow lets go of the interpreter while it works
_AHEAD: Final = 3  # batches being decoded while one is in the network
_NAMED: Final = 5
Prepared = npt.NDArray[np.float32]


class NetworkBench:
    """The `Bench` of `siamdiff score`: networks, loaded on first use, with a row store each.

    Args:
        settings: Which extractors, and how images reach them.
        weights: Paths given by the user, by extractor.
        cache: Folder of the row stores.
        device: Where networks run.
        progress: Whether to show bars.
    """

    def __init__(
        self,
        settings: ScoreSettings,
        weights: dict[str, Path],
        *,
        cache: Path,
        device: torch.device,
        progress: bool = True,
    ) -> None:
        self._settings = settings
        self._weights = weights
        self._cache = cache
        self._device = device
        self._progress = progress
        self._loaded: dict[str, Extractor | Perceptual] = {}
        self._stores: dict[str, RowStore] = {}

    def extractor(self, role: Role) -> Extractor | Perceptual:
        """The network of a role.

        Raises:
            WeightsError: If its weights are not the ones expected.
        """
        name: str = getattr(self._settings, role)
        if name not in self._loaded:
            found = loader(name).load(self._weights.get(name), self._settings)
            found.network.to(self._device)
            self._loaded[name] = found
            identity = f"{found.name} {found.sha256} {found.resize}"
            self._stores[name] = RowStore(self._cache, identity, found.width)
        return self._loaded[name]

    def features(self, role: Role, images: ImageSet) -> Features:
        """(n, d) in the order of the set, computed where the store lacks them."""
        extractor = self.extractor(role)
        assert isinstance(extractor, Extractor)
        store = self._stores[getattr(self._settings, role)]
        keys = [file.sha256 for file in images.files]
        absent = set(store.missing(keys))
        todo = [f for f in {f.sha256: f for f in images.files}.values() if f.sha256 in absent]
        label = f"{extractor.name} of {images.root.name}"
        with ProgressBar(label, len(todo), enabled=self._progress and bool(todo)) as bar:
            run_features(
                extractor,
                todo,
                store,
                batch_size=self._settings.batch_size,
                device=self._device,
                progress=bar.advance_to,
            )
        return store.rows(keys)

    def distances(self, pairs: Sequence[Pair]) -> Real:
        """LPIPS of each pair, (p,); the order within a pair does not matter."""
        perceptual = self.extractor("perceptual")
        assert isinstance(perceptual, Perceptual)
        store = self._stores[self._settings.perceptual]
        keys = [_pair_key(pair) for pair in pairs]
        absent = set(store.missing(keys))
        todo = [p for k, p in dict(zip(keys, pairs, strict=True)).items() if k in absent]
        label = f"{perceptual.name} pairs"
        with ProgressBar(label, len(todo), enabled=self._progress and bool(todo)) as bar:
            run_distances(
                perceptual,
                todo,
                store,
                batch_size=self._settings.batch_size,
                device=self._device,
                progress=bar.advance_to,
            )
        return store.rows(keys)[:, 0].astype(np.float64)


def run_features(
    extractor: Extractor,
    files: Sequence[ImageFile],
    store: RowStore,
    *,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Put the features of all files into the store.

    Raises:
        DataError: Naming all files that cannot be read, after the others were done.
        NumericsError: Naming a picture with a feature that is not finite.
    """
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    done = 0
    try:
        for batch, prepared in _decoded(batches, extractor.prepare):
            if batch:
                rows = _forward(extractor.network, torch.from_numpy(prepared).to(device))
                for file, row in zip(batch, rows.cpu().numpy(), strict=True):
                    _require_finite(row, file, extractor.name)
                    store.add(file.sha256, row)
            done += len(batch)
            if progress is not None:
                progress(done)
    finally:
        store.flush()


def run_distances(
    perceptual: Perceptual,
    pairs: Sequence[Pair],
    store: RowStore,
    *,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Put the distances of all pairs into the store.

    A picture that is in several pairs of a batch goes through the trunk once.

    Raises:
        DataError: Naming all files that cannot be read, after the others were done.
        NumericsError: Naming a picture with a distance that is not finite.
    """
    step = max(1, batch_size // 2)  # a batch of pairs holds at most batch_size pictures
    parts = [pairs[start : start + step] for start in range(0, len(pairs), step)]
    batches = [list({f.sha256: f for pair in part for f in pair}.values()) for part in parts]
    rest = deque(parts)
    done = 0
    try:
        for batch, prepared in _decoded(batches, perceptual.prepare):
            there = {file.sha256: row for row, file in enumerate(batch)}
            part = [p for p in rest.popleft() if all(f.sha256 in there for f in p)]
            if part:
                values = _distances(perceptual, torch.from_numpy(prepared).to(device), part, there)
                for pair, value in zip(part, values, strict=True):
                    _require_finite(value, pair[1], perceptual.name)
                    store.add(_pair_key(pair), value[None])
            done += len(part)
            if progress is not None:
                progress(done)
    finally:
        store.flush()


@torch.no_grad()
def _distances(
    perceptual: Perceptual, images: Tensor, pairs: Sequence[Pair], row: dict[str, int]
) -> Prepared:
    with _exact_convolutions():
        taps = perceptual.network.activations(images)
        first = [row[a.sha256] for a, _ in pairs]
        second = [row[b.sha256] for _, b in pairs]
        found = perceptual.network.distance([t[first] for t in taps], [t[second] for t in taps])
    return np.asarray(found.cpu().numpy(), dtype=np.float32)


@torch.no_grad()
def _forward(network: torch.nn.Module, x: Tensor) -> Tensor:
    with _exact_convolutions():
        rows = network(x)
    assert isinstance(rows, Tensor)
    return rows.float()


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """No TF32 on GPUs: it moves features in the third digit."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def _decoded(
    batches: Sequence[Sequence[ImageFile]],
    prepare: Callable[[npt.NDArray[np.uint8]], Prepared],
) -> Iterator[tuple[list[ImageFile], Prepared]]:
    """Every batch with its prepared pictures (B, 3, h, w), decoded ahead of the network.

    Unreadable pictures are left out of their batch, which may leave it empty, and told of together
    at the end.
    """
    problems: dict[str, DataError] = {}
    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
        waiting: deque[list[tuple[ImageFile, Future[Prepared]]]] = deque()
        source = iter(batches)
        try:
            while True:
                while len(waiting) < _AHEAD and (batch := next(source, None)) is not None:
                    waiting.append(
                        [(f, pool.submit(lambda p: prepare(read_image(p)), f.path)) for f in batch]
                    )
                if not waiting:
                    break
                files, arrays = [], []
                for file, future in waiting.popleft():
                    try:
                        arrays.append(future.result())
                        files.append(file)
                    except DataError as error:
                        problems[file.sha256] = error
                yield files, np.stack(arrays) if arrays else np.empty((0, 3, 0, 0), np.float32)
        finally:
            pool.shutdown(cancel_futures=True)
    if problems:
        errors = list(problems.values())
        more = f"\nand {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        raise DataError(
            f"{len(errors)} images cannot be read:\n"
            + "\n".join(error.message for error in errors[:_NAMED])
            + more,
            hint="mend or remove them; the features of all others are kept",
        )


def _require_finite(row: npt.NDArray[np.float32], file: ImageFile, name: str) -> None:
    if not np.isfinite(row).all():
        raise NumericsError(
            f"{name} gives values that are not finite for '{file.path}'",
            hint="check the weights; on a GPU, look for other errors of the device",
        )


def _pair_key(pair: Pair) -> str:
    return text_sha256(" ".join(sorted(file.sha256 for file in pair)))
