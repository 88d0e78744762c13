"""One process at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siamese_diffusion.core.artifacts import make_folder
from siamese_diffusion.core.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has no such lock; there two processes must be kept apart by hand
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path, *, wanted: bool = True) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    The lock is on the folder itself, so that it leaves no file behind.

    Args:
        folder: Made if it is not there.
        wanted: False holds nothing, for the other processes of one training.

    Raises:
        OutputError: If another process holds it.
    """
    if not wanted or fcntl is None:
        yield
        return
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is working in '{folder}'",
                hint="wait until it has ended, or give another --out",
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
