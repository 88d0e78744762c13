"""Settings of the data layer and their messages."""

from __future__ import annotations

import pytest

from siamese_diffusion.core.config import resolve
from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.data.settings import DataSettings, RandomRecipe


def test_defaults_are_the_papers() -> None:
    settings = DataSettings()
    assert (settings.size, settings.empty_prompt_probability) == (384, 0.05)
    assert (settings.prompt, settings.degenerate) == (None, "warn")


def test_size_that_is_no_multiple_of_8_names_the_padded_size() -> None:
    with pytest.raises(ConfigError, match="size 350 is not a multiple of 8; use 352"):
        resolve(DataSettings, overrides=["size=350"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scale=[1.1, 1.3]", "scale must hold 1.0 within 0.1 to 10, got 1.1 to 1.3"),
        ("shift=[0.1, 0.2]", "shift must hold 0.0 within -1 to 1, got 0.1 to 0.2"),
        ("min_area=0.9", "min_area must be below max_area, got 0.9 and 0.8"),
        ("max_cut=1.0", "max_cut"),
    ],
)
def test_impossible_recipes_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(RandomRecipe, overrides=[override])
