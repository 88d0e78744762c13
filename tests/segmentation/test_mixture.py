from __future__ import annotations

from pathlib import Path

import pytest

from sampling.painting import PaintingPipeline, write_masks
from segmentation.sets import write_run, write_synthetic
from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.sampling.bulk import sample_with
from siamese_diffusion.sampling.settings import SampleSettings
from siamese_diffusion.segmentation.mixture import mix
from siamese_diffusion.segmentation.provenance import prefer_folds, read_provenance


@pytest.fixture(scope="module")
def real(phantoms: Path) -> PairFolder:
    return PairFolder.open(phantoms, split="train")


@pytest.fixture(scope="module")
def synthetic(real: PairFolder, tmp_path_factory: pytest.TempPathFactory) -> PairFolder:
    root = tmp_path_factory.mktemp("sets")
    run = write_run(root / "run", real)
    return PairFolder.open(write_synthetic(root / "synthetic", real, folds=3, run=run))


def test_real_pairs_alone_are_each_used_once(real: PairFolder) -> None:
    assert mix(real).composition == {"real": len(real), "synthetic": 0}


def test_copy_paste_uses_every_real_pair_twice(real: PairFolder) -> None:
    mixture = mix(real, copy_paste=True)
    assert mixture.composition == {"real": 2 * len(real), "synthetic": 0}
    assert len(set(mixture.entries)) == len(real)


@pytest.mark.parametrize(("ratio", "folds"), [(None, 1.0), (1.0, 1.0), (2.5, 2.5), (0.5, 0.5)])
def test_a_ratio_counts_synthetic_pairs_for_each_real_one(
    real: PairFolder, synthetic: PairFolder, ratio: float | None, folds: float
) -> None:
    mixture = mix(real, synthetic, ratio=ratio)
    assert mixture.composition == {"real": len(real), "synthetic": round(folds * len(real))}


def test_whole_folds_come_before_parts_of_the_next(real: PairFolder, synthetic: PairFolder) -> None:
    known = read_provenance(synthetic)
    assert known is not None
    rows = [row for kind, row in mix(real, synthetic, ratio=1.5).entries if kind == "synthetic"]
    folds = [known.items[synthetic.stems[row]].fold for row in rows]
    assert folds == [0] * len(real) + [1] * (len(rows) - len(real))


def test_which_part_of_a_fold_depends_on_the_seed_alone(
    real: PairFolder, synthetic: PairFolder
) -> None:
    half = [mix(real, synthetic, ratio=0.5, seed=seed).entries for seed in (0, 0, 1)]
    assert half[0] == half[1] != half[2]
    assert sorted(prefer_folds(synthetic, None, 0)) == list(range(len(synthetic)))


def test_synthetic_pairs_alone_take_all_there_are_unless_told(
    real: PairFolder, synthetic: PairFolder
) -> None:
    everything = mix(real, synthetic, only_synthetic=True)
    assert everything.composition == {"real": 0, "synthetic": len(synthetic)}
    some = mix(real, synthetic, only_synthetic=True, ratio=1.0)
    assert some.composition == {"real": 0, "synthetic": len(real)}


def test_more_synthetic_pairs_than_there_are_name_the_largest_ratio(
    real: PairFolder, synthetic: PairFolder
) -> None:
    with pytest.raises(ConfigError, match=rf"asks for {4 * len(real)} synthetic pairs") as error:
        mix(real, synthetic, ratio=4.0)
    assert error.value.hint is not None and "--ratio 3 at most" in error.value.hint


@pytest.mark.parametrize("ratio", [0.0, -1.0, 101.0, float("nan")])
def test_a_ratio_out_of_range_is_refused(
    real: PairFolder, synthetic: PairFolder, ratio: float
) -> None:
    with pytest.raises(ConfigError, match=f"--ratio {ratio:g} is out of range"):
        mix(real, synthetic, ratio=ratio)


def test_options_without_a_synthetic_set_are_refused(real: PairFolder) -> None:
    with pytest.raises(ConfigError, match="--ratio needs a synthetic set"):
        mix(real, ratio=1.0)
    with pytest.raises(ConfigError, match="--only-synthetic needs a synthetic set"):
        mix(real, only_synthetic=True)


def test_copy_paste_and_synthetic_pairs_exclude_one_another(
    real: PairFolder, synthetic: PairFolder
) -> None:
    with pytest.raises(ConfigError, match="--copy-paste duplicates the real set"):
        mix(real, synthetic, copy_paste=True)


def test_a_set_says_where_it_came_from(real: PairFolder, synthetic: PairFolder) -> None:
    known = read_provenance(synthetic)
    assert known is not None and known.trained_on is not None
    assert known.trained_on.stems == real.stems
    assert known.run_fingerprint == real.fingerprint()
    assert {item.origin for item in known.items.values()} == set(real.stems)


def test_a_set_without_manifest_works_and_is_unknown(real: PairFolder, tmp_path: Path) -> None:
    folder = PairFolder.open(write_synthetic(tmp_path / "s", real, manifest=False))
    mixture = mix(real, folder)
    assert mixture.known is None and mixture.composition["synthetic"] == len(real)


def test_a_manifest_that_lacks_pairs_is_refused(real: PairFolder, tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "s", real)
    lines = (root / "manifest.jsonl").read_text().splitlines(keepends=True)
    (root / "manifest.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(DataError, match=rf"does not name 1 of {len(real)} pairs, e\.g\. '"):
        read_provenance(PairFolder.open(root))


def test_a_set_of_the_bulk_sampler_is_understood(tmp_path: Path) -> None:
    masks = write_masks(tmp_path / "masks", 3)
    settings = SampleSettings(recipe="random", folds=2)
    sample_with(PaintingPipeline(), masks, tmp_path / "s", settings=settings, progress=False)
    folder = PairFolder.open(tmp_path / "s")
    known = read_provenance(folder)
    assert known is not None and known.recipe == "random" and known.trained_on is None
    assert known.items["m01_r1"].origin == "m01" and known.items["m01_r1"].fold == 1
    assert known.items["m01_r1"].mask_sha256 == file_sha256(masks / "m01.png")
