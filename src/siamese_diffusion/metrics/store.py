"""Rows of numbers on disk by content hash, so that no picture goes through a network twice.

One folder per extractor and resize. Rows arrive in shards, each written whole; several processes
may write into one store, and a killed one loses at most its last shard.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.artifacts import atomic_write_bytes, make_folder, text_sha256
from siamese_diffusion.core.errors import OutputError

Rows = npt.NDArray[np.float32]
FORMAT: Final = 1  # raised when the same picture and extractor would give other rows
_SHARD: Final = 256  # rows kept in memory before they are written


class RowStore:
    """Rows (width,) float32 by key.

    Args:
        root: Cache folder; the store is a folder in it.
        identity: All that determines a row but the picture, in words.
        width: Of every row.
    """

    def __init__(self, root: Path, identity: str, width: int) -> None:
        self.folder = Path(root) / text_sha256(f"{FORMAT} {identity} {width}")[:32]
        self._width = width
        self._pending: dict[str, Rows] = {}
        self._where: dict[str, tuple[Path, int]] = {}
        for shard in sorted(self.folder.glob("*.npz")):
            for row, key in enumerate(_read(shard, "keys")):
                self._where[key.decode()] = (shard, row)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The keys without a row, each once, in order."""
        return [k for k in dict.fromkeys(keys) if k not in self._where and k not in self._pending]

    def add(self, key: str, row: Rows) -> None:
        """Keep a row; it is on disk after the next shard or `flush`."""
        self._pending[key] = np.asarray(row, dtype=np.float32)
        if len(self._pending) >= _SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            OutputError: If the cache cannot be written.
        """
        if not self._pending:
            return
        make_folder(self.folder)
        shard = self.folder / f"{uuid.uuid4().hex}.npz"
        buffer = BytesIO()
        keys = list(self._pending)
        np.savez(
            buffer, keys=np.array(keys, dtype="S64"), rows=np.stack(list(self._pending.values()))
        )
        atomic_write_bytes(shard, buffer.getvalue())
        self._where.update({key: (shard, row) for row, key in enumerate(keys)})
        self._pending.clear()

    def rows(self, keys: Sequence[str]) -> Rows:
        """The rows of all keys, (n, width); each must be there. Shards are read one at a time."""
        result = np.empty((len(keys), self._width), dtype=np.float32)
        self.flush()
        for shard, wanted in self._by_shard(keys):
            content = _read(shard, "rows")
            for place, row in wanted:
                result[place] = content[row]
        return result

    def _by_shard(self, keys: Sequence[str]) -> Iterator[tuple[Path, list[tuple[int, int]]]]:
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for place, key in enumerate(keys):
            shard, row = self._where[key]
            wanted.setdefault(shard, []).append((place, row))
        yield from wanted.items()


def _read(shard: Path, name: str) -> npt.NDArray[Any]:
    """One array of a shard; the other stays on disk."""
    try:
        with np.load(shard, allow_pickle=False) as content:
            found: npt.NDArray[Any] = content[name]
            return found
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise OutputError(
            f"'{shard}' of the feature cache is damaged ({error})",
            hint="delete this file; what it held is computed again",
        ) from error
