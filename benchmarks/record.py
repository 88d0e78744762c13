"""What a benchmark found: lines of numbers, the machine, a table on the terminal, a JSON file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.stopwatch import Timing
from siamese_diffusion.core.artifacts import atomic_write_json, read_json
from siamese_diffusion.core.environment import snapshot

KIND = "benchmarks"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Line:
    """One number.

    Attributes:
        what: What was measured.
        value: Its median or its only value.
        unit: Of `value` and `spread`.
        spread: Largest less smallest of the repeats, if there were several.
        ratio: Against the line that `beside` names; above 1 is better than it.
        beside: `what` of that line.
        target: Smallest ratio that is asked for at full size on a GPU, if one is.
    """

    what: str
    value: float
    unit: str
    spread: float | None = None
    ratio: float | None = None
    beside: str = ""
    target: float | None = None


@dataclass(frozen=True)
class Found:
    """What one script found.

    Attributes:
        name: Of the script.
        question: What it asks, one sentence.
        lines: Numbers, in the order of the table.
        remarks: What the numbers do not say: tolerances, what could not be measured here.
    """

    name: str
    question: str
    lines: tuple[Line, ...]
    remarks: tuple[str, ...] = ()


def rate_line(what: str, timing: Timing, unit: str) -> Line:
    """Units a second with their spread: the fastest less the slowest repeat's rate."""
    rates = [timing.units / seconds for seconds in timing.seconds]
    return Line(what, timing.rate, unit, max(rates) - min(rates))


def beside(line: Line, other: Line, *, target: float | None = None, less: bool = False) -> Line:
    """`line` with its ratio against `other`; `less` where smaller values are better."""
    ratio = other.value / line.value if less else line.value / other.value
    return Line(line.what, line.value, line.unit, line.spread, ratio, other.what, target)


def table(found: Found) -> str:
    """The lines of one script as text for a terminal."""
    rows = [("", "value", "spread", "unit", "ratio", "target", "beside")]
    for line in found.lines:
        rows.append(
            (
                line.what,
                number(line.value),
                "" if line.spread is None else number(line.spread),
                line.unit,
                "" if line.ratio is None else f"{line.ratio:.2f} x",
                "" if line.target is None else f"{line.target:g} x",
                line.beside,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = [found.name.replace("_", " "), found.question]
    text += [_row(row, widths) for row in rows]
    return "\n".join([*text, *(f"- {remark}" for remark in found.remarks)])


def machine(device: torch.device) -> dict[str, object]:
    """Versions, processor, device, threads, load, and what of TF32 is allowed."""
    about = snapshot()
    return {
        **about,  # its paths are of one machine: names alone are kept
        "command": " ".join(Path(word).name for word in str(about["command"]).split()),
        "device": str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
    }


def write(path: Path, found: Sequence[Found], *, scale: str, about: dict[str, object]) -> None:
    """One JSON file of one run on one machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(
        path,
        {
            "kind": KIND,
            "scale": scale,
            "machine": about,
            "found": [asdict(one) for one in found],
        },
    )


def read(path: Path) -> tuple[str, dict[str, object], list[Found]]:
    """Scale, machine and findings of a file that `write` wrote.

    Raises:
        ValueError: If it is another kind of file.
    """
    content = read_json(path)
    if content.get("kind") != KIND:
        raise ValueError(f"'{path}' holds {content.get('kind')!r}, not results of benchmarks")
    about, entries = content["machine"], content["found"]
    assert isinstance(about, dict) and isinstance(entries, list)
    found = [
        Found(
            entry["name"],
            entry["question"],
            tuple(Line(**line) for line in entry["lines"]),
            tuple(entry["remarks"]),
        )
        for entry in entries
    ]
    return str(content["scale"]), about, found


def number(value: float) -> str:
    """Three digits, or whole thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = [
        cell.ljust(width) if i in (0, 3, 6) else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join([first, *rest]).rstrip()
