"""The verbs of `siamdiff segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from siamese_diffusion.cli.options import Config, Device, Set

segment_app = typer.Typer(no_args_is_help=True, help="Train and score segmentation networks.")


@segment_app.command("fit")
def segment_fit(
    model: Annotated[
        str, typer.Option(help="sanet, polyp-pvt, ctnet, unet or segformer.", show_default=False)
    ],
    real: Annotated[Path, typer.Option(help="Data-set folder of real pairs.")],
    out: Annotated[Path, typer.Option(help="Run folder; the same command continues it.")],
    synthetic: Annotated[Path | None, typer.Option(help="Synthetic set to add.")] = None,
    ratio: Annotated[
        float | None, typer.Option(help="Synthetic pairs for each real one; default 1.")
    ] = None,
    only_synthetic: Annotated[
        bool, typer.Option("--only-synthetic", help="Train on the synthetic set alone.")
    ] = False,
    copy_paste: Annotated[
        bool, typer.Option("--copy-paste", help="Use every real pair twice (a baseline).")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Real pairs of this list; default: train if there is one.")
    ] = None,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="ImageNet checkpoint of the network's encoder.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="paper (default) or small.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    config: Config = None,
    set_: Set = None,
    device: Device = None,
) -> None:
    """Train a segmenter on real, synthetic or mixed pairs. The same command continues it."""
    from siamese_diffusion.segmentation.fitting import fit_segmenter

    print(
        fit_segmenter(
            model,
            real,
            out,
            synthetic=synthetic,
            ratio=ratio,
            only_synthetic=only_synthetic,
            copy_paste=copy_paste,
            split=split,
            encoder_weights=encoder_weights,
            preset=preset,
            config=config,
            overrides=set_ or [],
            seed=seed,
            device=device,
        )
    )


@segment_app.command("evaluate")
def segment_evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of a segmenter.")],
    data: Annotated[Path, typer.Option(help="Data-set folder.")],
    out: Annotated[Path | None, typer.Option(help="Default: result.json in the run folder.")] = (
        None
    ),
    split: Annotated[
        list[str] | None, typer.Option("--split", help="One test list; repeatable.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="polyp, isic-unet, segformer or all.")] = "all",
    absent: Annotated[
        Literal["one", "skip"], typer.Option(help="Classes absent from truth and prediction.")
    ] = "one",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 1000,
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Score pairs it was trained on, and record that."),
    ] = False,
    device: Device = None,
) -> None:
    """Score a segmenter by every definition; prints mDice and mIoU of the asked protocol."""
    from siamese_diffusion.core.folders import SegmenterPaths
    from siamese_diffusion.segmentation.evaluation import evaluate, protocol_text

    target = out or SegmenterPaths(run).result
    result = evaluate(
        run,
        data,
        target,
        splits=split or [],
        protocol=protocol,
        absent=absent,
        resamples=resamples,
        allow_overlap=allow_overlap,
        device=device,
    )
    print(protocol_text(result))
    print(target)


@segment_app.command("predict")
def segment_predict(
    run: Annotated[Path, typer.Argument(help="Run folder of a segmenter.")],
    images: Annotated[Path, typer.Option(help="Data-set folder, or a folder of pictures alone.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")],
    split: Annotated[str | None, typer.Option(help="Pictures of this list only.")] = None,
    device: Device = None,
) -> None:
    """Write a mask for every picture, at the picture's own size."""
    from siamese_diffusion.segmentation.inference import predict_folder

    done = predict_folder(run, images, out, split=split, device=device)
    print(f"{out}: {done} masks")


def utility(
    model: Annotated[
        str, typer.Option(help="sanet, polyp-pvt, ctnet, unet or segformer.", show_default=False)
    ],
    real: Annotated[Path, typer.Option(help="Data-set folder of real pairs.")],
    synthetic: Annotated[
        list[Path], typer.Option("--synthetic", help="Synthetic set; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the curve; the same command continues it.")],
    folds: Annotated[
        str, typer.Option(help="Synthetic pairs for each real one, separated by commas.")
    ] = "0,0.5,1,2,3,4",
    seeds: Annotated[int, typer.Option(help="Trainings of each cell.")] = 3,
    test: Annotated[
        Path | None, typer.Option(help="Folder of the test lists; default: the real one.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Test list; repeatable; default: test.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="polyp or segformer.")] = "polyp",
    baselines: Annotated[
        bool, typer.Option(help="Also Copy-Paste and classical augmentation.")
    ] = True,
    encoder_weights: Annotated[
        Path | None, typer.Option(help="ImageNet checkpoint of the network's encoder.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="paper (default) or small.")] = None,
    config: Config = None,
    set_: Set = None,
    device: Device = None,
) -> None:
    """How much does a synthetic set help a segmenter? Score against folds, with intervals."""
    from siamese_diffusion.core.errors import ConfigError
    from siamese_diffusion.core.folders import UtilityPaths
    from siamese_diffusion.segmentation.utility import measure_utility
    from siamese_diffusion.segmentation.utility_curve import conclusions

    try:
        wanted = [float(part) for part in folds.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"--folds '{folds}' is no list of numbers", hint="for instance --folds 0,0.5,1,2"
        ) from None
    curve = measure_utility(
        model,
        real,
        list(synthetic),
        out,
        folds=wanted,
        seeds=seeds,
        test=test,
        splits=split or ["test"],
        protocol=protocol,
        baselines=baselines,
        preset=preset,
        config=config,
        overrides=set_ or [],
        encoder_weights=encoder_weights,
        device=device,
    )
    for sentence in conclusions(curve):
        print(sentence)
    print(UtilityPaths(out).page)
