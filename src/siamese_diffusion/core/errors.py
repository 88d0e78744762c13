"""The exceptions users may meet, each with what was given, what is allowed and what to do next.

The command line prints `message` and `hint` on two lines and exits with `exit_code`; from Python
they are ordinary exceptions. Nothing here knows where a message is shown.
"""

from __future__ import annotations

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: "try again", which is what resuming is


class SiamDiffError(Exception):
    """A mistake or a condition that the user can mend.

    Args:
        message: What was given and what is allowed, one sentence or a short list.
        hint: What to do next.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


class DataError(SiamDiffError):
    """A data-set folder, a split list, an image or a mask that cannot be used as it is."""


class ConfigError(SiamDiffError):
    """An unknown or impossible setting, preset, registry name or combination."""


class WeightsError(SiamDiffError):
    """A base folder or checkpoint that is missing parts or belongs to another architecture."""


class OutputError(SiamDiffError):
    """An output folder that belongs to something else, cannot be written, or a full disk."""


class CheckpointError(SiamDiffError):
    """No checkpoint of a run can be read."""


class NumericsError(SiamDiffError):
    """A loss term became NaN or infinite."""


class MemoryExhausted(SiamDiffError):
    """The device ran out of memory; the hint names the settings to change."""


class Interrupted(SiamDiffError):
    """Work stopped on request after saving; the same command continues it."""

    exit_code = EXIT_INTERRUPTED
