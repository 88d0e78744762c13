"""The contract's promise: a new method is settings, a network, a condition, a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import siamese_diffusion.generators as table
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.core.registry import Registry
from siamese_diffusion.generators import run_folder
from siamese_diffusion.generators.denoiser import Condition, Denoiser
from siamese_diffusion.generators.fitting import fit, resolve_settings
from siamese_diffusion.generators.settings import FitSettings
from siamese_diffusion.models.pixels import Space
from siamese_diffusion.sampling.bulk import sample


# begin of the toy: everything there is to write
class ToySettings(FitSettings):
    generator: str = "toy"
    width: int = 8


class Toy(Denoiser[nn.Sequential]):
    Settings = ToySettings

    @classmethod
    def build_network(cls, settings: FitSettings, base: Space) -> nn.Sequential:
        assert isinstance(settings, ToySettings)
        first = nn.Conv2d(4 + 3, settings.width, 3, padding=1)
        return nn.Sequential(first, nn.SiLU(), nn.Conv2d(settings.width, 4, 3, padding=1))

    def condition(self, given: Mapping[str, Tensor]) -> Condition:
        return (F.avg_pool2d(given["mask"], 8),)

    def predict(self, zt: Tensor, t: Tensor, c_text: Tensor, condition: Condition) -> Tensor:
        eps: Tensor = self.network(torch.cat([zt, *condition], 1))
        return eps


# end of the toy


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"toy": f"{__name__}:Toy"}
    registry = Registry("generator", entries)
    monkeypatch.setattr(table, "GENERATORS", registry)
    monkeypatch.setattr(run_folder, "GENERATORS", registry)


def test_the_toy_is_written_in_under_30_lines() -> None:
    lines = Path(__file__).read_text().splitlines()
    first, last = (next(i for i, s in enumerate(lines) if s.startswith(f"# {word} of the toy"))
                   for word in ("begin", "end"))  # fmt: skip
    assert len([line for line in lines[first + 1 : last] if line]) < 30


@pytest.mark.usefixtures("with_toy")
def test_the_toy_trains_and_makes_a_synthetic_set(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    overrides = ["data.size=64", "train.steps=3", "train.batch_size=4", "preview.steps=2"]
    overrides += ["train.log_every=1", "preview.validation_pairs=1", "preview.pairs=1"]
    run = fit(
        phantoms,
        tmp_path / "run",
        base=small_base_folder,
        generator="toy",
        overrides=overrides,
        device="cpu",
        quiet=True,
    )
    done = sample(
        run, phantoms, tmp_path / "set", split="val", steps=2, device="cpu", progress=False
    )
    images = sorted((tmp_path / "set" / "images").iterdir())
    assert done.made == len(images) > 0
    assert (run / "model" / "network.safetensors").is_file()


@pytest.mark.usefixtures("with_toy")
def test_its_settings_are_options_and_others_are_refused() -> None:
    _, settings = resolve_settings(generator="toy", overrides=["width=12"])
    assert isinstance(settings, ToySettings) and settings.width == 12
    with pytest.raises(ConfigError, match="unknown setting 'widht'; did you mean 'width'"):
        resolve_settings(generator="toy", overrides=["widht=12"])


def test_settings_of_another_generator_are_refused(small_base_folder: Path) -> None:
    from siamese_diffusion.models.base import load_base

    with pytest.raises(ConfigError, match="Toy got settings of generator 'siamese'"):
        Toy.build(FitSettings(), load_base(small_base_folder))
