"""`score`: every asked metric of a synthetic set, each value with its passport."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from siamese_diffusion import __version__
from siamese_diffusion.core.artifacts import atomic_write_json
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.metrics import METRICS
from siamese_diffusion.metrics.base import Comparison, Measurement, Metric
from siamese_diffusion.metrics.extractors import loader, require_path
from siamese_diffusion.metrics.features import NetworkBench
from siamese_diffusion.metrics.passport import FORMAT, KIND, Passport
from siamese_diffusion.metrics.sets import ImageSet, one_per_mask, open_real, open_set
from siamese_diffusion.metrics.settings import DEFAULT_METRICS, ScoreSettings

_log = logging.getLogger(__name__)
# Settings that change a value, besides what the passport names by itself.
_RELEVANT: Final[Mapping[str, tuple[str, ...]]] = {
    "kid": ("kid_blocks", "kid_block_size"),
    "prdc": ("neighbours",),
    "lpips-cross": ("lpips_pairs",),
}


@dataclass(frozen=True)
class Value:
    """A measurement with its floor and its passport."""

    measurement: Measurement
    floor: float | None
    holdout: float | None
    passport: Passport

    def as_dict(self) -> dict[str, object]:
        """As a JSON object."""
        found = self.measurement
        return {
            "name": found.name,
            "value": found.value,
            "higher_is_better": found.higher_is_better,
            "interval": found.interval,
            "real_against_real": self.floor,
            "real_against_holdout": self.holdout,
            "details": dict(found.details),
            "warnings": list(found.notes),
            "passport": self.passport.as_dict(),
        }


@dataclass(frozen=True)
class ScoreReport:
    """All values of one comparison."""

    values: tuple[Value, ...]
    real: ImageSet
    synthetic: ImageSet
    holdout: ImageSet | None
    settings: ScoreSettings
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Content of a score file."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "version": __version__,
            "real": _describe(self.real),
            "synthetic": _describe(self.synthetic),
            "holdout": None if self.holdout is None else _describe(self.holdout),
            "settings": self.settings.model_dump(mode="json"),
            "warnings": list(self.warnings),
            "values": [value.as_dict() for value in self.values],
            "environment": snapshot(),
        }

    def text(self) -> str:
        """A table for people."""
        half = len(self.real) // 2
        lines = [
            f"{len(self.real)} real, {len(self.synthetic)} synthetic images, protocol "
            f"'{self.settings.protocol}'; real|real: halves of {half}",
            f"{'metric':<24}{'value':>12}  {'95 % interval':<26}{'real|real':>12}"
            + (f"{'real|holdout':>14}" if self.holdout else ""),
        ]
        for value in self.values:
            found = value.measurement
            arrow = "higher is better" if found.higher_is_better else "lower is better"
            interval = (
                "-"
                if found.interval is None
                else f"{found.interval[0]:.5g} to {found.interval[1]:.5g}"
            )
            held = f"{_shown(value.holdout):>14}" if self.holdout else ""
            lines.append(
                f"{found.name:<24}{found.value:>12.5g}  {interval:<26}{_shown(value.floor):>12}"
                f"{held}  {arrow}; {value.passport.extractor}, {value.passport.resize}"
            )
        return "\n".join(lines)


def score(
    real: Path | str,
    synthetic: Path | str,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    settings: ScoreSettings | None = None,
    weights: Mapping[str, Path] | None = None,
    holdout: Path | str | None = None,
    split: str | None = None,
    synthetic_split: str | None = None,
    holdout_split: str | None = None,
    out: Path | str | None = None,
    cache: Path | str | None = None,
    device: str | None = None,
    progress: bool = True,
) -> ScoreReport:
    """Compare a synthetic with a real set; repeated, it takes features from its cache.

    Args:
        real: Folder of real images; with a list `train.txt` and no `split`, that list.
        synthetic: Folder of synthetic images, with or without a manifest.
        metrics: Names of METRICS.
        settings: Protocol, extractors, resizing, counts and seed.
        weights: Path of each extractor's weights.
        holdout: Real images that the generator has not seen; a second floor.
        split: Split list of `real`.
        synthetic_split: Split list of `synthetic`.
        holdout_split: Split list of `holdout`.
        out: Score file to write.
        cache: Folder of the feature cache; see `default_cache`.
        device: cpu or cuda; None takes what is there.
        progress: Whether to show bars.

    Raises:
        ConfigError: For an unknown metric or extractor, or a metric asked for twice.
        DataError: If a set cannot be used for an asked metric.
        WeightsError: If weights are missing or not the ones expected.
    """
    settings = settings or ScoreSettings()
    entries = _entries(metrics)
    weights = dict(weights or {})
    for name in weights:
        loader(name)  # unknown names are told of before anything is read
    for name, metric in entries.items():
        extractor: str = getattr(settings, metric.role)
        require_path(extractor, weights.get(extractor), wanted_by=f"metric '{name}'")
    if out is not None and Path(out).is_dir():
        raise OutputError(f"'{out}' is a folder", hint="give a file name, such as score.json")
    sets = [open_real(Path(real), split=split), open_set(Path(synthetic), split=synthetic_split)]
    if settings.protocol == "paper":
        sets[1] = one_per_mask(sets[0], sets[1])
    held = None if holdout is None else open_set(Path(holdout), split=holdout_split)
    bench = NetworkBench(
        settings,
        weights,
        cache=Path(cache) if cache is not None else default_cache(),
        device=pick_device(device),
        progress=progress,
    )
    comparison = Comparison(sets[0], sets[1], bench, settings)
    _refuse_unusable(entries, comparison)
    for metric in entries.values():
        bench.extractor(metric.role)  # wrong weights are told of before the first is used
    warnings = _warnings(comparison, held)
    for warning in warnings:
        _log.warning(warning)
    values = [v for n, m in entries.items() for v in measure(n, m, comparison, holdout=held)]
    report = ScoreReport(tuple(values), sets[0], sets[1], held, settings, tuple(warnings))
    if out is not None:
        atomic_write_json(Path(out), report.as_dict())
    return report


def measure(
    name: str, metric: Metric, comparison: Comparison, *, holdout: ImageSet | None = None
) -> list[Value]:
    """All values of one metric, with floors and passports."""
    settings, real, synthetic = comparison.settings, comparison.real, comparison.synthetic
    extractor = comparison.bench.extractor(metric.role)
    measured = metric.measure(comparison, intervals=True)
    floors: dict[str, float] = {}
    if settings.floor_splits and len(real) // 2 >= metric.least(settings):
        floors = metric.floor(comparison)
    held: dict[str, float] = {}
    if holdout is not None and metric.has_holdout and len(holdout) >= metric.least(settings):
        against = Comparison(real, holdout, comparison.bench, settings)
        held = {f.name: f.value for f in metric.measure(against, intervals=False)}
    values = []
    for found in measured:
        passport = Passport(
            metric=found.name,
            protocol=settings.protocol,
            extractor=extractor.name,
            extractor_sha256=extractor.sha256,
            resize=extractor.resize,
            n=len(real),
            m=len(synthetic),
            real=real.fingerprint,
            synthetic=synthetic.fingerprint,
            seed=settings.seed,
            settings={key: getattr(settings, key) for key in _RELEVANT.get(name, ())},
        )
        for note in found.notes:
            _log.warning("%s: %s", found.name, note)
        values.append(Value(found, floors.get(found.name), held.get(found.name), passport))
    return values


def parse_weights(texts: Sequence[str]) -> dict[str, Path]:
    """`NAME=PATH` options as a mapping.

    Raises:
        ConfigError: If one has no name or no path, or a name comes twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not (separator and name.strip() and path.strip()):
            raise ConfigError(
                f"'{text}' is not an extractor",
                hint="write --extractor NAME=PATH, e.g. inception=weights/inception.pth",
            )
        if name.strip() in found:
            raise ConfigError(f"extractor '{name.strip()}' is given twice", hint="give it once")
        found[name.strip()] = Path(path.strip()).expanduser()
    return found


def pick_device(name: str | None) -> torch.device:
    """The named device, or what is there.

    Raises:
        ConfigError: If there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device '{name}'", hint="use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' is not there", hint="use --device cpu")
    return device


def default_cache() -> Path:
    """`SIAMDIFF_CACHE`, else `siamdiff` in the user's cache folder."""
    chosen = os.environ.get("SIAMDIFF_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "siamdiff" / "features"


def _entries(names: Sequence[str]) -> dict[str, Metric]:
    if not names:
        raise ConfigError("no metric was asked for", hint=f"choose from: {', '.join(METRICS)}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"metric '{twice[0]}' is asked for twice", hint="name each metric once")
    entries = {}
    for name in names:
        made = METRICS[name]
        assert callable(made)
        entries[name] = made()
    return entries


def _refuse_unusable(entries: Mapping[str, Metric], comparison: Comparison) -> None:
    """Tell, before any network runs, which metric cannot be had from these sets."""
    for name, metric in entries.items():
        least = metric.least(comparison.settings)
        for images in (comparison.real, comparison.synthetic):
            if len(images) < least:
                raise DataError(
                    f"metric '{name}' needs {least} images in each set, but {images.name} has "
                    f"{len(images)}",
                    hint="give more images, or leave the metric out with --metrics",
                )
        if metric.is_paired:
            comparison.pairs()


def _warnings(comparison: Comparison, holdout: ImageSet | None) -> list[str]:
    real, synthetic = comparison.real, comparison.synthetic
    found = [*real.warnings, *synthetic.warnings, *(holdout.warnings if holdout else ())]
    if real.fingerprint == synthetic.fingerprint:
        found.append(
            f"{real.name} and {synthetic.name} hold the same images: the values are those of a set "
            "against itself"
        )
    else:
        shared = {f.sha256 for f in real.files} & {f.sha256 for f in synthetic.files}
        if shared:
            found.append(f"{len(shared)} images are in both sets, byte for byte")
    size = comparison.settings.size
    for images in (real, synthetic):
        smaller = sum(min(file.size) < size for file in images.files)
        if smaller:
            found.append(
                f"{smaller} of {len(images)} images of {images.name} are smaller than {size} "
                "pixels and are enlarged"
            )
    formats = [{f.path.suffix.lower() for f in s.files} for s in (real, synthetic)]
    if formats[0] != formats[1]:
        shown = [", ".join(sorted(kinds)) for kinds in formats]
        found.append(
            f"real images are {shown[0]}, synthetic ones {shown[1]}: compression on one side moves "
            "fid and kid"
        )
    return list(dict.fromkeys(found))


def _describe(images: ImageSet) -> dict[str, object]:
    sizes = sorted({file.size for file in images.files})
    return {
        "path": str(images.root),
        "split": images.split,
        "n": len(images),
        "fingerprint": images.fingerprint,
        "sizes": [f"{w}x{h}" for w, h in sizes[:8]],
    }


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
