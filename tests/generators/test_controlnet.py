"""ControlNet (M) is the siamese code with its extras off: to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.controlnet import ControlNetFitSettings
from siamese_diffusion.generators.fitting import fit, resolve_settings
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

SMALL = [
    *("data.size=64", "train.steps=2", "train.batch_size=4", "train.learning_rate=0.001"),
    *("train.sample_every=0", "train.validate_every=0", "train.tensorboard=false"),
]
OFF = [
    *("model.hint=sparse", "objective.image_pass=false", "objective.consistency_weight=0"),
    "objective.online_augment=false",
]


def trained(generator: str, more: list[str], data: Path, base: Path, out: Path) -> Path:
    return fit(
        data,
        out,
        base=base,
        generator=generator,
        overrides=[*SMALL, *more],
        device="cpu",
        quiet=True,
    )


@pytest.mark.parametrize("decoder", ["true", "false"], ids=["decoder_trained", "stock"])
def test_controlnet_equals_siamese_with_extras_off_bit_for_bit(
    decoder: str, phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    switch = [f"model.train_decoder={decoder}"]
    own = trained("controlnet", switch, phantoms, small_base_folder, tmp_path / "own")
    siamese = trained("siamese", OFF + switch, phantoms, small_base_folder, tmp_path / "siamese")
    for name in ("control", "decoder"):
        file = f"model/{name}.safetensors"
        assert (own / file).read_bytes() == (siamese / file).read_bytes(), name
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[20:40, 16:48] = True
    images = [
        SiameseDiffusionPipeline.from_pretrained(run, device="cpu")(
            [mask.numpy()], [3], steps=2
        )[0].tobytes()
        for run in (own, siamese)
    ]  # fmt: skip
    assert images[0] == images[1]


def test_the_defaults_are_setting_1_of_table_5() -> None:
    _, ours = resolve_settings(generator="controlnet")
    _, ablation = resolve_settings(preset="table5-1")
    ours_dumped = ours.model_dump(exclude={"generator"})
    assert ours_dumped == ablation.model_dump(exclude={"generator"})
    assert isinstance(ours, ControlNetFitSettings)
    assert ours.model.train_decoder


@pytest.mark.parametrize(
    ("extra", "value"),
    [("image_pass", "true"), ("consistency_weight", "0.5"), ("online_augment", "true")],
)
def test_extras_are_refused_under_its_name(extra: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"objective\.{extra} is .*generator siamese"):
        resolve_settings(generator="controlnet", overrides=[f"objective.{extra}={value}"])
