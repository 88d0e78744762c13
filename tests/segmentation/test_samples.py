from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segmentation.sets import write_synthetic
from siamese_diffusion.core.seeding import generator
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.colour import statistics
from siamese_diffusion.segmentation.mixture import Mixture, mix
from siamese_diffusion.segmentation.samples import colour_pools, load_mixture, recoloured
from siamese_diffusion.segmentation.settings import ColourSettings


@pytest.fixture(scope="module")
def real(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    """Phantoms of five centres with metadata that says which."""
    import shutil

    root = tmp_path_factory.mktemp("data") / "set"
    shutil.copytree(phantoms, root)
    stems = PairFolder.open(root).stems
    rows = [f"{stem},{stem.split('_')[1]}" for stem in stems]
    (root / "manifest.csv").write_text("stem,subset\n" + "\n".join(rows) + "\n")
    return PairFolder.open(root, split="train")


@pytest.fixture(scope="module")
def mixture(real: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    root = write_synthetic(tmp_path_factory.mktemp("sets") / "s", real)
    return mix(real, PairFolder.open(root), ratio=0.5)


def test_every_distinct_pair_is_decoded_once(mixture: Mixture) -> None:
    samples, rows = load_mixture(mixture, 64)
    assert len(samples) == len(mixture) and sorted(rows) == list(range(len(mixture)))
    kinds = [bool(samples.synthetic[row]) for row in rows]
    assert kinds == [kind == "synthetic" for kind, _ in mixture.entries]
    first = mixture.real
    assert np.array_equal(samples.mask[rows[0]].numpy(), first.mask(0, 64))
    assert np.array_equal(samples.image[rows[0]].permute(1, 2, 0).numpy(), first.image(0))


def test_duplicated_pairs_share_their_memory(real: PairFolder) -> None:
    samples, rows = load_mixture(mix(real, copy_paste=True), 64)
    assert len(samples) == len(real) and len(rows) == 2 * len(real)


def test_rows_of_synthetic_pairs_show_their_own_pictures(mixture: Mixture) -> None:
    samples, rows = load_mixture(mixture, 64)
    assert mixture.synthetic is not None
    for (kind, source), row in zip(mixture.entries, rows, strict=True):
        folder = mixture.real if kind == "real" else mixture.synthetic
        assert np.array_equal(samples.mask[row].numpy(), folder.mask(source, 64))


def test_pools_follow_the_metadata_and_not_the_names(mixture: Mixture) -> None:
    samples, rows = load_mixture(mixture, 64)
    settings = ColourSettings(exchange=True, first_pool=("a", "b"))
    pools = colour_pools(mixture, samples, settings)
    for (kind, source), row in zip(mixture.entries, rows, strict=True):
        centre = mixture.real.stems[source].split("_")[1] if kind == "real" else "synthetic"
        assert (row in pools.first) == (centre in ("a", "b"))
        assert (row in pools.second) != (row in pools.first)


def test_synthetic_pairs_can_be_pooled_by_the_origin_of_their_masks(mixture: Mixture) -> None:
    samples, rows = load_mixture(mixture, 64)
    settings = ColourSettings(exchange=True, first_pool=("a",), synthetic_pool="origin")
    pools = colour_pools(mixture, samples, settings)
    assert mixture.synthetic is not None
    synthetic = [
        (row, mixture.synthetic.stems[source])
        for (kind, source), row in zip(mixture.entries, rows, strict=True)
        if kind == "synthetic"
    ]
    assert all((row in pools.first) == (stem.split("_")[1] == "a") for row, stem in synthetic)


def test_partners_are_drawn_from_the_first_pool_seven_times_in_ten(mixture: Mixture) -> None:
    samples, _ = load_mixture(mixture, 64)
    settings = ColourSettings(exchange=True, first_pool=("a", "b"))
    pools = colour_pools(mixture, samples, settings)
    partners = [pools.partner(3, settings, generator(0, "t", i)) for i in range(600)]
    assert len(set(partners)) == 2  # one a pool: the row decides which member
    assert np.mean([p in pools.first for p in partners]) == pytest.approx(0.7, abs=0.06)


def test_an_empty_pool_falls_back_to_the_other(mixture: Mixture) -> None:
    samples, _ = load_mixture(mixture, 64)
    settings = ColourSettings(exchange=True, first_pool=("nowhere",), first_share=1.0)
    pools = colour_pools(mixture, samples, settings)
    assert pools.first == () and pools.partner(1, settings, generator(0, "t")) in pools.second


def test_a_recoloured_image_has_its_partners_colours(mixture: Mixture) -> None:
    samples, _ = load_mixture(mixture, 64)
    settings = ColourSettings(exchange=True, first_pool=("a",), first_share=1.0)
    pools = colour_pools(mixture, samples, settings)
    image = recoloured(samples, pools, 2, settings, 0, 5, 1)
    partner = pools.partner(2, settings, generator(0, "colour", 5, 1))
    found = statistics(image.permute(1, 2, 0).numpy())
    np.testing.assert_allclose(found[0], pools.statistics[partner][0], atol=4)
    assert torch.equal(image, recoloured(samples, pools, 2, settings, 0, 5, 1))
