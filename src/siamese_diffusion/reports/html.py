"""`write_report`: one self-contained HTML page about runs, synthetic sets and their results.

Reads facts from the files of each source and hands them to the template, which holds every
sentence. All numbers come from files; what a file does not say is "not recorded".
"""

from __future__ import annotations

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
from siamese_diffusion.core.errors import ConfigError, OutputError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.reports import panels, words
from siamese_diffusion.reports.assessments import Assessment, read_assessment
from siamese_diffusion.reports.charts import (
    NOT_RECORDED,
    Curves,
    bar_chart,
    training_curves,
    training_speed,
)
from siamese_diffusion.reports.comparison import ComparisonSection, read_comparison
from siamese_diffusion.reports.freshness import Fingerprints
from siamese_diffusion.reports.reading import (
    Rows,
    count_of,
    in_words,
    mapping_of,
    number_of,
    optional_json,
    optional_yaml,
    read_records,
    rows_of,
    torn_remark,
)
from siamese_diffusion.reports.segmentation import SegmentationSection, read_segmentation
from siamese_diffusion.reports.side_by_side import Pairing, SideBySideSection, side_by_side
from siamese_diffusion.reports.sources import EXPECTED, Source, recognise
from siamese_diffusion.reports.utility import UtilitySection, read_utility

NOT_THERE: Final = "(no such setting)"
REPORT_NAME: Final = "report.html"
ALIGNMENT_NAME: Final = "alignment.json"
TEMPLATE_NAME: Final = "report.html.j2"
# Plain words for the numbers of alignment.json; other keys are shown as they are.
DICE_WORDS: Final = {
    "dice_on_synthetic": "Synthetic images, their own masks",
    "dice_on_shuffled": "Synthetic images, shuffled masks",
    "dice_on_real": "Original images, their own masks",
}
_LOG_KEYS: Final = ("event", "step", "seconds", "file")
# Long lists of an alignment audit, which has a section of its own.
_NOT_MEASURED: Final = ("kind", "pairs", "real_pairs", "poor", "environment")


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
    kind: Literal["run"] = "run"


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
    kind: Literal["synthetic"] = "synthetic"


Result = SegmentationSection | SideBySideSection | UtilitySection | ComparisonSection
Section = RunSection | SyntheticSection | Assessment | Result


def write_report(
    sources: Sequence[Path],
    out: Path | None = None,
    *,
    defaults: Mapping[str, object] | None = None,
    pairing: Pairing | None = None,
) -> Path:
    """Write one HTML page about runs, synthetic sets and their results, free of scripts.

    Args:
        sources: Run folders, synthetic sets, score files, folders of audits, t-SNE figures,
            results of segmenters, utility curves and comparisons, recognised by their content,
            in any mixture.
        out: HTML file to write; None takes `report.html` in the first source, or beside it if
            that is a file.
        defaults: The paper's settings, to tell what differs; None leaves that out.
        pairing: Test for differences between segmenters on the same images; None leaves them out.

    Returns:
        The page's path.

    Raises:
        ConfigError: If there is no source or the extra `report` is not installed.
        DataError: If a source is none of these.
        OutputError: If a source's files are damaged or the page cannot be written.
    """
    sources = [Path(source) for source in sources]
    if not sources:
        raise ConfigError("a report needs at least one source", hint=f"name {EXPECTED}")
    found: list[Source] = []
    for part in (part for source in sources for part in recognise(source)):
        if part not in found or part.kind in ("run", "synthetic"):  # an audit may be named twice
            found.append(part)
    if out is None:
        out = (sources[0] if sources[0].is_dir() else sources[0].parent) / REPORT_NAME
    out = Path(out)
    if out.is_dir():
        raise OutputError(
            f"'{out}' is a folder; the report is one file", hint=f"write {out / REPORT_NAME}"
        )
    runs = [part.path for part in found if part.kind == "run"]
    sets = [part.path for part in found if part.kind == "synthetic"]
    prints = Fingerprints(sets)
    # Shared out among the sources, so that the page stays small however many there are.
    most_items = max(4, panels.MOST_ITEMS // max(1, len(sets)))
    most_grids = max(2, panels.MOST_GRIDS // max(1, len(runs)))

    def read(part: Source) -> Section:
        if part.kind == "run":
            return read_run(part.path, most_grids, defaults)
        if part.kind == "synthetic":
            return read_synthetic(part.path, most_items)
        if part.kind == "segmentation-result":
            return read_segmentation(part.path)
        if part.kind == "utility":
            return read_utility(part.path)
        if part.kind == "comparison":
            return read_comparison(part.path)
        return read_assessment(part, prints)

    found.sort(key=lambda part: part.kind not in ("run", "synthetic"))  # stable: the others last
    sections = [read(part) for part in found]
    segmenters = [s for s in sections if s.kind == "segmentation-result"]
    sections += side_by_side(segmenters, pairing)
    atomic_write_text(out, render(sections))
    return out


def render(sections: Sequence[Section]) -> str:
    """The page as text.

    Raises:
        ConfigError: If the template engine is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError(
            f"reports need '{error.name}', which is not installed",
            hint="pip install 'siamese-diffusion[report]'",
        ) from error
    folder = resources.files("siamese_diffusion.reports") / "templates"
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    # Only for our own charts, whose texts are escaped where they are drawn.
    environment.filters["svg"] = Markup
    return environment.get_template(TEMPLATE_NAME).render(
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
    data, base = mapping_of(run.get("data")), mapping_of(run.get("base"))
    config = optional_yaml(paths.config)
    batch = count_of(flatten(config).get("train.batch_size"))
    records, torn = read_records(paths.log)
    samples = [record for record in records if record.get("event") == "sample"]
    sampled = samples[-1] if samples else {}
    grids = panels.sample_grids(root, count_of(sampled.get("columns")), most_grids)
    pairs, size = count_of(data.get("pairs")), count_of(run.get("size"))
    steps = count_of(run.get("step"))
    if run.get("state") == "training":  # run.json counts when the training ends, the log before
        logged = [count_of(r.get("step")) or 0 for r in records if r.get("event") == "train"]
        steps = max([steps or 0, *logged])
    passes = f"{steps * batch / pairs:,.1f}" if steps and batch and pairs else NOT_RECORDED
    rule = data.get("mask_rule")
    rule = rule.get("statement") or rule.get("kind") if isinstance(rule, Mapping) else rule
    base_words = " ".join(str(base[key]) for key in ("kind", "reference") if base.get(key))
    model = run.get("model_sha256")
    facts = (
        ("State", in_words(run.get("state"))),
        ("Generator", in_words(run.get("generator"))),
        ("Data set", in_words(data.get("root"))),
        ("Split", in_words(data.get("split"), none="none (all pairs)" if data else NOT_RECORDED)),
        ("Image-mask pairs", in_words(pairs)),
        ("Mask rule", in_words(rule)),
        ("Prompt", in_words(run.get("prompt"))),
        ("Image size", f"{size} x {size} pixels" if size else NOT_RECORDED),
        ("Base model", base_words or NOT_RECORDED),
        ("Training steps", f"{in_words(steps)} of {in_words(run.get('max_steps'))}"),
        ("Effective batch", f"{batch:,} pairs a step" if batch else NOT_RECORDED),
        ("Passes over the data", passes),
        *training_speed(records),
        ("Data fingerprint", in_words(data.get("fingerprint"))),
        ("Base hash", in_words(base.get("sha256"))),
        ("Model hash", in_words(model)),
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
        max_steps=count_of(run.get("max_steps")),
        batch=batch,
        size=size,
        model=str(model) if model else None,
        facts=facts,
        differing=None if defaults is None else _differing(config, flatten(defaults)),
        config=yaml.safe_dump(config, sort_keys=False) if config else None,
        environment=rows_of(flatten(mapping_of(optional_json(paths.environment)))),
        curves=training_curves(records),
        grids=grids,
        grid_settings=rows_of({k: v for k, v in sampled.items() if k not in _LOG_KEYS}),
        remarks=(*grids.remarks, *torn_remark(paths.log, torn)),
    )


def read_synthetic(root: Path, most_items: int) -> SyntheticSection:
    """Facts, measured numbers and panels of a synthetic set."""
    paths = SyntheticPaths(root)
    header = read_json(paths.plan_header)
    settings, origin = mapping_of(header.get("settings")), mapping_of(header.get("origin"))
    lines, torn = read_records(paths.manifest)
    by_name = {str(line["id"]): line for line in lines if "id" in line}
    records = sorted(by_name.values(), key=lambda line: count_of(line.get("index")) or 0)
    planned, model = count_of(header.get("items")), settings.get("model_sha256")
    shown = panels.synthetic_items(root, header, records, most_items)
    measured = mapping_of(optional_json(root / ALIGNMENT_NAME))
    measured = {key: value for key, value in measured.items() if key not in _NOT_MEASURED}
    dice = {key: value for key in DICE_WORDS if (value := number_of(measured.get(key))) is not None}
    bars = [(DICE_WORDS[key], value) for key, value in dice.items()]
    told = ", ".join(f"{label}: {value:.3f}" for label, value in bars)
    facts = (
        ("Images planned", in_words(planned)),
        ("Images finished", in_words(len(records))),
        ("Recipe of the masks", in_words(settings.get("recipe"))),
        ("Images per mask", in_words(settings.get("folds"))),
        ("Masks from", in_words(origin.get("masks"))),
        ("Split of the masks", in_words(settings.get("split"), none="none (all masks)")),
        ("Mask rule", in_words(origin.get("mask_rule"))),
        ("Prompt", in_words(settings.get("prompt"))),
        ("Sampler", words.sampling(settings)),
        ("Guidance scale", words.guidance(settings)),
        ("Seed of the set", str(settings.get("seed", NOT_RECORDED))),
        ("Image size", "{0} x {0} pixels".format(in_words(settings.get("size")))),
        ("Training run", in_words(origin.get("run"))),
        ("Fingerprint of its data", in_words(origin.get("run_data_fingerprint"))),
        ("Model hash", in_words(model)),
        ("Plan hash", in_words(header.get("plan_sha256"))),
    )
    return SyntheticSection(
        name=root.resolve().name,
        path=str(root),
        planned=planned,
        finished=len(records),
        folds=count_of(settings.get("folds")),
        recipe=str(settings["recipe"]) if settings.get("recipe") else None,
        model=str(model) if model else None,
        facts=facts,
        settings=rows_of(flatten(settings)),
        items=shown.items,
        source=shown.source,
        measured=tuple((key, _measured(key, v)) for key, v in flatten(measured).items()),
        dice=dice,
        dice_chart=bar_chart("Dice coefficients", bars, description=told) if bars else None,
        remarks=(*shown.remarks, *torn_remark(paths.manifest, torn)),
    )


def _differing(
    config: Mapping[str, object], default: Mapping[str, object]
) -> tuple[tuple[str, str, str], ...]:
    """(key, value, default) of resolved settings that are not the default, which is the paper's."""
    return tuple(
        (key, in_words(value, none="none"), in_words(default.get(key, NOT_THERE), none="none"))
        for key, value in flatten(config).items()
        if value != default.get(key, NOT_THERE)
    )


def _measured(key: str, value: object) -> str:
    return in_words(value) + (f" ({DICE_WORDS[key].lower()})" if key in DICE_WORDS else "")
