"""Order of the screens: balanced, seeded, different for each rater."""

from __future__ import annotations

from itertools import pairwise

import pytest

from siamese_diffusion.mos.screens import screen_order

GROUPS = {name: [f"{name}{i}" for i in range(50)] for name in ("real", "a", "b")}


def without_repeats(order: list[str]) -> list[str]:
    return list(dict.fromkeys(order))


def test_every_item_is_shown_once_and_repeats_twice() -> None:
    order = screen_order(GROUPS, 5, 0, "rater-1")
    assert len(order) == 155
    assert sorted(set(order)) == sorted(item for group in GROUPS.values() for item in group)
    assert len({item for item in order if order.count(item) == 2}) == 5


def test_order_is_a_function_of_seed_and_rater() -> None:
    order = screen_order(GROUPS, 5, 0, "rater-1")
    assert order == screen_order(GROUPS, 5, 0, "rater-1")
    assert order != screen_order(GROUPS, 5, 1, "rater-1")
    assert order != screen_order(GROUPS, 5, 0, "rater-2")


def test_sources_stay_mixed_from_first_to_last_screen() -> None:
    order = without_repeats(screen_order(GROUPS, 5, 3, "rater-1"))
    for start in range(0, 150, 6):
        block = order[start : start + 6]
        assert all(sum(item.startswith(name) for item in block) == 2 for name in GROUPS)


@pytest.mark.parametrize("seed", range(20))
def test_repeats_come_back_late_and_from_all_sources_in_turn(seed: int) -> None:
    order = screen_order(GROUPS, 6, seed, "rater-1")
    again = [item for item in GROUPS["real"] + GROUPS["a"] + GROUPS["b"] if order.count(item) == 2]
    assert sorted(item[0] for item in again) == ["a", "a", "b", "b", "r", "r"]
    for item in again:
        first = order.index(item)
        second = len(order) - 1 - order[::-1].index(item)
        assert second - first > 150 // 4


def test_first_screen_is_of_any_source() -> None:
    firsts = [
        screen_order(GROUPS, 0, seed, "rater-1")[0].rstrip("0123456789") for seed in range(60)
    ]
    assert {name: firsts.count(name) > 8 for name in GROUPS} == dict.fromkeys(GROUPS, True)


def test_smallest_study_takes_as_many_repeats_as_fit_its_first_half() -> None:
    small = {"real": ["r0", "r1"], "a": ["a0", "a1"]}
    order = screen_order(small, 2, 0, "rater-1")
    assert len(order) == 6
    assert all(a != b for a, b in pairwise(order))
