"""The recipe for a generator in docs/extending.md, followed literally."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import siamese_diffusion.generators as table
from conftest import ROOT
from siamese_diffusion.core.registry import Registry
from siamese_diffusion.generators import GENERATORS, run_folder
from siamese_diffusion.generators.fitting import fit
from siamese_diffusion.sampling.bulk import sample

OVERRIDES = [
    *("data.size=64", "train.steps=2", "train.batch_size=4", "train.learning_rate=0.001"),
    *("train.sample_every=0", "train.validate_every=0", "train.tensorboard=false"),
]


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Step 1, the file; step 2, its line."""
    text = (ROOT / "docs" / "extending.md").read_text()
    found = re.search(r"```python run=generator\n(.*?)```", text, re.DOTALL)
    assert found is not None
    file = tmp_path / "stock.py"
    file.write_text(found.group(1))
    spec = importlib.util.spec_from_file_location("stock_of_the_docs", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    entries = {name: GENERATORS.target(name) for name in GENERATORS}
    registry = Registry("generator", {**entries, "stock": "stock_of_the_docs:Stock"})
    monkeypatch.setattr(table, "GENERATORS", registry)
    monkeypatch.setattr(run_folder, "GENERATORS", registry)
    yield
    del sys.modules[spec.name]


@pytest.mark.usefixtures("stock")
def test_the_documented_generator_trains_samples_and_is_stock_controlnet(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    runs = {}
    for name, more in (("stock", []), ("controlnet", ["model.train_decoder=false"])):
        runs[name] = fit(
            phantoms,
            tmp_path / name,
            base=small_base_folder,
            generator=name,
            overrides=[*OVERRIDES, *more],
            device="cpu",
            quiet=True,
        )
    weights = [run / "model" / "control.safetensors" for run in runs.values()]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    done = sample(
        runs["stock"],
        phantoms,
        tmp_path / "set",
        split="val",
        steps=2,
        device="cpu",
        progress=False,
    )
    assert done.made == done.planned > 0
