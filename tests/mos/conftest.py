"""One small study per test."""

from __future__ import annotations

from pathlib import Path

import pytest

from mos.rating import make_study
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.study import Study


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return make_study(tmp_path)


@pytest.fixture
def study(prepared: Prepared) -> Study:
    return Study.open(prepared.study)
