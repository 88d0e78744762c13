"""The blinded study folder and its key: what they hold, read strictly.

`Study` is all that the server knows; `Key` tells the sources and is read by the analysis alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from siamese_diffusion.core.artifacts import file_sha256, read_json, text_sha256
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import StudyKeyPaths, StudyPaths

FORMAT: Final = 1
REAL: Final = "real"  # the name of the real set among the sources
_ITEM: Final = re.compile(r"[0-9a-f]{16}")
_SUFFIXES: Final = (".png", ".jpg")
_Record = TypeVar("_Record", bound="_Closed")


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RaterPlan(_Closed):
    """One rater: the hash of the link token, and the items in the order of the screens."""

    rater: str
    token_sha256: str
    order: list[str]


class StudyRecord(_Closed):
    """Content of `study.json`; `items` maps opaque names to hashes of the files."""

    format: int
    study: str
    title: str
    size: int
    suffix: str
    items: dict[str, str]
    raters: list[RaterPlan]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}; this version reads {FORMAT}")
        if self.suffix not in _SUFFIXES:
            raise ValueError(f"suffix '{self.suffix}'; allowed are {', '.join(_SUFFIXES)}")
        if not self.items or not self.raters:
            raise ValueError("a study needs items and raters")
        for item in self.items:
            if not _ITEM.fullmatch(item):
                raise ValueError(f"item '{item}' is not 16 hexadecimal digits")
        for name, values in (
            ("rater", [plan.rater for plan in self.raters]),
            ("token", [plan.token_sha256 for plan in self.raters]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{name} '{twice[0]}' is used by several raters")
        for plan in self.raters:
            unknown = [item for item in plan.order if item not in self.items]
            if unknown:
                raise ValueError(f"order of {plan.rater} names unknown item '{unknown[0]}'")
        return self


class KeyItem(_Closed):
    """Where an item came from: source name, file (relative to the source's folder), its hash."""

    source: str
    file: str
    sha256: str


class KeyRecord(_Closed):
    """Content of `key.json`."""

    format: int
    study: str
    seed: int
    version: str
    per_source: int
    repeats: int
    sources: dict[str, str]
    items: dict[str, KeyItem]
    notes: list[str]


@dataclass(frozen=True)
class Study:
    """An opened study folder; `fingerprint` ties a store of ratings to it."""

    paths: StudyPaths
    record: StudyRecord
    fingerprint: str

    @classmethod
    def open(cls, root: Path) -> Study:
        """Read a study and check every image against its recorded hash.

        Raises:
            DataError: If this is no study, or a file is missing, altered, or outside the folder.
        """
        paths = StudyPaths(Path(root))
        if not paths.study.is_file():
            raise DataError(
                f"'{root}' is not a study folder (no {paths.study.name})",
                hint="make one: siamdiff mos prepare --real FOLDER --synthetic NAME=FOLDER "
                "--out STUDY",
            )
        record = _read(paths.study, StudyRecord)
        study = cls(paths, record, text_sha256(paths.study.read_text(encoding="utf-8")))
        wrong = [item for item, digest in record.items.items() if not study._is_sound(item, digest)]
        if wrong:
            raise DataError(
                f"{len(wrong)} of {len(record.items)} images of study '{root}' are missing, "
                f"altered or outside it: {', '.join(wrong[:3])}",
                hint="copy the study folder again, whole, or prepare a new one",
            )
        return study

    def image(self, item: str) -> Path:
        """File of an item."""
        return self.paths.images / f"{item}{self.record.suffix}"

    def rater_of(self, token: str) -> RaterPlan | None:
        """The rater whose link holds this token; only the token's hash is known here."""
        digest = hashlib.sha256(token.encode("utf-8", errors="replace")).hexdigest()
        return next((plan for plan in self.record.raters if plan.token_sha256 == digest), None)

    def _is_sound(self, item: str, digest: str) -> bool:
        # The name cannot leave the folder (16 hexadecimal digits), but a link in it could.
        path = self.image(item)
        inside = path.resolve().parent == self.paths.images.resolve()
        return inside and path.is_file() and file_sha256(path) == digest


def open_key(path: Path, study: Study) -> KeyRecord:
    """Read the key of a study; `path` is its folder or the file itself.

    Raises:
        DataError: If there is no key there, or it belongs to another study.
    """
    file = StudyKeyPaths(path).key if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"no key at '{file}'",
            hint="name the folder that `siamdiff mos prepare` wrote beside the study: --key FOLDER",
        )
    key = _read(file, KeyRecord)
    if key.study != study.record.study or set(key.items) != set(study.record.items):
        raise DataError(
            f"the key '{file}' is that of study {key.study}, not of {study.record.study}",
            hint="name the key that was written together with this study",
        )
    return key


def default_key_folder(study: Path) -> Path:
    """Where the key of a study lies if nothing else is said: beside it."""
    return study.resolve().parent / f"{study.resolve().name}-key"


def missing_extra(error: ImportError) -> ConfigError:
    """The error for a package of the extra `web` that is not installed."""
    return ConfigError(
        f"this verb of `siamdiff mos` needs '{error.name}', which is not installed",
        hint="pip install 'siamese-diffusion[web]'",
    )


def _read(path: Path, record: type[_Record]) -> _Record:
    try:
        return record.model_validate(read_json(path))
    except OutputError as error:
        raise DataError(error.message, hint="copy it again from where it was prepared") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = str(problem["msg"]).removeprefix("Value error, ")
        raise DataError(
            f"'{path}' cannot be used: {f'{where}: ' if where else ''}{what}",
            hint="copy it again from where it was prepared; it is not meant to be edited",
        ) from error
