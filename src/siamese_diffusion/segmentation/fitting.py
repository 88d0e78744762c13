"""`segment fit`: from real and synthetic pairs to a trained segmenter, by one repeatable call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from siamese_diffusion.core.artifacts import file_sha256, text_sha256
from siamese_diffusion.core.config import asked as merge
from siamese_diffusion.core.config import build, nearest, to_yaml
from siamese_diffusion.core.errors import ConfigError, DataError, WeightsError
from siamese_diffusion.core.folders import SegmenterPaths
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.core.seeding import derive_seed
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.checkpoints import load_encoder
from siamese_diffusion.segmentation.leakage import record_training, write_training
from siamese_diffusion.segmentation.mixture import Mixture, check_proportion, mix
from siamese_diffusion.segmentation.recipe import updates
from siamese_diffusion.segmentation.run_folder import (
    COMPLETE,
    TRAINING,
    SegmenterInfo,
    build_segmenter,
    claim_segmenter_run,
    load_weights,
    save_segmenter,
    settings_class,
    write_segmenter_run,
)
from siamese_diffusion.segmentation.samples import colour_pools, load_folder, load_mixture
from siamese_diffusion.segmentation.settings import PRESETS, SegmentSettings
from siamese_diffusion.segmentation.task import SegmentTask
from siamese_diffusion.training.processes import (
    choose_device,
    first_process_first,
    join_processes,
)
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import Trainer, check_training

logger = logging.getLogger(__name__)
_HOLD_OUT_SEED = 0  # the same pairs are held out whatever the run's seed


@dataclass(frozen=True)
class SegmentPlan:
    """Everything that is known before the expensive part.

    Attributes:
        asked: Preset, file and overrides, merged.
        settings: The resolved settings.
        mixture: The training list.
        validation: Pairs for schedule and choice of weights; None without.
        encoder_weights: File to start the encoder from; None for random weights.
        steps: Updates of the whole training.
    """

    asked: Mapping[str, object]
    settings: SegmentSettings
    mixture: Mixture
    validation: PairFolder | None
    encoder_weights: Path | None
    steps: int


def resolve_settings(
    model: str,
    *,
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> tuple[dict[str, object], SegmentSettings]:
    """Preset, then file, then overrides; what was asked, and the settings of that network.

    Raises:
        ConfigError: For an unknown network, preset or key, or an impossible value.
    """
    cls = settings_class(model)
    if preset is not None and preset not in PRESETS:
        raise ConfigError(
            f"unknown preset '{preset}'{nearest(preset, list(PRESETS))}",
            hint=f"choose one of: {', '.join(PRESETS)}",
        )
    presets = PRESETS[preset or "paper"]
    start = presets.get(model, presets.get("", {}))
    content = merge(start, file=config, overrides=overrides)
    if seed is not None:
        content = merge(content, overrides=[f"train.seed={seed}"])
    return content, build(cls, {**content, "model": model})


def plan_segment(
    real: Path | str,
    *,
    settings: SegmentSettings,
    asked: Mapping[str, object],
    synthetic: Path | str | None = None,
    ratio: float | None = None,
    only_synthetic: bool = False,
    copy_paste: bool = False,
    split: str | None = None,
    encoder_weights: Path | None = None,
) -> SegmentPlan:
    """Open and check the data; nothing is written.

    Args:
        split: Of the real set; None takes `train` if the folder has that list, else every pair.
    """
    check_proportion(
        synthetic=synthetic is not None,
        ratio=ratio,
        only_synthetic=only_synthetic,
        copy_paste=copy_paste,
    )
    if encoder_weights is not None and not encoder_weights.is_file():
        raise WeightsError(
            f"weights file '{encoder_weights}' does not exist", hint="check --encoder-weights"
        )
    root = Path(real)
    if split is None and (root / "train.txt").exists():
        split = "train"
    folder = _without_degenerate(PairFolder.open(root, split=split), settings)
    folder, validation = _held_out(folder, settings)
    extra = None
    if synthetic is not None:
        extra = _without_degenerate(PairFolder.open(Path(synthetic)), settings)
    mixture = mix(
        folder,
        extra,
        ratio=ratio,
        only_synthetic=only_synthetic,
        copy_paste=copy_paste,
        seed=settings.train.seed,
    )
    if extra is not None and mixture.known is None:
        logger.warning("'%s' has no manifest: the leakage guard is off for its pairs", extra.root)
    if validation is not None:
        refuse_shared_stems(folder, validation, "validation")
    train = settings.train
    stepped = settings.inputs.scales if not settings.inputs.scale_shares else ()
    steps = train.steps or updates(len(mixture), train.batch_size, train.epochs, stepped)
    return SegmentPlan(asked, settings, mixture, validation, encoder_weights, steps)


def fit_segmenter(
    model: str,
    real: Path | str,
    out: Path | str,
    *,
    synthetic: Path | str | None = None,
    ratio: float | None = None,
    only_synthetic: bool = False,
    copy_paste: bool = False,
    split: str | None = None,
    encoder_weights: Path | str | None = None,
    preset: str | None = None,
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> Path:
    """Train a segmenter; the same call continues an interrupted training.

    Args:
        model: Name in the table of segmenters.
        real: Real pairs; with `only_synthetic` they give validation and proportion alone.
        out: Run folder: new, or of this very run.
        synthetic: A synthetic set.
        ratio: Synthetic pairs for each real one.
        only_synthetic: Train on synthetic pairs alone.
        copy_paste: Use every real pair twice.
        split: Split list of the real set.
        encoder_weights: Published ImageNet checkpoint of the network's encoder.
        preset: "paper" (default) or "small".
        config: YAML file over the preset.
        overrides: `a.b=value` over both.
        seed: Of everything random; None takes the settings'.
        device: "cpu" or "cuda"; None takes what is there.
        quiet: No progress bars.

    Returns:
        `out`.

    Raises:
        SiamDiffError: Of the kind that says what to mend; see `core.errors`.
    """
    asked, settings = resolve_settings(
        model,
        preset=preset,
        config=None if config is None else Path(config),
        overrides=overrides,
        seed=seed,
    )
    plan = plan_segment(
        real,
        settings=settings,
        asked=asked,
        synthetic=synthetic,
        ratio=ratio,
        only_synthetic=only_synthetic,
        copy_paste=copy_paste,
        split=split,
        encoder_weights=None if encoder_weights is None else Path(encoder_weights),
    )
    return run_segment(plan, Path(out), device=device, quiet=quiet)


def run_segment(
    plan: SegmentPlan, out: Path, *, device: str | None = None, quiet: bool = False
) -> Path:
    """Carry out a plan in a run folder."""
    settings, mixture, weights = plan.settings, plan.mixture, plan.encoder_weights
    where, loop = choose_device(device), _loop_settings(plan)
    processes = join_processes(where)
    check_training(loop, device=where, world=processes.num_processes)
    paths = SegmenterPaths(out)
    info = SegmenterInfo(
        model=settings.model,
        state=TRAINING,
        steps=plan.steps,
        data=_describe(plan),
        encoder_weights=None
        if weights is None
        else {"path": str(weights.resolve()), "sha256": file_sha256(weights)},
        weights_sha256=None,
        chosen=settings.validation.select,
    )
    model = build_segmenter(settings)
    if weights is not None:
        load_encoder(model, weights)  # before anything is written: the file may be another's
    with first_process_first(processes):
        if claim_segmenter_run(paths, info, settings, plan.asked).state == COMPLETE:
            logger.info("'%s' is already complete", out)
            return out
        write_training(paths, record_training(mixture))
    if model.has_encoder and weights is None:
        logger.warning(
            "the encoder of %s starts from random weights: scores will not compare with published "
            "ones (--encoder-weights gives it an ImageNet checkpoint)",
            settings.model,
        )
    size = settings.inputs.size
    with ProgressBar("pairs", len(set(mixture.entries)), enabled=not quiet) as bar:
        samples, rows = load_mixture(
            mixture, size, progress=lambda done, total: bar.advance_to(done)
        )
    task = SegmentTask(
        model,
        samples,
        rows,
        validation=None if plan.validation is None else load_folder(plan.validation, size),
        pools=colour_pools(mixture, samples, settings.colour) if settings.colour.exchange else None,
        settings=settings,
        steps=plan.steps,
        paths=paths,
    )
    trainer = Trainer(
        loop,
        task,
        folder=out,
        settings_hash=text_sha256(to_yaml(settings)),
        label=settings.model,
        quiet=quiet,
        device=device,
    )
    trainer.run()
    if trainer.accelerator.is_main_process:
        if settings.validation.select == "best" and paths.best.exists():
            load_weights(model, paths.best)
        sha256 = save_segmenter(paths, model)
        write_segmenter_run(paths, replace(info, state=COMPLETE, weights_sha256=sha256))
    trainer.accelerator.wait_for_everyone()
    return out


def refuse_shared_stems(train: PairFolder, other: PairFolder, what: str) -> None:
    """Refuse a split of the same folder that shares pairs with the training list.

    Raises:
        DataError: With the number of shared pairs and the first of them.
    """
    shared = sorted(set(train.stems) & set(other.stems))
    if train.root.resolve() == other.root.resolve() and shared:
        raise DataError(
            f"{what} split '{other.split}' shares {len(shared)} pairs with the training list, "
            f"e.g. '{shared[0]}'",
            hint="remove them from one of the lists",
        )


def _loop_settings(plan: SegmentPlan) -> TrainSettings:
    train, validation = plan.settings.train, plan.settings.validation
    per_epoch = max(1, plan.steps // train.epochs) if train.steps is None else None
    every = validation.every_epochs * (per_epoch or max(1, len(plan.mixture) // train.batch_size))
    return TrainSettings(
        steps=plan.steps,
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        learning_rate=plan.settings.optimizer.learning_rate,
        weight_decay=plan.settings.optimizer.weight_decay,
        max_gradient_value=train.max_gradient_value,
        precision=train.precision,
        seed=train.seed,
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        log_every=train.log_every,
        validate_every=every,
        sample_every=0,
        tensorboard=train.tensorboard,
    )


def _held_out(
    folder: PairFolder, settings: SegmentSettings
) -> tuple[PairFolder, PairFolder | None]:
    """Training and validation pairs: the named list, or a part held out where one is needed."""
    validation = settings.validation
    name = validation.split
    if name != folder.split and (folder.root / f"{name}.txt").exists():
        return folder, PairFolder.open(folder.root, split=name)
    if settings.schedule.name != "plateau" and validation.select != "best":
        return folder, None
    count = max(1, round(validation.hold_out * len(folder)))
    if count >= len(folder):
        raise DataError(
            f"'{folder.root}' has {len(folder)} pairs, too few to hold one out for validation",
            hint=f"add a list {name}.txt, or use schedule.name=constant and validation.select=last",
        )
    order = np.random.default_rng(derive_seed(_HOLD_OUT_SEED, "hold-out")).permutation(len(folder))
    held = {folder.stems[int(row)] for row in order[:count]}
    logger.warning(
        "'%s' has no list '%s': %d of its %d pairs are held out for validation",
        folder.root,
        name,
        count,
        len(folder),
    )
    return folder.without(held), folder.without(set(folder.stems) - held)


def _without_degenerate(folder: PairFolder, settings: SegmentSettings) -> PairFolder:
    found = folder.degenerate(settings.inputs.size)
    stems = [stem for group in found.values() for stem in group]
    if not stems:
        return folder
    told = ", ".join(f"{len(v)} {k}" for k, v in found.items() if v)
    if settings.inputs.degenerate == "drop":
        logger.warning("dropped %d pairs with degenerate masks (%s)", len(stems), told)
        return folder.without(stems)
    logger.warning(
        "%d masks of '%s' are degenerate (%s), e.g. '%s'; inputs.degenerate=drop leaves them out",
        len(stems),
        folder.root,
        told,
        stems[0],
    )
    return folder


def _describe(plan: SegmentPlan) -> dict[str, object]:
    mixture, validation = plan.mixture, plan.validation
    described: dict[str, object] = {
        "real": {
            "root": str(mixture.real.root.resolve()),
            "split": mixture.real.split,
            "pairs": len(mixture.real),
            "fingerprint": mixture.real.fingerprint(),
        },
        "composition": mixture.composition,
        "validation": None
        if validation is None
        else {"split": validation.split, "pairs": len(validation)},
    }
    if mixture.synthetic is not None:
        described["synthetic"] = {
            "root": str(mixture.synthetic.root.resolve()),
            "pairs": len(mixture.synthetic),
            "fingerprint": mixture.synthetic.fingerprint(),
            "manifest": mixture.known is not None,
            "recipe": None if mixture.known is None else mixture.known.recipe,
        }
    return described
