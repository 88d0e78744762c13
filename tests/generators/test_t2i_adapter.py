"""T2I-Adapter as a generator: what trains, which timesteps, which sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators.fitting import fit, resolve_settings
from siamese_diffusion.generators.run_folder import load_run
from siamese_diffusion.generators.t2i_adapter import T2IAdapter, T2IAdapterSettings
from siamese_diffusion.models.base import load_base


def test_timesteps_are_cubic_by_default_and_uniform_by_switch() -> None:
    assert resolve_settings(generator="t2i-adapter")[1].timestep_sampling == "cubic"
    _, switched = resolve_settings(
        generator="t2i-adapter", overrides=["timestep_sampling=uniform"]
    )  # fmt: skip
    assert switched.timestep_sampling == "uniform"
    assert resolve_settings(generator="siamese")[1].timestep_sampling == "uniform"


def test_training_changes_the_adapter_alone(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    overrides = ["data.size=64", "train.steps=1", "train.batch_size=2", "train.sample_every=0"]
    overrides += ["train.validate_every=0", "train.learning_rate=0.001", "train.tensorboard=false"]
    run = fit(
        phantoms,
        tmp_path / "run",
        base=small_base_folder,
        generator="t2i-adapter",
        overrides=overrides,
        device="cpu",
        quiet=True,
    )
    loaded = load_run(run)
    assert set(loaded.generator.modules) == {"adapter"}
    _, settings = resolve_settings(generator="t2i-adapter", overrides=overrides)
    fresh = T2IAdapter.build(settings, load_base(small_base_folder))
    network = loaded.generator.objective.network
    assert isinstance(network, torch.nn.Module)
    before, after = fresh.network.state_dict(), network.state_dict()
    for name, value in after.items():
        same = torch.equal(value, before[name])
        assert same == name.startswith("unet."), name


@pytest.mark.parametrize("size", [40, 56])
def test_a_size_the_adapter_cannot_halve_is_refused(size: int, small_base_folder: Path) -> None:
    settings = build(T2IAdapterSettings, {"data": {"size": size}})
    with pytest.raises(ConfigError, match=rf"data\.size {size} is not a multiple of 16") as caught:
        T2IAdapter.build(settings, load_base(small_base_folder))
    assert f"data.size={48 if size == 40 else 64}" in str(caught.value.hint)
