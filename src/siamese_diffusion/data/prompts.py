"""The text that goes with a data set: `prompt.txt`, the release's `prompt.json`, or a default."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROMPT_FILE: Final = "prompt.txt"
INDEX_FILE: Final = "prompt.json"


@dataclass(frozen=True)
class IndexLine:
    """One line of the release's index; paths are resolved against the data-set folder."""

    number: int
    mask: Path | None
    image: Path | None
    prompt: str | None


def default_prompt(root: Path) -> str:
    """A prompt from the folder's name: `polyp` gives "A photo of a polyp."."""
    name = re.sub(r"[\s_\-]+", " ", root.resolve().name).strip() or "lesion"
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"A photo of {article} {name}."


def read_prompt(root: Path, problems: list[str]) -> str:
    """The prompt of a folder: the one line of `prompt.txt`, or the default.

    Problems are added to `problems` rather than raised, so that all are told at once.
    """
    path = root / PROMPT_FILE
    if not path.exists():
        return default_prompt(root)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"'{path}' cannot be read as UTF-8 text ({error})")
        return default_prompt(root)
    filled = [line.strip() for line in lines if line.strip()]
    if len(filled) != 1:
        problems.append(
            f"'{path}' must hold one line of text, it holds {len(filled)}; "
            f"use {INDEX_FILE} for a prompt per pair"
        )
    return filled[0] if filled else default_prompt(root)


def read_index(root: Path, problems: list[str]) -> list[IndexLine] | None:
    """Read `prompt.json` of the release; None if the folder has none.

    One JSON object a line (or one JSON list) with `source` (mask), `target` (image) and
    `prompt`; paths are relative to the folder.
    """
    path = root / INDEX_FILE
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"'{path}' cannot be read as UTF-8 text ({error})")
        return []
    found: list[IndexLine] = []
    wrong: list[str] = []
    for number, record in _records(text):
        if not isinstance(record, dict):
            wrong.append(f"line {number} is not a JSON object")
            continue
        entries = {key: record.get(key) for key in ("source", "target", "prompt")}
        not_text = [k for k, v in entries.items() if v is not None and not isinstance(v, str)]
        if not_text or (entries["source"] is None and entries["target"] is None):
            what = f"'{not_text[0]}' is not text" if not_text else "neither 'source' nor 'target'"
            wrong.append(f"line {number}: {what}")
            continue
        mask, image, prompt = entries.values()
        found.append(
            IndexLine(
                number,
                root / str(mask) if mask else None,
                root / str(image) if image else None,
                str(prompt) if prompt is not None else None,
            )
        )
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        problems.append(
            f'\'{path}\' must hold lines {{"source": mask, "target": image, "prompt": text}}: '
            f"{'; '.join(wrong[:5])}{more}"
        )
    return found


def _records(text: str) -> list[tuple[int, object]]:
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except ValueError:
            return [(1, None)]
        return list(enumerate(whole, start=1))
    records: list[tuple[int, object]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                records.append((number, json.loads(line)))
            except ValueError:
                records.append((number, None))
    return records
