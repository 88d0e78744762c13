"""Random masks: reproducible, and the lesion is never lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from siamese_diffusion.data.mask_recipes import apply_transform, make_mask, transform_mask
from siamese_diffusion.data.settings import RandomRecipe

STILL = RandomRecipe(flip_horizontal=0.0, flip_vertical=0.0)


def lesion(top: int, left: int, height: int, width: int, side: int = 96) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[top : top + height, left : left + width] = 255
    mask[top, left] = 0  # a missing corner tells the flips apart
    return mask


CASES = {
    "central": lesion(40, 36, 20, 28),
    "near a corner": lesion(1, 1, 20, 28),
    "cut by the border": lesion(0, 30, 20, 28),
    "whole width": lesion(30, 0, 20, 96),
    "tiny": lesion(50, 50, 2, 2),
    "huge": lesion(2, 2, 92, 92),
    "full": np.full((96, 96), 255, np.uint8),
    "not square": lesion(20, 20, 30, 30)[:64],
}


@pytest.mark.parametrize("case", CASES)
def test_limits_hold_for_every_seed(case: str) -> None:
    mask, recipe = CASES[case], RandomRecipe()
    before = np.count_nonzero(mask) / mask.size
    for seed in range(60):
        moved, record = transform_mask(mask, seed=seed, recipe=recipe)
        assert moved.shape == mask.shape
        assert moved.dtype == np.uint8
        assert set(np.unique(moved)) <= {0, 255}
        share = np.count_nonzero(moved) / moved.size
        assert share > 0
        assert record["cut"] <= recipe.max_cut
        assert min(recipe.min_area, before) <= share <= max(recipe.max_area, before)
        assert record["area"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_record_redraws_the_mask_after_a_trip_through_json(case: str) -> None:
    mask = CASES[case]
    for seed in range(20):
        moved, record = transform_mask(mask, seed=seed, recipe=RandomRecipe())
        again = apply_transform(mask, json.loads(json.dumps(record)))
        np.testing.assert_array_equal(again, moved)


def test_equal_seeds_give_equal_masks_and_other_seeds_others() -> None:
    mask = CASES["central"]
    first = transform_mask(mask, seed=5, recipe=RandomRecipe())
    second = transform_mask(mask, seed=5, recipe=RandomRecipe())
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]
    drawn = {transform_mask(mask, seed=s, recipe=RandomRecipe())[0].tobytes() for s in range(20)}
    assert len(drawn) == 20


def test_flips_alone_are_exact() -> None:
    mask = CASES["near a corner"]
    both = RandomRecipe(flip_horizontal=1.0, flip_vertical=1.0, scale=(1.0, 1.0), shift=(0.0, 0.0))
    np.testing.assert_array_equal(transform_mask(mask, seed=0, recipe=both)[0], mask[::-1, ::-1])


def test_shift_and_scale_do_what_the_record_says() -> None:
    mask = lesion(40, 36, 20, 28)
    shifted = apply_transform(mask, {"shift_y": 0.125, "shift_x": -0.25})
    np.testing.assert_array_equal(shifted, np.roll(mask, (12, -24), (0, 1)))
    doubled = apply_transform(mask, {"scale": 2.0})
    assert np.count_nonzero(doubled) == pytest.approx(4 * np.count_nonzero(mask), rel=0.01)


def test_a_record_holds_at_another_size() -> None:
    small, record = transform_mask(CASES["central"], seed=3, recipe=RandomRecipe())
    large = apply_transform(np.kron(CASES["central"], np.ones((4, 4), np.uint8)), record)
    assert (large[2::4, 2::4] != small).mean() < 0.03


def test_wild_ranges_fall_back_to_gentler_draws_and_say_so() -> None:
    wild = RandomRecipe(scale=(1.0, 9.0), shift=(-0.9, 0.9), max_cut=0.0, attempts=1)
    records = [transform_mask(CASES["huge"], seed=s, recipe=wild)[1] for s in range(40)]
    assert min(float(r["gentleness"]) for r in records) == 0.0
    assert all(r["cut"] == 0.0 for r in records)


def test_a_lesion_cut_by_the_border_stays_at_that_border() -> None:
    mask = CASES["cut by the border"]
    for seed in range(30):
        moved, _ = transform_mask(mask, seed=seed, recipe=STILL)
        assert moved[0].any()
    free = STILL.model_copy(update={"keep_border": False})
    assert not all(transform_mask(mask, seed=s, recipe=free)[0][0].any() for s in range(30))


def test_an_empty_mask_is_returned_empty() -> None:
    moved, record = transform_mask(np.zeros((8, 8), np.uint8), seed=0, recipe=RandomRecipe())
    assert not moved.any()
    assert (record["area"], record["draws"]) == (0.0, 0)


def test_recipe_real_gives_the_mask_itself() -> None:
    mask, record = make_mask(CASES["central"], seed=3, name="real")
    np.testing.assert_array_equal(mask, CASES["central"])
    np.testing.assert_array_equal(apply_transform(CASES["central"], record), mask)
