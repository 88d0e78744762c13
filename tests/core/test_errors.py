"""Errors carry a message, a hint and an exit code."""

from __future__ import annotations

import pytest

from siamese_diffusion.core import errors
from siamese_diffusion.core.errors import Interrupted, SiamDiffError

FAMILY = [
    item
    for item in vars(errors).values()
    if isinstance(item, type) and issubclass(item, SiamDiffError)
]


def test_message_and_hint_are_kept_apart_and_shown_together() -> None:
    error = SiamDiffError("what was given", hint="what to do")
    assert (error.message, error.hint) == ("what was given", "what to do")
    assert str(error) == "what was given\nhint: what to do"
    assert str(SiamDiffError("alone")) == "alone"


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_exit_codes_are_those_of_the_documentation(kind: type[SiamDiffError]) -> None:
    assert kind("x").exit_code == (75 if issubclass(kind, Interrupted) else 2)
    assert kind.__doc__
