"""Lazy tables: name -> "module:Class". Importing a table imports nothing it names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from siamese_diffusion.core.config import nearest
from siamese_diffusion.core.errors import ConfigError


class Registry(Mapping[str, object]):
    """A read-only table whose entries are imported on first use.

    Args:
        kind: What an entry is, for messages, e.g. "generator".
        entries: Name to "package.module:Attribute".
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self._kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> object:
        if name not in self._entries:
            raise ConfigError(
                f"unknown {self._kind} '{name}'{nearest(name, list(self._entries))}",
                hint=f"choose one of: {', '.join(self._entries)}",
            )
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries  # Mapping's own asks __getitem__, which imports or refuses

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def target(self, name: str) -> str:
        """The "module:Class" text of an entry, without importing it."""
        return self._entries[name]
