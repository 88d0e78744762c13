"""`fit`: from a folder of image-mask pairs to a run folder, by one repeatable call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from siamese_diffusion.core.artifacts import RunPaths, text_sha256
from siamese_diffusion.core.config import asked as merge
from siamese_diffusion.core.config import build, nearest, to_yaml
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.run_folder import (
    COMPLETE,
    TRAINING,
    RunInfo,
    claim_run,
    generator_class,
    save_model,
    write_run,
)
from siamese_diffusion.generators.settings import PRESETS, FitSettings
from siamese_diffusion.generators.task import PairTask
from siamese_diffusion.generators.tensors import pair_tensors
from siamese_diffusion.models.base import Base, load_base
from siamese_diffusion.training.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitPlan:
    """Everything that is known before the expensive part.

    Attributes:
        asked: Preset, file and overrides, merged.
        settings: The resolved settings.
        folder: The training pairs.
        base: The loaded base.
    """

    asked: Mapping[str, object]
    settings: FitSettings
    folder: PairFolder
    base: Base


def resolve_settings(
    *,
    generator: str | None = None,
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[dict[str, object], FitSettings]:
    """Preset, then file, then overrides; what was asked, and the settings of that generator.

    Raises:
        ConfigError: For an unknown preset, generator or key, or an impossible value.
    """
    if preset is not None and preset not in PRESETS:
        raise ConfigError(
            f"unknown preset '{preset}'{nearest(preset, list(PRESETS))}",
            hint=f"choose one of: {', '.join(PRESETS)}",
        )
    # A resolved config file says everything; a preset under it would only be noise.
    start = PRESETS[preset] if preset else ({} if config else PRESETS["paper"])
    content = merge(start, file=config, overrides=overrides)
    if generator is not None:
        content["generator"] = generator
    name = str(content.get("generator", "siamese"))
    return content, build(generator_class(name).Settings, {**content, "generator": name})


def plan_fit(
    data: Path | str,
    base: str | Path,
    *,
    settings: FitSettings,
    asked: Mapping[str, object],
    split: str | None = None,
) -> FitPlan:
    """Open and check the data, load the base; nothing is written.

    Args:
        split: None takes `train` if the folder has that list, else every pair.
    """
    root = Path(data)
    if split is None and (root / "train.txt").exists():
        split = "train"
    folder = PairFolder.open(root, split=split, prompt=settings.data.prompt)
    folder = _without_degenerate(folder, settings)
    return FitPlan(asked, settings, folder, load_base(base))


def fit(
    data: Path | str,
    out: Path | str,
    *,
    base: str | Path = "tiny",
    split: str | None = None,
    generator: str | None = None,
    preset: str | None = None,
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    quiet: bool = False,
) -> Path:
    """Train a generator; the same call continues an interrupted training.

    Args:
        data: Data-set folder.
        out: Run folder: new, or of this very run.
        base: "tiny", a diffusers folder, a single file or a hub id.
        split: Split list; None takes `train` if there is one, else every pair.
        generator: Name of the method; None takes the config's, "siamese" by default.
        preset: "paper" (default) or "small".
        config: YAML file over the preset.
        overrides: `a.b=value` over both.
        device: "cpu" or "cuda"; None takes what is there.
        quiet: No progress bars.

    Returns:
        `out`.

    Raises:
        SiamDiffError: Of the kind that says what to mend; see `core.errors`.
    """
    path = Path(config) if config is not None else None
    content, settings = resolve_settings(
        generator=generator, preset=preset, config=path, overrides=overrides
    )
    plan = plan_fit(data, base, settings=settings, asked=content, split=split)
    return run_plan(plan, Path(out), device=device, quiet=quiet)


def run_plan(plan: FitPlan, out: Path, *, device: str | None = None, quiet: bool = False) -> Path:
    """Carry out a plan in a run folder."""
    settings, folder, base = plan.settings, plan.folder, plan.base
    paths = RunPaths(out)
    base_sha256 = base.sha256  # before training changes the decoder
    info = RunInfo(
        generator=settings.generator,
        state=TRAINING,
        base={"reference": base.lasting_reference, "kind": base.kind, "sha256": base_sha256},
        model_sha256=None,
        step=0,
        max_steps=settings.train.steps,
        size=settings.data.size,
        prompt=folder.pairs[0].prompt,
        data={
            "root": str(folder.root.resolve()),
            "split": folder.split,
            "pairs": len(folder),
            "fingerprint": folder.fingerprint(),
            "mask_rule": folder.mask_rule.statement,
        },
    )
    if claim_run(paths, info, settings, plan.asked).state == COMPLETE:
        logger.info("'%s' is already complete", out)
        return out
    generator = generator_class(settings.generator).build(settings, base)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tensors = pair_tensors(
        base,
        folder,
        size=settings.data.size,
        cache=paths.cache,
        device=where,
        base_sha256=base_sha256,
        quiet=quiet,
    )
    shown = _preview_folder(plan)
    preview = (
        tensors
        if shown is None
        else pair_tensors(
            base,
            shown,
            size=settings.data.size,
            cache=paths.cache,
            device=where,
            base_sha256=base_sha256,
            quiet=quiet,
        )
    )
    task = PairTask(generator, base, tensors, preview, settings=settings, paths=paths)
    trainer = Trainer(
        settings.train,
        task,
        folder=paths.root,
        settings_hash=text_sha256(to_yaml(settings)),
        label=settings.generator,
        quiet=quiet,
        device=device,
    )
    trainer.run()
    if trainer.average is not None:
        trainer.average.finish()
    if trainer.accelerator.is_main_process:
        identity = save_model(paths, generator.modules, base_sha256=base_sha256)
        write_run(
            paths, replace(info, state=COMPLETE, model_sha256=identity, step=settings.train.steps)
        )
    trainer.accelerator.wait_for_everyone()
    return out


def _without_degenerate(folder: PairFolder, settings: FitSettings) -> PairFolder:
    found = folder.degenerate(settings.data.size)
    stems = [stem for group in found.values() for stem in group]
    if not stems:
        return folder
    told = ", ".join(f"{len(v)} {k}" for k, v in found.items() if v)
    if settings.data.degenerate == "drop":
        logger.warning("dropped %d pairs with degenerate masks (%s)", len(stems), told)
        return folder.without(stems)
    logger.warning(
        "%d masks are degenerate (%s), e.g. '%s'; data.degenerate=drop leaves them out",
        len(stems),
        told,
        stems[0],
    )
    return folder


def _preview_folder(plan: FitPlan) -> PairFolder | None:
    """Pairs for validation: the named list, cut to what is used; None if there is no such list."""
    preview = plan.settings.preview
    root = plan.folder.root
    name = preview.validation_split
    if name == plan.folder.split or not (root / f"{name}.txt").exists():
        return None
    folder = PairFolder.open(root, split=name, prompt=plan.settings.data.prompt)
    # A lesionless mask shows nothing in a grid of lesions.
    folder = folder.without(
        [s for v in folder.degenerate(plan.settings.data.size).values() for s in v]
    )
    n = max(preview.pairs, preview.validation_pairs)
    step = max(1.0, len(folder) / n)
    kept = {folder.stems[int(i * step)] for i in range(min(n, len(folder)))}
    return folder.without(set(folder.stems) - kept)
