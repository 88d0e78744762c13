"""Files on disk: atomic writes, hashes, JSON lines.

A reader never sees a half-written file: everything is written beside its place and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from siamese_diffusion.core.errors import OutputError

FORMAT = 1
_CHUNK = 1 << 22


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn an OSError met while writing `path` into a message that names the cause."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"the disk of '{path}' is full", hint="free space or choose another output folder"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return OutputError(
            f"'{path}' cannot be written ({error.strerror})",
            hint="choose an output folder you may write to",
        )
    return OutputError(f"'{path}' cannot be written ({error.strerror or error})")


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; an OutputError names what stands in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    return path


def sync_folder(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `path` so that it is either the old file or the whole new one.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise output_error(path, error) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, content: object) -> None:
    """Write indented JSON with a final newline, atomically."""
    atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        OutputError: If the file is missing or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"'{path}' is missing or not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise OutputError(f"'{path}' does not hold a JSON object")
    return content


def append_jsonl(path: Path, record: Mapping[str, object]) -> None:
    """Append one line with a single write, so that concurrent writers do not interleave."""
    line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) < len(line):  # what a full disk does first
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise output_error(path, error) from error


def read_jsonl(path: Path) -> Iterator[dict[str, object]]:
    """Yield the records of a JSON-lines file; a torn last line (killed writer) is skipped.

    Raises:
        OutputError: If a line other than the last is not JSON.
    """
    if not path.exists():
        return
    # Not splitlines: JSON text may hold U+2028 and its like as they are.
    lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise OutputError(f"'{path}' line {number} is not JSON") from error
        if isinstance(record, dict):
            yield record


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside `path` and rename it into place when the block ends well.

    An existing `path` is replaced. If the block fails, nothing stays behind.
    """
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            old = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise output_error(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete temporaries that a killed process left in `folder`."""
    if not folder.is_dir():
        return
    for pattern in (".*.tmp", ".*.old"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of UTF-8 text, lower-case hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def require_free_space(folder: Path, n_bytes: int) -> None:
    """Refuse to start what would fill the disk of `folder`.

    Raises:
        OutputError: If fewer than `n_bytes` are free.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < n_bytes:
        raise OutputError(
            f"'{folder}' needs {n_bytes / 2**20:,.0f} MiB but its disk has {free / 2**20:,.0f} MiB",
            hint="free space, choose another folder, or keep fewer checkpoints "
            "(--set train.keep_checkpoints=1)",
        )
