"""Frozen settings: preset, then file, then overrides; unknown keys are errors with the nearest one.

What was asked and what was resolved are both kept by whoever starts a run; nothing is changed in
place afterwards.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from siamese_diffusion.core.errors import ConfigError

T = TypeVar("T", bound="Settings")
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Settings(BaseModel):
    """Base of every configuration class: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def resolve(
    cls: type[T],
    preset: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> T:
    """Build settings from a preset, a YAML file over it, and `a.b=value` overrides over both.

    Raises:
        ConfigError: For an unknown key, an impossible value or an unreadable file; all problems
            in one message.
    """
    return build(cls, asked(preset, file=file, overrides=overrides))


def asked(
    preset: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, object]:
    """The merged mapping as asked, before defaults and validation."""
    merged: dict[str, object] = overlay({}, dict(preset or {}))
    if file is not None:
        merged = overlay(merged, read_yaml(file))
    for override in overrides:
        merged = overlay(merged, parse_override(override))
    return merged


def build(cls: type[T], content: Mapping[str, object]) -> T:
    """Validate a mapping over the defaults; ConfigError lists every problem.

    A section given in part keeps the rest of its defaults, also where those are a whole object
    (pydantic alone would fall back to the section's class).
    """
    try:
        return cls.model_validate(overlay(cls().model_dump(), content))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, problem) for problem in error.errors())) from None


def read_yaml(path: Path) -> dict[str, object]:
    """Read a YAML mapping.

    Raises:
        ConfigError: If the file is missing, is not YAML or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file '{path}' cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"config file '{path}' must hold a mapping of settings")
    return content


def to_yaml(settings: Settings) -> str:
    """YAML text from which `resolve` builds equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def mapping_to_yaml(content: Mapping[str, object]) -> str:
    """YAML text of a plain mapping."""
    return yaml.safe_dump(dict(content), sort_keys=False)


def parse_override(text: str) -> dict[str, object]:
    """`a.b=value` as nested mappings; the value is read as YAML.

    Raises:
        ConfigError: If there is no `=` or no key.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(
            f"'{text}' is not a setting", hint="write --set section.key=value, e.g. train.seed=1"
        )
    try:
        parsed: object = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of '{text}' is not YAML: {error}") from error
    # YAML 1.1 reads 1e-5 as text; people mean the number, unless they write quotes.
    if isinstance(parsed, str) and _EXPONENT.fullmatch(value.strip()):
        parsed = float(parsed)
    nested: object = parsed
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Lines `a.b: old -> new` for every value that differs."""
    left, right = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    return [f"{key}: {left.get(key)} -> {right.get(key)}" for key in keys]


def flatten(content: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, object] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nearest(name: str, choices: Sequence[str]) -> str:
    """`; did you mean 'x'?` or an empty string."""
    found = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def overlay(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """A nested mapping with the values of another over it, section by section."""
    merged = dict(base)
    for key, value in over.items():
        current = merged.get(key)
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            merged[key] = overlay(current, value)
        else:
            merged[key] = value
    return merged


def _explain(cls: type[Settings], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(cls, location[:-1])
        return (
            f"unknown setting '{key}'{nearest(location[-1], valid)} "
            f"(valid here: {', '.join(valid)})"
        )
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if not isinstance(given, dict | BaseModel) else ""
    return f"setting '{key}': {message}{shown}" if key else f"{message}"


def _fields_at(cls: type[BaseModel], location: Sequence[str]) -> list[str]:
    current: type[BaseModel] = cls
    for part in location:
        field = current.model_fields.get(part)
        candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        current = nested[0]
    return sorted(current.model_fields)
