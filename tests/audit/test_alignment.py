"""Do images show their masks? Dice by hand, shuffled masks, and phantoms against themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from siamese_diffusion.audit import alignment as module
from siamese_diffusion.audit.alignment import alignment, dice
from siamese_diffusion.audit.segmenter import derangement
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.pairs import PairFolder


def boolean(*rows: str) -> Tensor:
    """One map, (1, 1, H, W); # is foreground."""
    return torch.tensor([[[[pixel == "#" for pixel in row] for row in rows]]])


@pytest.mark.parametrize(
    ("predicted", "mask", "value"),
    [
        (boolean("##", ".."), boolean("##", ".."), 1.0),
        (boolean("##", ".."), boolean("..", "##"), 0.0),
        (boolean("##", ".."), boolean("#.", "#."), 2 * 1 / 4),
        (boolean("##", "#."), boolean("#.", ".."), 2 * 1 / 4),
        (boolean("##", "##"), boolean("#.", ".."), 2 * 1 / 5),
        (boolean("..", ".."), boolean("..", ".."), 1.0),  # nothing there, nothing found
        (boolean("#.", ".."), boolean("..", ".."), 0.0),
        (boolean("..", ".."), boolean("#.", ".."), 0.0),
    ],
)
def test_dice_is_twice_the_overlap_over_both_areas(
    predicted: Tensor, mask: Tensor, value: float
) -> None:
    torch.testing.assert_close(dice(predicted, mask), torch.tensor([value]))
    torch.testing.assert_close(dice(mask, predicted), torch.tensor([value]))


def test_dice_is_taken_per_image() -> None:
    predicted = torch.cat([boolean("#."), boolean("#."), boolean("..")])
    mask = torch.cat([boolean("#."), boolean(".#"), boolean("..")])
    assert dice(predicted, mask).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("n", [2, 3, 7, 100])
def test_shuffling_leaves_no_mask_in_its_place(n: int) -> None:
    for seed in range(20):
        order = derangement(n, seed)
        assert sorted(order) == list(range(n))
        assert all(place != there for place, there in enumerate(order))


def test_shuffling_depends_on_the_seed_alone() -> None:
    assert derangement(50, 1) == derangement(50, 1)
    assert derangement(50, 1) != derangement(50, 2)


def test_phantoms_score_higher_with_their_own_masks(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    told: list[tuple[int, int]] = []
    found = alignment(
        folder, folder, folder, size=32, steps=30, progress=lambda *at: told.append(at)
    )
    own, shuffled = found["dice_on_synthetic"], found["dice_on_shuffled"]
    assert isinstance(own, float) and isinstance(shuffled, float)
    assert own > shuffled + 0.1
    assert found["dice_on_real"] == own  # the same pairs
    assert found["n_synthetic"] == found["n_real_held_out"] == found["n_real_train"] == 20
    assert (found["segmenter_size_px"], found["segmenter_steps"], found["seed"]) == (32, 30, 0)
    assert told == [(step, 30) for step in range(1, 31)]


def test_the_numbers_depend_on_the_seed_alone(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms)
    one = alignment(folder, folder, folder, size=16, steps=20)
    assert alignment(folder, folder, folder, size=16, steps=20) == one
    assert alignment(folder, folder, folder, size=16, steps=20, seed=1) != {**one, "seed": 1}


def test_the_caller_s_random_numbers_are_left_alone(phantoms: Path) -> None:
    folder = PairFolder.open(phantoms, split="val")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    alignment(folder, folder, folder, size=16, steps=1)
    assert torch.equal(torch.rand(4), expected)


def test_fewer_than_two_pairs_are_refused_before_any_training(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise AssertionError("trained before it looked")

    monkeypatch.setattr(module, "train_segmenter", train)
    folder = PairFolder.open(phantoms)
    one = folder.without(folder.stems[1:])
    with pytest.raises(DataError, match=r"phantoms' has 1 pairs; alignment needs 2 or more"):
        alignment(folder, folder, one)


@pytest.mark.parametrize("size", [0, 20, -8])
def test_a_size_that_the_network_cannot_halve_is_refused(phantoms: Path, size: int) -> None:
    folder = PairFolder.open(phantoms, split="val")
    with pytest.raises(DataError, match=rf"size {size} .* multiple of 8"):
        alignment(folder, folder, folder, size=size, steps=1)


def test_masks_of_grey_images_teach_where_the_foreground_is(tmp_path: Path) -> None:
    """A segmenter of bright squares finds bright squares that it has not seen."""
    from PIL import Image

    for part, seed in (("train", 0), ("new", 1)):
        rng = np.random.default_rng(seed)
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
        for i in range(12):
            top, left = rng.integers(0, 20, 2)
            mask = np.zeros((32, 32), np.uint8)
            mask[top : top + 12, left : left + 12] = 255
            image = np.where(mask[..., None] > 0, 220, 40) + rng.integers(-20, 20, (32, 32, 3))
            Image.fromarray(mask).save(tmp_path / part / "masks" / f"{i}.png")
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / part / "images" / f"{i}.png")
    train, new = PairFolder.open(tmp_path / "train"), PairFolder.open(tmp_path / "new")
    found = alignment(train, new, new, size=32, steps=25)
    assert isinstance(found["dice_on_synthetic"], float)
    assert found["dice_on_synthetic"] > 0.9
    assert found["share_above_own_shuffled"] == 1.0
