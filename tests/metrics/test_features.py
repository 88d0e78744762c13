"""Pictures through networks: batches, cache, unreadable files, values that are not finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metrics.pictures import write_images
from siamese_diffusion.core.errors import DataError, NumericsError
from siamese_diffusion.metrics.extractors import Extractor, Perceptual
from siamese_diffusion.metrics.features import NetworkBench, run_distances, run_features
from siamese_diffusion.metrics.nets.lpips import Lpips
from siamese_diffusion.metrics.sets import ImageSet, open_set
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.store import RowStore

CPU = torch.device("cpu")


class MeanColour(torch.nn.Module):
    """Counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return x.mean((2, 3))


def extractor() -> tuple[Extractor, MeanColour]:
    network = MeanColour()
    return Extractor(
        name="mean",
        sha256="0" * 64,
        width=3,
        resize="none",
        prepare=lambda image: image.transpose(2, 0, 1).astype(np.float32),
        network=network,
    ), network


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return open_set(write_images(tmp_path / "a", 7))


def test_features_are_those_of_each_file(images: ImageSet, tmp_path: Path) -> None:
    net, counted = extractor()
    store = RowStore(tmp_path / "cache", "x", 3)
    run_features(net, images.files, store, batch_size=3, device=CPU)
    assert counted.batches == [3, 3, 1]
    from siamese_diffusion.data.images import read_image

    expected = [read_image(file.path).mean((0, 1)) for file in images.files]
    rows = store.rows([file.sha256 for file in images.files])
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_unreadable_files_are_all_named_and_the_others_kept(
    images: ImageSet, tmp_path: Path
) -> None:
    for index in (1, 5):
        path = images.files[index].path
        path.write_bytes(path.read_bytes()[:200])
    net, _ = extractor()
    store = RowStore(tmp_path / "cache", "x", 3)
    with pytest.raises(DataError, match=r"2 images cannot be read:\n.*p001.*\n.*p005"):
        run_features(net, images.files, store, batch_size=1, device=CPU)
    keys = [file.sha256 for file in images.files]
    assert RowStore(tmp_path / "cache", "x", 3).missing(keys) == [keys[1], keys[5]]


def test_interrupted_work_keeps_what_was_done(images: ImageSet, tmp_path: Path) -> None:
    net, _ = extractor()
    store = RowStore(tmp_path / "cache", "x", 3)

    def stop(done: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_features(net, images.files, store, batch_size=2, device=CPU, progress=stop)
    keys = [file.sha256 for file in images.files]
    assert RowStore(tmp_path / "cache", "x", 3).missing(keys) == keys[4:]


def test_values_that_are_not_finite_are_told_with_their_picture(
    images: ImageSet, tmp_path: Path
) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / 0 * 0

    net, _ = extractor()
    broken = Extractor(net.name, net.sha256, 3, net.resize, net.prepare, Broken())
    with pytest.raises(NumericsError, match=r"mean gives values that are not finite .*p000\.png'"):
        run_features(broken, images.files, RowStore(tmp_path, "x", 3), batch_size=4, device=CPU)


def test_bench_computes_each_picture_once(images: ImageSet, tmp_path: Path) -> None:
    settings = ScoreSettings(fidelity="random", size=32)
    for _ in range(2):
        bench = NetworkBench(settings, {}, cache=tmp_path / "cache", device=CPU, progress=False)
        rows = bench.features("fidelity", images)
        assert rows.shape == (7, 64)
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(list(folder.glob("*.npz"))) == 1  # the second bench had nothing to add
    part = bench.features("fidelity", images.subset([5, 2]))
    np.testing.assert_array_equal(part, rows[[2, 5]])


def test_distances_are_those_of_single_pairs_whatever_the_batch(
    images: ImageSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = Lpips("alex").eval()
    for weight in network.lin:
        torch.nn.init.uniform_(weight)
    perceptual = Perceptual(
        "lpips",
        "0" * 64,
        "none",
        lambda image: image.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1,
        network,
    )
    files = images.files
    pairs = [(files[a], files[b]) for a, b in ((0, 1), (1, 2), (2, 0), (3, 3), (4, 5))]
    found = []
    for batch_size in (2, 8):
        store = RowStore(tmp_path / str(batch_size), "x", 1)
        run_distances(perceptual, pairs, store, batch_size=batch_size, device=CPU)
        assert len(store.missing([])) == 0
        from siamese_diffusion.metrics.features import _pair_key

        found.append(store.rows([_pair_key(pair) for pair in pairs])[:, 0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-7)
    assert found[0][3] == 0.0
    assert (found[0][[0, 1, 2, 4]] > 0).all()
