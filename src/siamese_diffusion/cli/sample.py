"""`siamdiff sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from siamese_diffusion.cli.options import Device, MovedBase


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    masks: Annotated[Path, typer.Option(help="Data-set folder, or a folder of masks alone.")],
    out: Annotated[Path, typer.Option(help="Synthetic set; the same command continues it.")],
    split: Annotated[str | None, typer.Option(help="Masks of this list only.")] = None,
    recipe: Annotated[
        Literal["real", "random"], typer.Option(help="Masks as they are, or transformed.")
    ] = "real",
    folds: Annotated[int, typer.Option(help="Images per mask.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps; dpm-solver++ needs about 20.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 9.0,
    seed: Annotated[int, typer.Option(help="Base of every item's own seed.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images denoised together.")] = 8,
    exact: Annotated[
        bool, typer.Option("--exact", help="One at a time: same bits for any batch size.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="Of the denoiser; bf16 is faster on GPUs.")
    ] = "fp32",
    sampler: Annotated[
        Literal["ddim", "dpm-solver++"], typer.Option(help="Solver; the paper's is ddim.")
    ] = "ddim",
    guidance_interval: Annotated[
        str | None, typer.Option(help="Timesteps at which guidance acts, LOW:HIGH; default: all.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Default: the prompt of training.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The masks' images, for methods that need them: close copies result."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML ranges of the random recipe.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One range of the random recipe, key=value.")
    ] = None,
    base: MovedBase = None,
    device: Device = None,
) -> None:
    """Make a synthetic set: one image per mask and fold. Several processes may share one folder."""
    from siamese_diffusion.core.config import resolve
    from siamese_diffusion.data.settings import RandomRecipe
    from siamese_diffusion.sampling.bulk import sample as run_sample

    ranges = resolve(RandomRecipe, file=config, overrides=set_ or [])
    done = run_sample(
        run,
        masks,
        out,
        split=split,
        recipe=recipe,
        folds=folds,
        steps=steps,
        guidance_scale=guidance,
        seed=seed,
        batch_size=batch_size,
        exact=exact,
        random=ranges,
        base=base,
        device=device,
        prompt=prompt,
        images=images,
        precision=precision,
        sampler=sampler,
        guidance_interval=_interval(guidance_interval),
    )
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{done.out}: {done.planned} planned, {done.made} made, {done.already_there} were there")


def _interval(text: str | None) -> tuple[int, int] | None:
    from siamese_diffusion.core.errors import ConfigError

    if text is None:
        return None
    low, colon, high = text.partition(":")
    if not (colon and low.isdecimal() and high.isdecimal()):
        raise ConfigError(
            f"--guidance-interval '{text}' is no interval",
            hint="give the lowest and the highest timestep, for instance 200:800",
        )
    return int(low), int(high)
