"""One progress bar for all long work, on standard error, silent when it is not wanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 30.0  # without a terminal, one line at most this often


class ProgressBar:
    """A bar on a terminal, an occasional line in a log file.

    Args:
        label: What is being done.
        total: Number of units.
        enabled: False prints nothing.
    """

    def __init__(self, label: str, total: int, *, enabled: bool = True) -> None:
        self._label = label
        self._total = total
        self._enabled = enabled
        self._terminal = enabled and sys.stderr.isatty()
        self._said = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> ProgressBar:
        if self._terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(self._label, total=self._total, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance_to(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """Show that `done` units are finished, with a few named numbers."""
        if not self._enabled:
            return
        note = "  ".join(f"{name} {value:.4f}" for name, value in (values or {}).items())
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._said > _PLAIN_SECONDS or done == self._total:
            self._said = time.monotonic()
            print(f"{self._label}: {done}/{self._total}  {note}", file=sys.stderr, flush=True)
