"""Weight files of metrics: found where the user says, known by their SHA-256, never downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import WeightsError

_SUFFIXES: Final = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class KnownFile:
    """A published weights file: `name` as published, and the start of its SHA-256.

    torch's checkpoints carry the first eight digits in their names, which is what is checked.
    """

    name: str
    sha256: str


def find_weights(path: Path, known: Sequence[KnownFile], *, what: str) -> tuple[Path, str]:
    """The file at `path`, or in the folder `path`, that is one of the known ones.

    Returns:
        The file and its full SHA-256.

    Raises:
        WeightsError: If nothing is there or no hash fits; the message has the hashes.
    """
    names = " or ".join(f"{k.name} (SHA-256 {k.sha256[:8]}...)" for k in known)
    if not path.exists():
        raise WeightsError(f"{what}: '{path}' does not exist", hint=f"give the path of {names}")
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.is_file() and f.suffix in _SUFFIXES)
    found = {file: file_sha256(file) for file in files}
    for file, sha256 in found.items():
        if any(sha256.startswith(k.sha256) for k in known):
            return file, sha256
    if path.is_dir():
        seen = ", ".join(f"'{f.name}' ({s[:8]}...)" for f, s in found.items()) or "no weights file"
        raise WeightsError(f"{what}: '{path}' holds {seen}", hint=f"it should hold {names}")
    raise WeightsError(
        f"{what}: '{path}' has SHA-256 {found[path][:8]}..., which is not a known file",
        hint=f"give the path of {names}; a damaged download has another hash too",
    )


def folder_sha256(path: Path) -> str:
    """SHA-256 over weights and settings of a transformers folder.

    Raises:
        WeightsError: If it is no such folder.
    """
    if not (path / "config.json").is_file():
        raise WeightsError(
            f"'{path}' is no folder of a transformers model (no config.json)",
            hint="give a local folder as written by save_pretrained, or a downloaded snapshot",
        )
    files = [f for f in sorted(path.iterdir()) if f.suffix in _SUFFIXES]
    if not files:
        raise WeightsError(
            f"'{path}' holds a config.json but no weights ({', '.join(_SUFFIXES)})",
            hint="download the weights file into it",
        )
    settings = [path / n for n in ("config.json", "preprocessor_config.json")]
    digest = hashlib.sha256()
    for file in [*files, *(f for f in settings if f.is_file())]:
        digest.update(f"{file.name}\t{file_sha256(file)}\n".encode())
    return digest.hexdigest()
