"""The row store: whole shards, several writers, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.metrics import store as module
from siamese_diffusion.metrics.store import RowStore


def key(number: int) -> str:
    return f"{number:064x}"


def test_rows_come_back_in_the_asked_order_from_another_process(tmp_path: Path) -> None:
    first = RowStore(tmp_path, "net", 3)
    for number in range(5):
        first.add(key(number), np.full(3, number, np.float32))
    first.flush()
    second = RowStore(tmp_path, "net", 3)
    assert second.missing([key(4), key(9), key(9), key(0)]) == [key(9)]
    np.testing.assert_array_equal(second.rows([key(4), key(0), key(4)])[:, 0], [4, 0, 4])


def test_shards_are_written_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD", 2)
    store = RowStore(tmp_path, "net", 1)
    for number in range(5):
        store.add(key(number), np.array([number], np.float32))
    assert RowStore(tmp_path, "net", 1).missing([key(n) for n in range(5)]) == [key(4)]
    np.testing.assert_array_equal(store.rows([key(n) for n in range(5)])[:, 0], range(5))


def test_other_networks_and_widths_have_other_stores(tmp_path: Path) -> None:
    store = RowStore(tmp_path, "net", 1)
    store.add(key(0), np.zeros(1, np.float32))
    store.flush()
    assert RowStore(tmp_path, "other", 1).missing([key(0)]) == [key(0)]
    assert RowStore(tmp_path, "net", 2).missing([key(0)]) == [key(0)]


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    store = RowStore(tmp_path, "net", 1)
    store.add(key(0), np.zeros(1, np.float32))
    store.flush()
    (shard,) = store.folder.glob("*.npz")
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(OutputError, match=rf"{shard.name}' of the feature cache is damaged"):
        RowStore(tmp_path, "net", 1)
