"""`fit`: from a folder of image-mask pairs to a run folder, by one repeatable call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from siamese_diffusion.core.artifacts import remove_leftovers, require_free_space, text_sha256
from siamese_diffusion.core.config import asked as merge
from siamese_diffusion.core.config import build, nearest, overlay, to_yaml
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.base import Generator
from siamese_diffusion.generators.run_folder import (
    COMPLETE,
    TRAINING,
    RunInfo,
    begin_run,
    generator_class,
    recognise_run,
    save_model,
    write_run,
)
from siamese_diffusion.generators.settings import PRESETS, FitSettings
from siamese_diffusion.generators.task import PairTask
from siamese_diffusion.generators.tensors import pair_tensors
from siamese_diffusion.models.base import EMBEDDED, load_base
from siamese_diffusion.models.pixels import PixelSpace, Space, sample_shape
from siamese_diffusion.training.processes import (
    choose_device,
    first_process_first,
    join_processes,
)
from siamese_diffusion.training.trainer import Trainer, check_training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitPlan:
    """Everything that is known before the expensive part.

    Attributes:
        asked: Preset, file and overrides, merged.
        settings: The resolved settings.
        folder: The training pairs.
        preview: Pairs of grids and validation losses; None takes the training pairs.
        base: The loaded base, or the generator's own space.
    """

    asked: Mapping[str, object]
    settings: FitSettings
    folder: PairFolder
    preview: PairFolder | None
    base: Space


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
    # A resolved config file says everything; a preset under it would only be noise.
    names = preset.split(",") if preset else ([] if config else ["paper"])
    content: dict[str, object] = {}
    for name in names:
        if name not in PRESETS:
            raise ConfigError(
                f"unknown preset '{name}'{nearest(name, list(PRESETS))}",
                hint=f"choose from: {', '.join(PRESETS)}; several are joined by commas",
            )
        content = overlay(content, PRESETS[name])
    content = merge(content, file=config, overrides=overrides)
    if generator is not None:
        content["generator"] = generator
    chosen = str(content.get("generator", "siamese"))
    return content, build(generator_class(chosen).Settings, {**content, "generator": chosen})


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
    preview = _preview_folder(folder, settings)
    return FitPlan(asked, settings, folder, preview, _space(base, settings))


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
        preset: "paper" (default), "small", or several names of `PRESETS` joined by commas.
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
    where = choose_device(device)
    processes = join_processes(where)
    check_training(settings.train, device=where, world=processes.num_processes)
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
    with first_process_first(processes):
        before = recognise_run(paths, info, settings)
        if before is not None and before.state == COMPLETE:
            logger.info("'%s' is already complete", out)
            return out
        generator = generator_class(settings.generator).build(settings, base)
        if before is None:
            require_free_space(out, _bytes_of_run(plan, generator))
            begin_run(paths, info, settings, plan.asked)
        elif processes.is_main_process:
            for part in (paths.root, paths.cache, paths.samples, paths.checkpoints):
                remove_leftovers(part)
        if not any(True for _ in generator.trained_parameters()):
            return _finish(generator, paths, replace(info, max_steps=0), base_sha256)
        load = partial(
            pair_tensors,
            base,
            size=settings.data.size,
            cache=paths.cache,
            device=processes.device,
            base_sha256=base_sha256,
            quiet=quiet,
        )
        tensors = load(folder)
        generator.prepare(tensors, cache=paths.cache)
        preview = tensors if plan.preview is None else load(plan.preview)
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
        _finish(generator, paths, info, base_sha256)
    trainer.accelerator.wait_for_everyone()
    return out


def _finish(generator: Generator, paths: RunPaths, info: RunInfo, base_sha256: str) -> Path:
    """Write the weights and mark the run as complete."""
    identity = save_model(paths, generator.modules, base_sha256=base_sha256)
    write_run(paths, replace(info, state=COMPLETE, model_sha256=identity, step=info.max_steps))
    return paths.root


def _space(base: str | Path, settings: FitSettings) -> Space:
    """The generator's own space, or the base it asks for."""
    own = generator_class(settings.generator).own_space(settings)
    if own is not None and str(base) not in EMBEDDED:
        raise ConfigError(
            f"generator '{settings.generator}' works without a base, but '{base}' was given",
            hint="leave out --base",
        )
    return own or load_base(base)


def _bytes_of_run(plan: FitPlan, generator: Generator) -> int:
    """What a run will take on the disk: the data at training size, checkpoints and weights."""
    train, size = plan.settings.train, plan.settings.data.size
    # 8-bit image and mask; mean and deviation of the latents in float32
    moments_kept = 0 if isinstance(plan.base, PixelSpace) else 8
    pair = 4 * size**2 + moments_kept * prod(sample_shape(plan.base, size))
    pairs = len(plan.folder) + (len(plan.preview) if plan.preview else 0)
    trained = sum(p.numel() for _, p in generator.trained_parameters())
    moments = 8 if train.optimizer == "adamw" else 2
    checkpoint = trained * (4 + moments + (4 if train.ema_decay is not None else 0))
    model = 4 * sum(p.numel() for m in generator.modules.values() for p in m.parameters())
    # one more than is kept: the old ones go when the new one is there
    return pairs * pair + (train.keep_checkpoints + 1) * checkpoint + model


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
    kind = generator_class(settings.generator)
    for remark in kind.remarks(settings, found, pairs=len(folder)):
        logger.warning("%s", remark)
    return folder


def _preview_folder(training: PairFolder, settings: FitSettings) -> PairFolder | None:
    """Pairs for validation: the named list, cut to what is used; None if there is no such list."""
    preview = settings.preview
    name = preview.validation_split
    if name == training.split or not (training.root / f"{name}.txt").exists():
        return None
    folder = PairFolder.open(training.root, split=name, prompt=settings.data.prompt)
    # A lesionless mask shows nothing in a grid of lesions.
    empty = {s for v in folder.degenerate(settings.data.size).values() for s in v}
    if len(empty) < len(folder):
        folder = folder.without(empty)
    n = max(preview.pairs, preview.validation_pairs)
    step = max(1.0, len(folder) / n)
    kept = {folder.stems[int(i * step)] for i in range(min(n, len(folder)))}
    return folder.without(set(folder.stems) - kept)
