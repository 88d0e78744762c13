"""`siamdiff data check`: what a folder holds, what is wrong with it, how to mend it.

Unlike opening, checking decodes every file. It never stops at the first problem and never raises
for what it finds: the report is the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data import images, masks, prompts
from siamese_diffusion.data.listing import (
    Need,
    PairFile,
    collect,
    list_folder,
    read_split,
    some,
    split_lists,
)

Level = Literal["error", "warning", "note"]

_DARK_16: Final = 4096  # 16-bit images below this come from 10- or 12-bit sensors
_MOSTLY: Final = 0.5


@dataclass(frozen=True)
class Finding:
    """One thing found; `mend` says what to do about it."""

    level: Level
    message: str
    mend: str | None = None


@dataclass
class Report:
    """What a folder holds and everything found in it."""

    root: Path
    need: Need
    """What the folder can be opened for."""
    usable: int = 0
    """Pairs (or images, or masks) without an error."""
    image_sizes: dict[str, int] = field(default_factory=dict)
    image_modes: dict[str, int] = field(default_factory=dict)
    mask_rule: str | None = None
    foreground: tuple[float, float, float] | None = None
    """Smallest, median and largest share of the picture, over non-empty masks."""
    prompt: str = ""
    splits: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no error was found."""
        return not any(finding.level == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "root": str(self.root),
            "ok": self.ok,
            "need": self.need,
            "usable": self.usable,
            "image_sizes": self.image_sizes,
            "image_modes": self.image_modes,
            "mask_rule": self.mask_rule,
            "foreground": list(self.foreground) if self.foreground else None,
            "prompt": self.prompt,
            "splits": self.splits,
            "findings": [
                {"level": f.level, "message": f.message, "mend": f.mend} for f in self.findings
            ],
        }

    def text(self) -> str:
        """The report for people."""
        lines = [f"data set    {self.root}", f"holds       {self.usable:,} usable {self.need}"]
        if self.image_sizes:
            lines.append(f"images      {_counted(self.image_sizes)}; {_counted(self.image_modes)}")
        if self.mask_rule:
            lines.append(f"masks       {self.mask_rule}")
        if self.foreground:
            low, middle, high = self.foreground
            lines.append(f"foreground  {low:.2%} to {high:.2%} of the picture, median {middle:.2%}")
        if self.prompt:
            lines.append(f"prompt      {self.prompt}")
        if self.splits:
            lists = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
            lines.append(f"splits      {lists}")
        for finding in sorted(
            self.findings, key=lambda f: ("error", "warning", "note").index(f.level)
        ):
            lines.append(f"{finding.level:<11} {finding.message}")
            if finding.mend:
                lines.append(f"{'':<11} mend: {finding.mend}")
        lines.append(_verdict(self))
        return "\n".join(lines)


def check_folder(root: Path) -> Report:
    """Read everything in a data-set folder and report on it; see `Report`."""
    root = Path(root)
    report = Report(root, _kind_of_folder(root))
    listing = list_folder(root, need=report.need)
    report.prompt = listing.prompt
    report.findings += [Finding("error", problem) for problem in listing.problems]
    if listing.notes:
        report.findings.append(Finding("note", some(listing.notes)))
    _check_splits(report, root, listing.stems)
    facts = collect(_read, listing.pairs)
    damaged = [error for fact in facts for error in fact.errors]
    report.findings += [Finding("error", e.message, e.hint) for e in damaged]
    _describe_images(report, facts)
    _judge_masks(report, facts)
    _find_repeats(report, root, facts)
    report.usable = sum(not fact.errors for fact in facts)
    return report


@dataclass
class _Fact:
    """What decoding one pair told."""

    stem: str
    errors: list[DataError] = field(default_factory=list)
    size: str | None = None
    mode: str | None = None
    is_blank: bool = False
    is_dark: bool = False
    sha256: str | None = None
    mask: Path | None = None
    evidence: masks.Evidence | None = None
    share: float = 0.0


def _read(pair: PairFile) -> _Fact:
    fact = _Fact(pair.stem, mask=pair.mask)
    if pair.image is not None:
        try:
            header = images.read_header(pair.image)
            pixels = images.read_image(pair.image)
            fact.size, fact.mode = f"{header.width}x{header.height}", header.mode
            fact.is_blank = bool(pixels.min() == pixels.max())
            is_deep = header.mode.startswith("I")
            fact.is_dark = is_deep and int(pixels.max()) < _DARK_16 // 257
            fact.sha256 = file_sha256(pair.image)
        except DataError as error:
            fact.errors.append(error)
    if pair.mask is not None:
        try:
            levels = images.read_levels(pair.mask)
            lossy = images.is_lossy(pair.mask)
            fact.evidence = masks.examine(levels, lossy=lossy)
            rule = masks.rule_of(fact.evidence)
            fact.share = float(masks.binarise(levels, rule).mean()) / 255
        except DataError as error:
            fact.errors.append(error)
    return fact


def _kind_of_folder(root: Path) -> Need:
    """Which of images and masks a folder is meant to hold."""
    if (root / prompts.INDEX_FILE).exists() or not root.is_dir():
        return "pairs"
    folders = {p.name for p in root.iterdir() if p.is_dir()}
    if {"images", "masks"} <= folders or not {"images", "masks"} & folders:
        flat = [p for p in sorted(root.iterdir()) if images.is_picture(p)]
        if folders & {"images", "masks"} or not flat:
            return "pairs"
        return "masks" if _look_like_masks(flat[:8]) else "images"
    return "masks" if "masks" in folders else "images"


def _look_like_masks(paths: Sequence[Path]) -> bool:
    seen = 0
    for path in paths:
        try:
            seen += (
                masks.examine(images.read_levels(path), lossy=images.is_lossy(path)).kind
                is not None
            )
        except DataError:
            continue
    return 2 * seen > len(paths)


def _check_splits(report: Report, root: Path, stems: frozenset[str]) -> None:
    lists: dict[str, set[str]] = {}
    for name in split_lists(root) if root.is_dir() else []:
        try:
            names = read_split(root, name)
        except DataError as error:
            report.findings.append(Finding("error", error.message, error.hint))
            continue
        lists[name] = set(names)
        report.splits[name] = len(names)
        unknown = sorted(lists[name] - stems)
        if not names:
            report.findings.append(
                Finding("error", f"split list '{name}.txt' is empty", "fill or remove it")
            )
        if unknown:
            message = f"split list '{name}.txt' names unknown stems: {some(unknown)}"
            mend = "remove these lines, or rename the list if it is none (say, to notes.md)"
            report.findings.append(Finding("error", message, mend))
        twice = sorted(stem for stem, count in Counter(names).items() if count > 1)
        if twice:
            message = f"split list '{name}.txt' names stems twice: {some(twice)}"
            report.findings.append(Finding("error", message, "keep each stem once"))
    for name, members in lists.items():
        shared = sorted(members & lists.get("train", set()))
        if name != "train" and shared:
            message = f"'{name}.txt' shares {len(shared)} stems with 'train.txt': {some(shared)}"
            mend = "remove them from one list, or results on it say nothing"
            report.findings.append(Finding("warning", message, mend))


def _describe_images(report: Report, facts: Sequence[_Fact]) -> None:
    report.image_sizes = dict(Counter(f.size for f in facts if f.size).most_common())
    report.image_modes = dict(Counter(f.mode for f in facts if f.mode).most_common())
    blank = [fact.stem for fact in facts if fact.is_blank]
    if blank:
        message = f"{len(blank)} images of a single colour: {some(blank)}"
        report.findings.append(Finding("warning", message, "remove them with their masks"))
    dark = [fact.stem for fact in facts if fact.is_dark and not fact.is_blank]
    if dark:
        message = f"{len(dark)} 16-bit images use less than 1/16 of the range: {some(dark)}"
        mend = "they will look black; rescale them to the full range, all by one factor"
        report.findings.append(Finding("warning", message, mend))


def _judge_masks(report: Report, facts: Sequence[_Fact]) -> None:
    evidence = {str(fact.mask): fact.evidence for fact in facts if fact.evidence}
    if not evidence:
        return
    # Refused masks and conflicting rules are told apart, so that neither hides the other.
    refused = masks.refused(evidence)
    binary = {name: e for name, e in evidence.items() if name not in refused}
    for part in ({name: evidence[name] for name in refused}, binary):
        try:
            report.mask_rule = masks.combine(part).statement if part else None
        except DataError as error:
            report.findings.append(Finding("error", error.message, error.hint))
    judged = [fact for fact in facts if fact.evidence and str(fact.mask) not in refused]
    for what, bound in (("empty", 0.0), ("all foreground", 1.0)):
        stems = [fact.stem for fact in judged if fact.share == bound]
        if stems:
            mend = "leave them out with --set data.degenerate=drop, or correct the masks"
            plural = "mask is" if len(stems) == 1 else "masks are"
            message = f"{len(stems)} {plural} {what}: {some(stems)}"
            report.findings.append(Finding("warning", message, mend))
    shares = [fact.share for fact in judged if fact.share > 0.0]
    if shares:
        report.foreground = (min(shares), float(np.median(shares)), max(shares))
        if report.foreground[1] > _MOSTLY:
            message = f"foreground fills {report.foreground[1]:.0%} of the median mask"
            mend = "if lesions are black in your masks, invert them: lesions must be 255"
            report.findings.append(Finding("warning", message, mend))


def _find_repeats(report: Report, root: Path, facts: Sequence[_Fact]) -> None:
    groups: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        if fact.sha256:
            groups[fact.sha256].append(fact.stem)
    repeats = [stems for stems in groups.values() if len(stems) > 1]
    if not repeats:
        return
    shown = some([" = ".join(stems) for stems in repeats])
    report.findings.append(Finding("note", f"image files with equal content: {shown}"))
    if "train" not in report.splits:
        return
    train = set(read_split(root, "train"))
    for name in report.splits:
        members = set(read_split(root, name)) - train
        leaks = [s for s in repeats if set(s) & train and set(s) & members]
        if name != "train" and leaks:
            message = (
                f"{len(leaks)} images of 'train.txt' are also in '{name}.txt' under other stems"
            )
            mend = f"remove one of each: {some([' = '.join(stems) for stems in leaks])}"
            report.findings.append(Finding("warning", message, mend))


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name} ({count:,})" for name, count in list(counts.items())[:4]]
    return ", ".join(shown) + (f" and {len(counts) - 4} more" if len(counts) > 4 else "")


def _verdict(report: Report) -> str:
    levels = Counter(finding.level for finding in report.findings)
    if report.ok:
        warned = f", {levels['warning']} warning(s)" if levels["warning"] else ""
        return f"verdict     can be used{warned}"
    return f"verdict     cannot be used: {levels['error']} error(s)"
