"""Options that several verbs share, with one help text each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, section.key=value; repeatable.")
]
FlatSet = Annotated[  # of verbs whose settings have no sections
    list[str] | None, typer.Option("--set", help="One setting, key=value; repeatable.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: what is there.")]
Base = Annotated[
    str, typer.Option(help="tiny, a diffusers folder, a single file, or a hub id (owner/name).")
]
MovedBase = Annotated[
    str | None, typer.Option("--base", help="Where the base is now, if it has moved.")
]
