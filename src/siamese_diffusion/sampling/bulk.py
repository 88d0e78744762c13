"""Bulk sampling: a folder of masks becomes a synthetic data set, by one or several processes.

First a plan of every item, then work that may be killed at any moment and continued by the same
command. Workers (`worker.py`) agree through the plan and through locks (`claims.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siamese_diffusion.core.artifacts import make_folder, remove_leftovers, sync_folder
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.data.settings import RandomRecipe
from siamese_diffusion.diffusion.sampler import Sampler, SamplerName
from siamese_diffusion.sampling.claims import Claims
from siamese_diffusion.sampling.folder import (
    refuse_foreign_folder,
    refuse_strangers,
    settle_plan,
)
from siamese_diffusion.sampling.plan import Plan, make_plan
from siamese_diffusion.sampling.provenance import complete_manifest
from siamese_diffusion.sampling.settings import GUIDANCE_SCALE, STEPS, Precision, SampleSettings
from siamese_diffusion.sampling.worker import MaskToImage, PairToImage, Worker, signals_noted

if TYPE_CHECKING:
    from siamese_diffusion.sampling.pair_pipeline import PairPipeline
    from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline


@dataclass(frozen=True)
class SampleSummary:
    """What one process did.

    Attributes:
        out: The synthetic set.
        planned: Items of the plan.
        made: Items made by this process.
        already_there: Items found finished at the start; the rest came from other processes.
        seconds: Time spent making images.
        images_per_second: Of this process; 0 if it made none.
        warnings: Remarks on the masks.
    """

    out: Path
    planned: int
    made: int
    already_there: int
    seconds: float
    images_per_second: float
    warnings: tuple[str, ...] = ()


def sample(
    run: Path | str,
    masks: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    recipe: Literal["real", "random"] = "real",
    folds: int = 1,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int = 0,
    batch_size: int = 8,
    exact: bool = False,
    random: RandomRecipe | None = None,
    base: str | None = None,
    device: str | None = None,
    prompt: str | None = None,
    progress: bool = True,
    images: Path | str | None = None,
    precision: Precision = "fp32",
    sampler: SamplerName = "ddim",
    guidance_interval: tuple[int, int] | None = None,
) -> SampleSummary:
    """Make a synthetic set from a trained run and a folder of masks; repeat it to continue.

    Args:
        run: Run folder of the model.
        masks: Data-set folder, or a folder of masks alone.
        out: The synthetic set: new, empty, or begun by the same command.
        split: Name of a split list of `masks`; None takes every mask.
        recipe: `real` keeps masks as they are, `random` transforms each.
        folds: Images per mask.
        steps: Predictions of the sampler.
        guidance_scale: Classifier-free guidance, dimensionless.
        seed: Base of every item's own seed.
        batch_size: Images denoised together.
        exact: Denoise one at a time, so that bits do not depend on the batch size.
        random: Ranges of the `random` recipe.
        base: Base model, where it is no longer where the run says.
        device: Torch device; None takes the best.
        prompt: Prompt of every image; None takes the run's.
        progress: Show progress on standard error.
        images: Folder with the masks' images, for generators that are controlled by both; their
            results are close copies and are marked as such.
        precision: Of the denoiser: bf16 halves memory and is faster where the device computes in
            it; the images differ slightly from those in fp32.
        sampler: `ddim`, or `dpm-solver++` for about 20 steps.
        guidance_interval: Lowest and highest timestep at which guidance acts; None: everywhere.

    Raises:
        ConfigError: If a setting is impossible, or images are missing or given for nothing.
        DataError: If the masks cannot be used.
        OutputError: If `out` holds something else or cannot be written.
        Interrupted: After SIGTERM or SIGINT, with the current batch written.
    """
    settings = build(
        SampleSettings,
        {
            "recipe": recipe,
            "folds": folds,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "batch_size": batch_size,
            "exact": exact,
            "random": random or RandomRecipe(),
            "precision": precision,
            "sampler": sampler,
            "guidance_interval": guidance_interval,
        },
    )
    # What can be refused without the model is refused before it is loaded.
    refuse_foreign_folder(SyntheticPaths(Path(out)))
    PairFolder.open(Path(masks), split=split, need="masks")
    from siamese_diffusion.sampling.pipeline import denoiser_dtype

    kind = _pipeline_class(Path(run), images, settings.chosen_sampler)
    pipeline = kind.from_pretrained(
        run, base=base, device=device, dtype=denoiser_dtype(settings.precision)
    )
    return sample_with(
        pipeline,
        masks,
        out,
        settings=settings,
        split=split,
        prompt=prompt,
        progress=progress,
        images=images,
    )


def _pipeline_class(
    run: Path, images: Path | str | None, sampler: Sampler
) -> type[SiameseDiffusionPipeline] | type[PairPipeline]:
    """The pipeline for what a run is controlled by; refuses what it cannot do or has no use for."""
    from siamese_diffusion.generators.base import require_sampler
    from siamese_diffusion.generators.run_folder import generator_class, read_run
    from siamese_diffusion.sampling.pair_pipeline import PairPipeline
    from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

    name = read_run(RunPaths(run))[0].generator
    takes_images = generator_class(name).control == "mask+image"
    if takes_images and images is None:
        raise ConfigError(
            f"generator '{name}' samples from masks and their images, but no images were given",
            hint="add --images FOLDER with the image of every mask; the results are close copies",
        )
    if images is not None and not takes_images:
        raise ConfigError(
            f"generator '{name}' samples from masks alone, but the images of '{images}' were given",
            hint="leave out --images",
        )
    require_sampler(generator_class(name), sampler)
    return PairPipeline if takes_images else SiameseDiffusionPipeline


def sample_with(
    pipeline: MaskToImage | PairToImage,
    masks: Path | str,
    out: Path | str,
    *,
    settings: SampleSettings | None = None,
    split: str | None = None,
    prompt: str | None = None,
    progress: bool = True,
    images: Path | str | None = None,
) -> SampleSummary:
    """`sample` with a pipeline that is already loaded, in the precision that the settings name.

    Errors and meaning as there.
    """
    settings = settings or SampleSettings()
    paths = SyntheticPaths(Path(out))
    refuse_foreign_folder(paths)
    folder = PairFolder.open(Path(masks), split=split, need="masks")
    pictures = None if images is None else PairFolder.open(Path(images), need="images")
    plan = make_plan(
        folder,
        settings,
        size=pipeline.size,
        model_sha256=pipeline.model_sha256,
        prompt=pipeline.prompt if prompt is None else prompt,
        run=pipeline.run,
        images=pictures,
        nature=getattr(pipeline, "nature", "synthetic"),
    )
    claims = Claims(paths.claims)
    lock = claims.hold("plan")
    try:
        settle_plan(paths, plan)
    finally:
        lock.release()
    refuse_strangers(plan, paths)
    make_folder(paths.images)
    make_folder(paths.masks)
    with signals_noted() as signals, ProgressBar("sample", len(plan.items), enabled=progress) as b:
        worker = Worker(pipeline, folder, plan, paths, claims, settings, signals, b, pictures)
        try:
            worker.work()
        except BaseException:
            claims.remove_folder()
            raise
    _finish(plan, paths, claims)
    return SampleSummary(
        out=paths.root,
        planned=len(plan.items),
        made=worker.made,
        already_there=worker.already_there,
        seconds=worker.seconds,
        images_per_second=worker.speed,
        warnings=plan.warnings,
    )


def _finish(plan: Plan, paths: SyntheticPaths, claims: Claims) -> None:
    """Leave a finished set: whole manifest, no temporaries, no claims."""
    lock = claims.hold("finish")
    try:
        # A worker may still be between its last image and its manifest line.
        claims.wait_for_others(but="finish")
        complete_manifest(plan, paths)
        for folder in (paths.root, paths.images, paths.masks):
            remove_leftovers(folder)
            sync_folder(folder)
    finally:
        lock.release()
        claims.remove_folder()
