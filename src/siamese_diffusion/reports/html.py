"""`write_report`: one self-contained HTML page about runs and synthetic sets.

Reads facts from the files of each source and hands them to the template, which holds every
sentence. All numbers come from files; what a file does not say is "not recorded".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import yaml

from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import atomic_write_text, read_json
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.reports import panels
from siamese_diffusion.reports.charts import (
    NOT_RECORDED,
    Curves,
    bar_chart,
    training_curves,
    training_speed,
)
from siamese_diffusion.reports.reading import (
    optional_json,
    optional_yaml,
    read_records,
    torn_remark,
)

NOT_THERE: Final = "(no such setting)"
REPORT_NAME: Final = "report.html"
ALIGNMENT_NAME: Final = "alignment.json"
TEMPLATE_NAME: Final = "report.html.j2"
EXPECTED: Final = (
    "a run folder (run.json, written by `siamdiff fit`) or a synthetic set "
    "(plan.json and manifest.jsonl, written by `siamdiff sample`)"
)
# Plain words for the numbers of alignment.json; other keys are shown as they are.
DICE_WORDS: Final = {
    "dice_on_synthetic": "Synthetic images, their own masks",
    "dice_on_shuffled": "Synthetic images, shuffled masks",
    "dice_on_real": "Original images, their own masks",
}
_LOG_KEYS: Final = ("event", "step", "seconds", "file")
Rows = tuple[tuple[str, str], ...]
Kind = Literal["run", "synthetic"]


@dataclass(frozen=True)
class RunSection:
    """What the page says about one training run; counts are None where not recorded."""

    name: str
    path: str
    state: str
    data_name: str | None
    source: panels.SourceKind
    split: str | None
    pairs: int | None
    steps: int | None
    max_steps: int | None
    batch: int | None
    size: int | None
    model: str | None
    facts: Rows
    differing: tuple[tuple[str, str, str], ...] | None
    config: str | None
    environment: Rows
    curves: Curves
    grids: panels.Grids
    grid_settings: Rows
    remarks: tuple[str, ...]
    kind: Kind = "run"


@dataclass(frozen=True)
class SyntheticSection:
    """What the page says about one synthetic set; counts are None where not recorded."""

    name: str
    path: str
    planned: int | None
    finished: int
    folds: int | None
    recipe: str | None
    model: str | None
    facts: Rows
    settings: Rows
    items: tuple[panels.Item, ...]
    source: panels.SourceKind
    measured: Rows
    dice: Mapping[str, float]
    dice_chart: str | None
    remarks: tuple[str, ...]
    kind: Kind = "synthetic"


Section = RunSection | SyntheticSection


def write_report(
    sources: Sequence[Path],
    out: Path | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
) -> Path:
    """Write one HTML page about runs and synthetic sets, without network or scripts.

    Args:
        sources: Run folders and synthetic sets, recognised by their files, in any mixture.
        out: HTML file to write; None takes `report.html` in the first source.
        defaults: The paper's settings, to tell what differs; None leaves that out.

    Returns:
        The page's path.

    Raises:
        ConfigError: If there is no source or the extra `report` is not installed.
        DataError: If a source is neither a run folder nor a synthetic set.
        OutputError: If a source's files are damaged or the page cannot be written.
    """
    sources = [Path(source) for source in sources]
    if not sources:
        raise ConfigError("a report needs at least one source", hint=f"name {EXPECTED}")
    kinds = [recognise(source) for source in sources]
    out = sources[0] / REPORT_NAME if out is None else Path(out)
    if out.is_dir():
        raise OutputError(
            f"'{out}' is a folder; the report is one file", hint=f"write {out / REPORT_NAME}"
        )
    sets, runs = max(1, kinds.count("synthetic")), max(1, kinds.count("run"))
    # Shared out among the sources, so that the page stays small however many there are.
    most_items = max(4, panels.MOST_ITEMS // sets)
    most_grids = max(2, panels.MOST_GRIDS // runs)
    sections: list[Section] = [
        read_run(source, most_grids, defaults)
        if kind == "run"
        else read_synthetic(source, most_items)
        for source, kind in zip(sources, kinds, strict=True)
    ]
    atomic_write_text(out, render(sections))
    return out


def recognise(source: Path) -> Kind:
    """Tell a run folder from a synthetic set by its files.

    Raises:
        DataError: If it is neither; names what was found and what is expected.
    """
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise DataError(f"'{source}' {what}; expected {EXPECTED}", hint="check the path")
    if RunPaths(source).run.is_file():
        return "run"
    paths = SyntheticPaths(source)
    if paths.plan_header.is_file() and paths.manifest.is_file():
        return "synthetic"
    if paths.plan_header.is_file():
        raise DataError(
            f"'{source}' holds plan.json but no manifest.jsonl: no image is finished yet",
            hint="run the same `siamdiff sample` command again, then the report",
        )
    found = sorted(entry.name for entry in source.iterdir())
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    shown = (", ".join(found[:6]) + more) if found else "nothing"
    raise DataError(f"'{source}' holds {shown}; expected {EXPECTED}", hint="check the path")


def render(sections: Sequence[Section]) -> str:
    """The page as text.

    Raises:
        ConfigError: If the template engine is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError(
            f"reports need '{error.name}', which is not installed",
            hint="pip install 'siamese-diffusion[report]'",
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Only for our own charts, whose texts are escaped where they are drawn.
    environment.filters["svg"] = Markup
    folder = resources.files("siamese_diffusion.reports") / "templates"
    template = environment.from_string((folder / TEMPLATE_NAME).read_text(encoding="utf-8"))
    return template.render(
        sections=sections,
        runs_by_model={s.model: s for s in sections if s.kind == "run" and s.model},
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )


def read_run(
    root: Path, most_grids: int, defaults: Mapping[str, object] | None = None
) -> RunSection:
    """Facts, curves and sample grids of a run folder."""
    paths = RunPaths(root)
    run = read_json(paths.run)
    data, base = _mapping(run.get("data")), _mapping(run.get("base"))
    config = optional_yaml(paths.config)
    batch = _count(flatten(config).get("train.batch_size"))
    records, torn = read_records(paths.log)
    samples = [record for record in records if record.get("event") == "sample"]
    sampled = samples[-1] if samples else {}
    grids = panels.sample_grids(root, _count(sampled.get("columns")), most_grids)
    pairs, size = _count(data.get("pairs")), _count(run.get("size"))
    steps = _count(run.get("step"))
    if run.get("state") == "training":  # run.json counts when the training ends, the log before
        logged = [_count(r.get("step")) or 0 for r in records if r.get("event") == "train"]
        steps = max([steps or 0, *logged])
    passes = f"{steps * batch / pairs:,.1f}" if steps and batch and pairs else NOT_RECORDED
    rule = data.get("mask_rule")
    rule = rule.get("statement") or rule.get("kind") if isinstance(rule, Mapping) else rule
    base_words = " ".join(str(base[key]) for key in ("kind", "reference") if base.get(key))
    model = run.get("model_sha256")
    facts = (
        ("State", _text(run.get("state"))),
        ("Generator", _text(run.get("generator"))),
        ("Data set", _text(data.get("root"))),
        ("Split", _text(data.get("split"), none="none (all pairs)" if data else NOT_RECORDED)),
        ("Image-mask pairs", _text(pairs)),
        ("Mask rule", _text(rule)),
        ("Prompt", _text(run.get("prompt"))),
        ("Image size", f"{size} x {size} pixels" if size else NOT_RECORDED),
        ("Base model", base_words or NOT_RECORDED),
        ("Training steps", f"{_text(steps)} of {_text(run.get('max_steps'))}"),
        ("Effective batch", f"{batch:,} pairs a step" if batch else NOT_RECORDED),
        ("Passes over the data", passes),
        *training_speed(records),
        ("Data fingerprint", _text(data.get("fingerprint"))),
        ("Base hash", _text(base.get("sha256"))),
        ("Model hash", _text(model)),
    )
    root_name = data.get("root")
    return RunSection(
        name=root.resolve().name,
        path=str(root),
        state=str(run.get("state") or ""),
        data_name=Path(str(root_name)).name if root_name else None,
        source=panels.source_kind(Path(str(root_name))) if root_name else "real",
        split=str(data["split"]) if data.get("split") else None,
        pairs=pairs,
        steps=steps,
        max_steps=_count(run.get("max_steps")),
        batch=batch,
        size=size,
        model=str(model) if model else None,
        facts=facts,
        differing=None if defaults is None else _differing(config, flatten(defaults)),
        config=yaml.safe_dump(config, sort_keys=False) if config else None,
        environment=_rows(flatten(_mapping(optional_json(paths.environment)))),
        curves=training_curves(records),
        grids=grids,
        grid_settings=_rows({k: v for k, v in sampled.items() if k not in _LOG_KEYS}),
        remarks=(*grids.remarks, *torn_remark(paths.log, torn)),
    )


def read_synthetic(root: Path, most_items: int) -> SyntheticSection:
    """Facts, measured numbers and panels of a synthetic set."""
    paths = SyntheticPaths(root)
    header = read_json(paths.plan_header)
    settings, origin = _mapping(header.get("settings")), _mapping(header.get("origin"))
    lines, torn = read_records(paths.manifest)
    by_name = {str(line["id"]): line for line in lines if "id" in line}
    records = sorted(by_name.values(), key=lambda line: _count(line.get("index")) or 0)
    planned, model = _count(header.get("items")), settings.get("model_sha256")
    shown = panels.synthetic_items(root, header, records, most_items)
    measured = _mapping(optional_json(root / ALIGNMENT_NAME))
    dice = {
        key: float(value)
        for key in DICE_WORDS
        if isinstance(value := measured.get(key), int | float) and math.isfinite(value)
    }
    bars = [(DICE_WORDS[key], value) for key, value in dice.items()]
    words = ", ".join(f"{label}: {value:.3f}" for label, value in bars)
    facts = (
        ("Images planned", _text(planned)),
        ("Images finished", _text(len(records))),
        ("Recipe of the masks", _text(settings.get("recipe"))),
        ("Images per mask", _text(settings.get("folds"))),
        ("Masks from", _text(origin.get("masks"))),
        ("Split of the masks", _text(settings.get("split"), none="none (all masks)")),
        ("Mask rule", _text(origin.get("mask_rule"))),
        ("Prompt", _text(settings.get("prompt"))),
        ("Sampler", f"DDIM, {_text(settings.get('steps'))} steps, eta 0"),
        ("Guidance scale", _text(settings.get("guidance_scale"))),
        ("Seed of the set", str(settings.get("seed", NOT_RECORDED))),
        ("Image size", "{0} x {0} pixels".format(_text(settings.get("size")))),
        ("Training run", _text(origin.get("run"))),
        ("Fingerprint of its data", _text(origin.get("run_data_fingerprint"))),
        ("Model hash", _text(model)),
        ("Plan hash", _text(header.get("plan_sha256"))),
    )
    return SyntheticSection(
        name=root.resolve().name,
        path=str(root),
        planned=planned,
        finished=len(records),
        folds=_count(settings.get("folds")),
        recipe=str(settings["recipe"]) if settings.get("recipe") else None,
        model=str(model) if model else None,
        facts=facts,
        settings=_rows(flatten(settings)),
        items=shown.items,
        source=shown.source,
        measured=tuple((key, _measured(key, v)) for key, v in flatten(measured).items()),
        dice=dice,
        dice_chart=bar_chart("Dice coefficients", bars, description=words) if bars else None,
        remarks=(*shown.remarks, *torn_remark(paths.manifest, torn)),
    )


def _differing(
    config: Mapping[str, object], default: Mapping[str, object]
) -> tuple[tuple[str, str, str], ...]:
    """(key, value, default) of resolved settings that are not the default, which is the paper's."""
    return tuple(
        (key, _text(value, none="none"), _text(default.get(key, NOT_THERE), none="none"))
        for key, value in flatten(config).items()
        if value != default.get(key, NOT_THERE)
    )


def _mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rows(flat: Mapping[str, object]) -> Rows:
    return tuple((key, _text(value, none="none")) for key, value in flat.items())


def _measured(key: str, value: object) -> str:
    return _text(value) + (f" ({DICE_WORDS[key].lower()})" if key in DICE_WORDS else "")


def _text(value: object, none: str = NOT_RECORDED) -> str:
    if value is None:
        return none
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**9 else str(value)  # seeds are not counts
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    return str(value) or "(empty)"
