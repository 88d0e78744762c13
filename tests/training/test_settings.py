"""Settings of the loop."""

from __future__ import annotations

import subprocess
import sys

import pytest

from siamese_diffusion.core.config import build, resolve
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.training.settings import TrainSettings


def test_the_defaults_are_the_papers() -> None:
    settings = TrainSettings()
    # Sec. 4.2: 3,000 iterations, learning rate 1e-5, batch 6 on each of 8 GPUs
    assert (settings.steps, settings.learning_rate, settings.batch_size) == (3000, 1e-5, 6 * 8)
    assert (settings.warmup_steps, settings.decay, settings.max_gradient_norm) == (
        0,
        "constant",
        None,
    )
    assert settings.ema_decay is None
    # torch's AdamW
    assert (settings.betas, settings.epsilon, settings.weight_decay) == ((0.9, 0.999), 1e-8, 1e-2)


def test_a_micro_batch_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size 10 is not a multiple of micro_batch_size 4"):
        build(TrainSettings, {"batch_size": 10, "micro_batch_size": 4})
    assert build(TrainSettings, {"batch_size": 12, "micro_batch_size": 4}).micro_batch_size == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=0", r"'steps'.*given: 0"),
        ("batch_size=0", r"'batch_size'.*given: 0"),
        ("micro_batch_size=0", r"'micro_batch_size'.*given: 0"),
        ("learning_rate=0", r"'learning_rate'.*given: 0"),
        ("learning_rate=-1e-5", r"'learning_rate'.*given: -1e-05"),
        ("weight_decay=-1", r"'weight_decay'.*given: -1"),
        ("warmup_steps=-1", r"'warmup_steps'.*given: -1"),
        ("decay=linear", r"'decay'.*'constant' or 'cosine' \(given: 'linear'"),
        ("optimizer=sgd", r"'optimizer'.*given: 'sgd'"),
        ("precision=fp8", r"'precision'.*given: 'fp8'"),
        ("ema_decay=1", r"'ema_decay'.*given: 1"),
        ("max_gradient_norm=0", r"'max_gradient_norm'.*given: 0"),
        ("checkpoint_every=0", r"'checkpoint_every'.*given: 0"),
        ("keep_checkpoints=0", r"'keep_checkpoints'.*given: 0"),
        ("betas=[0.9]", r"'betas\.1'.*"),
        ("step=5", r"unknown setting 'step'; did you mean 'steps'\?"),
    ],
)
def test_impossible_values_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(TrainSettings, overrides=[override])


def test_settings_do_not_import_torch() -> None:
    code = "import sys, siamese_diffusion.training.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
