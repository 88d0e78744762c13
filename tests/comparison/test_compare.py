"""The whole comparison on phantoms: equal terms, resuming cell by cell, results, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from siamese_diffusion.cli.main import app
from siamese_diffusion.comparison import cells
from siamese_diffusion.comparison.compare import compare
from siamese_diffusion.comparison.scores import Sets
from siamese_diffusion.comparison.settings import CompareSettings
from siamese_diffusion.core.config import read_yaml
from siamese_diffusion.core.errors import (
    EXIT_INTERRUPTED,
    ConfigError,
    DataError,
    Interrupted,
    OutputError,
)

OVERRIDES = (
    *("data.size=64", "train.batch_size=2", "train.log_every=1", "train.tensorboard=false"),
    *("train.sample_every=0", "train.validate_every=0"),
)


class InProcess:
    """Runs the command line here instead of in a child; notes what it ran."""

    def __init__(self, *, code_at: tuple[int, int] | None = None) -> None:
        self.ran: list[Sequence[str]] = []
        self._code_at = code_at

    def __call__(self, arguments: Sequence[str]) -> int:
        if self._code_at is not None and self._code_at[0] == len(self.ran):
            return self._code_at[1]
        self.ran.append(list(arguments))
        app(list(arguments), standalone_mode=False)
        return 0


@pytest.fixture(autouse=True)
def quick_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are tested where they are computed; here a number is enough."""

    def fake(name: str, sets: Sets) -> dict[str, float]:
        return {f"{name}/dice": len(sets.synthetic) / 10, "alignment/above_shuffled": 1.0}

    monkeypatch.setattr(cells, "score", fake)


def terms(base: Path, *names: str, seeds: int = 1, **more: object) -> CompareSettings:
    content = {
        "generators": names,
        "seeds": seeds,
        "base": str(base),
        "masks": 3,
        "steps": 2,
        "overrides": OVERRIDES,
        **more,
    }
    return CompareSettings.model_validate(content)


def test_methods_are_fitted_sampled_and_scored_on_equal_terms(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    names = ("controlnet", "copy-paste", "siamese")
    table = compare(phantoms, out, terms(small_base_folder, *names), device="cpu", run=InProcess())
    runs = {name: out / "cells" / name / "seed-0" for name in names}
    configs = {name: read_yaml(path / "run" / "config.yaml") for name, path in runs.items()}
    assert configs["controlnet"]["train"] == configs["siamese"]["train"]
    assert configs["controlnet"]["data"] == configs["siamese"]["data"]
    plans = {
        name: [json.loads(line) for line in (path / "set" / "plan.jsonl").read_text().splitlines()]
        for name, path in runs.items()
    }
    for name in names:
        assert [(i["stem"], i["seed"], i["prompt"]) for i in plans[name]] == [
            (i["stem"], i["seed"], i["prompt"]) for i in plans["siamese"]
        ]
    text = table.read_text()
    for name in names:
        assert f"| {name} | 0.300 |" in text
    cost = json.loads((runs["controlnet"] / "cost.json").read_text())
    assert cost["trained_parameters"] > 1e4 and cost["sampling_seconds"] > 0
    assert cost["step_seconds"] > 0 and cost["peak_memory_mb"] > 0
    assert json.loads((runs["copy-paste"] / "cost.json").read_text())["trained_parameters"] == 0
    with Image.open(out / "panel.png") as picture:
        assert picture.size == (5 * 68 + 4, 3 * 68 + 4 + 16)


def test_a_comparison_goes_on_where_it_was_and_takes_more_methods(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = terms(small_base_folder, "copy-paste", "controlnet")
    with pytest.raises(Interrupted, match="stopped while 'controlnet' was fitted"):
        compare(
            phantoms, out, both, device="cpu", run=InProcess(code_at=(1, EXIT_INTERRUPTED))
        )  # fmt: skip
    assert "copy-paste" in (out / "table.md").read_text()
    again = InProcess()
    compare(phantoms, out, both, device="cpu", run=again)
    assert [a[a.index("--generator") + 1] for a in again.ran] == ["controlnet"]
    # a score that is gone is computed again, nothing else is
    (out / "cells" / "copy-paste" / "seed-0" / "scores.json").unlink()
    nothing = InProcess()
    more = terms(small_base_folder, "copy-paste", "controlnet", seeds=2)
    compare(phantoms, out, more, device="cpu", run=nothing)
    assert [a[-1] for a in nothing.ran] == ["train.seed=43", "train.seed=43"]
    assert "± " in (out / "table.md").read_text()


def test_a_failed_fit_is_told(phantoms: Path, small_base_folder: Path, tmp_path: Path) -> None:
    settings = terms(small_base_folder, "controlnet")
    with pytest.raises(
        ConfigError, match=r"fitting 'controlnet' \(seed 0\) failed with exit code 2"
    ):
        compare(phantoms, tmp_path / "out", settings, run=InProcess(code_at=(0, 2)))


def test_other_terms_are_refused_by_name(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    compare(phantoms, out, terms(small_base_folder, "copy-paste"), device="cpu", run=InProcess())
    with pytest.raises(OutputError, match="belongs to another comparison: steps: 2 -> 5"):
        compare(phantoms, out, terms(small_base_folder, "copy-paste", steps=5), run=InProcess())


def test_a_folder_with_something_else_is_refused(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no comparison"):
        compare(phantoms, tmp_path, terms(small_base_folder, "copy-paste"), run=InProcess())


def test_held_out_pairs_are_needed_and_must_be_held_out(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    missing = terms(small_base_folder, "copy-paste", held_out="validate")
    with pytest.raises(DataError, match=r"no list 'validate\.txt' of held-out pairs"):
        compare(phantoms, tmp_path / "out", missing, run=InProcess())
    same = terms(small_base_folder, "copy-paste", held_out="train")
    with pytest.raises(DataError, match="held-out pairs of 'train' are also trained on"):
        compare(phantoms, tmp_path / "out", same, run=InProcess())


def test_the_real_runner_reports_the_exit_code_of_its_child() -> None:
    assert cells.siamdiff(["fit"]) == 2
    assert cells.siamdiff(["--help"]) == 0
