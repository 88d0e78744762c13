"""Who works on what: lock files that the kernel releases when their holder dies.

A claim is an exclusive `flock` on a small file, so a killed worker leaves no stale claim behind;
the file may stay, the lock does not. Files are deleted only by whoever holds their lock, and a
lock that was won on a file deleted meanwhile is given up and taken again. Works on local disks
and on network file systems that pass `flock` on (NFS 4, Lustre with `-o flock`). Knows nothing of
plans and images.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siamese_diffusion.core.artifacts import make_folder, output_error
from siamese_diffusion.core.errors import OutputError


@dataclass(frozen=True)
class Claim:
    """A held lock; release it exactly once, from any thread."""

    path: Path
    descriptor: int

    def release(self) -> None:
        """Delete the lock file, then let go of it, in this order."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Claims:
    """The locks of one output folder.

    Args:
        folder: Where the lock files live; created on the first claim.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, name: str) -> Claim:
        """Wait until `name` is free and claim it."""
        claim = self._claim(name, wait=True)
        assert claim is not None
        return claim

    def attempt(self, name: str) -> Claim | None:
        """Claim `name`, or None while somebody else holds it."""
        return self._claim(name, wait=False)

    def attempt_all(self, names: Sequence[str]) -> list[Claim] | None:
        """Claim all of `names` or nothing; never waits, so workers cannot block each other."""
        held: list[Claim] = []
        try:
            for name in names:
                claim = self.attempt(name)
                if claim is None:
                    break
                held.append(claim)
            else:
                return held
        except BaseException:
            release_all(held)
            raise
        release_all(held)
        return None

    def wait_for_others(self, *, but: str) -> None:
        """Return once every lock seen now except `but` was free; clears dead lock files."""
        for path in sorted(self._folder.glob("*.lock")):
            if path.stem != but:
                self.hold(path.stem).release()

    def remove_folder(self) -> None:
        """Delete the folder if nothing is left in it."""
        try:
            self._folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise output_error(self._folder, error) from error

    def _claim(self, name: str, *, wait: bool) -> Claim | None:
        path = self._folder / f"{name}.lock"
        mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            self._make_folder()
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # another worker finished and removed the folder in between
            except OSError as error:
                raise output_error(path, error) from error
            try:
                fcntl.flock(descriptor, mode)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError as error:
                os.close(descriptor)
                raise OutputError(
                    f"'{path}' cannot be locked ({error.strerror})",
                    hint="choose an output folder on a disk that supports file locks (flock)",
                ) from error
            except BaseException:
                os.close(descriptor)
                raise
            if _is_current(path, descriptor):
                return Claim(path, descriptor)
            os.close(descriptor)  # the file was deleted by its former holder: take the new one

    def _make_folder(self) -> None:
        make_folder(self._folder.parent)
        try:
            os.mkdir(self._folder)
        except FileExistsError:
            return
        except OSError as error:
            raise output_error(self._folder, error) from error


def release_all(claims: Sequence[Claim]) -> None:
    """Release every claim of a list."""
    for claim in claims:
        claim.release()


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
