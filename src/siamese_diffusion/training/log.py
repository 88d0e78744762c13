"""Where a run's numbers go: JSON lines always, TensorBoard when installed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from siamese_diffusion.core.artifacts import (
    append_jsonl,
    atomic_write_text,
    make_folder,
    read_jsonl,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Append-only log of one run.

    Args:
        path: The JSON-lines file.
        tensorboard: Folder for TensorBoard events, or None.
        active: False on processes other than the first: nothing is written.
    """

    def __init__(self, path: Path, *, tensorboard: Path | None, active: bool) -> None:
        self._path = path
        self._active = active
        self._started = time.time()
        self._writer: SummaryWriter | None = None
        if active:
            make_folder(path.parent)
        if active and tensorboard is not None:
            self._writer = _open_tensorboard(tensorboard)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`: they will be written again by the resumed run."""
        if not self._active or not self._path.exists():
            return
        import json

        kept = [r for r in read_jsonl(self._path) if int(str(r.get("step", 0))) <= step]
        atomic_write_text(
            self._path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept)
        )

    def event(self, event: str, step: int, values: Mapping[str, object] | None = None) -> None:
        """Write one line; numbers also go to TensorBoard under `event/name`."""
        if not self._active:
            return
        values = values or {}
        seconds = round(time.time() - self._started, 3)
        append_jsonl(self._path, {"event": event, "step": step, "seconds": seconds, **values})
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{event}/{name}", value, step)


def _open_tensorboard(folder: Path) -> SummaryWriter | None:
    # A broken installation (protobuf, a half-removed TensorFlow) must not stop a training.
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, RuntimeError, OSError, AttributeError, TypeError):
        return None
    return SummaryWriter(str(folder))
