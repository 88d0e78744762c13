"""The command `siamdiff` in this process: torch is imported once for all tests."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from siamese_diffusion.cli.main import main


class Ran(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


def siamdiff(*arguments: str | Path) -> Ran:
    """Run the command as a shell would, with its exit code."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["siamdiff", *map(str, arguments)]),
        mock.patch.dict(os.environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def settings(*pairs: str) -> list[str]:
    """`--set` before each of `pairs`."""
    return [word for pair in pairs for word in ("--set", pair)]
