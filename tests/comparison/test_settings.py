"""Terms of a comparison."""

from __future__ import annotations

import pytest

from siamese_diffusion.comparison.compare import check_terms
from siamese_diffusion.comparison.settings import SCALES, CompareSettings
from siamese_diffusion.core.config import build
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.generators import GENERATORS
from siamese_diffusion.generators.fitting import resolve_settings


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("generator", GENERATORS)
def test_every_method_gets_the_same_updates_batch_size_and_seed(generator: str, scale: str) -> None:
    terms = build(CompareSettings, {"generators": [generator], "scale": scale})
    _, settings = resolve_settings(
        generator=generator,
        preset=terms.fit_presets(generator),
        overrides=terms.fit_overrides(1),
    )
    assert settings.train.steps == SCALES[scale].steps
    assert settings.train.batch_size == SCALES[scale].batch_size
    assert settings.train.seed == 43
    assert settings.data.size == (128 if scale == "small" else 384)


def test_asked_updates_and_overrides_go_over_the_scale() -> None:
    terms = CompareSettings(steps=7, overrides=("train.batch_size=2", "data.size=64"))
    _, settings = resolve_settings(preset="small", overrides=terms.fit_overrides(0))
    assert (settings.train.steps, settings.train.batch_size) == (7, 2)
    assert check_terms(terms) == 64


def test_a_generator_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="generator 'adc' is given twice"):
        build(CompareSettings, {"generators": ["adc", "siamese", "adc"]})


def test_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no generators are given"):
        build(CompareSettings, {"generators": []})


def test_an_unknown_method_is_found_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="unknown generator 'controlnett'"):
        check_terms(CompareSettings(generators=("siamese", "controlnett")))


def test_a_setting_that_one_method_lacks_is_found_before_anything_is_trained() -> None:
    terms = CompareSettings(
        generators=("siamese", "t2i-adapter"), overrides=("model.hint=sparse",)
    )  # fmt: skip
    with pytest.raises(ConfigError, match="unknown setting 'model'"):
        check_terms(terms)
