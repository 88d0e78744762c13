"""The page: recognised sources, facts in words, nothing fetched, nothing unescaped."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from siamese_diffusion.core.artifacts import file_sha256
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.generators.settings import PRESETS, SiameseFitSettings
from siamese_diffusion.reports import panels, write_report

MODEL = "ab" * 32
ITEMS = 8
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag not in {"a", "b", "span"}:
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def json_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0)
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 12:30] = 255
    for i in range(ITEMS):
        pixels = noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        save(tmp_path / f"clinic/images/{i:02d}.png", pixels)
        save(tmp_path / f"clinic/masks/{i:02d}.png", mask)
    return tmp_path / "clinic"


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    root = tmp_path / "run-one"
    root.mkdir()
    record = {
        "kind": "run", "format": 1, "generator": "siamese", "state": "complete",
        "base": {"reference": "tiny", "kind": "embedded", "sha256": "cd" * 32},
        "model_sha256": MODEL, "step": 1000, "max_steps": 1000, "size": 128,
        "prompt": "A photo of a polyp.",
        "data": {"root": str(data), "split": "train", "pairs": 1450, "fingerprint": "ef" * 32,
                 "mask_rule": "values 0 and 255"},
    }  # fmt: skip
    (root / "run.json").write_text(json.dumps(record))
    settings = SiameseFitSettings.model_validate(PRESETS["small"])
    (root / "config.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    (root / "environment.json").write_text(json.dumps({"python": "3.11", "packages": {"x": "1"}}))
    lines: list[dict[str, object]] = []
    for step in range(100, 1001, 100):
        terms = {f"loss/{t}": 1 / step for t in ("mask", "image", "consistency", "augment")}
        lines.append({"event": "train", "step": step, "seconds": step / 10,
                      "weight/image": step / 1000, **terms})  # fmt: skip
        lines.append({"event": "validate", "step": step, "loss/mean": 0.1, "loss/t000-199": 0.2})
        lines.append({"event": "sample", "step": step, "columns": 4, "guidance_scale": 2.0})
        save(root / f"samples/step-{step:08d}.png", np.zeros((48, 64, 3), np.uint8))
    json_lines(root / "log.jsonl", lines)
    return root


@pytest.fixture
def synthetic(tmp_path: Path, data: Path) -> Path:
    root = tmp_path / "made"
    lines: list[dict[str, object]] = []
    for i in range(ITEMS):
        stem = f"{i:02d}"
        mask = data / "masks" / f"{stem}.png"
        save(root / f"images/{stem}.png", np.asarray(Image.open(data / f"images/{stem}.png")))
        save(root / f"masks/{stem}.png", np.asarray(Image.open(mask)))
        lines.append({"id": stem, "index": i, "stem": stem, "source": f"masks/{stem}.png",
                      "source_sha256": file_sha256(mask), "transform": None, "seed": 2**61 + i,
                      "prompt": "A photo of a polyp."})  # fmt: skip
    json_lines(root / "manifest.jsonl", lines)
    header = {
        "kind": "synthetic", "format": 1, "items": ITEMS, "plan_sha256": "99" * 32,
        "settings": {"recipe": "real", "folds": 1, "steps": 25, "guidance_scale": 2.0, "seed": 0,
                     "split": None, "mask_rule": {"kind": "0/255", "threshold": 127.0},
                     "prompt": "A photo of a polyp.", "size": 48, "model_sha256": MODEL},
        "origin": {"run": "run-one", "masks": str(data), "mask_rule": "values 0 and 255"},
    }  # fmt: skip
    (root / "plan.json").write_text(json.dumps(header))
    return root


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_page_lies_in_the_first_source_unless_said_otherwise(run: Path, tmp_path: Path) -> None:
    assert write_report([run]) == run / "report.html"
    other = tmp_path / "deep" / "page.html"
    assert write_report([run], other) == other
    assert other.is_file()


def test_the_page_needs_nothing_from_outside(run: Path, synthetic: Path) -> None:
    path = write_report([run, synthetic])
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?://|url\(|@import|javascript:", text)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    for _, attributes in page.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert len(text) < 3_000_000


def test_the_page_is_accessible(run: Path, synthetic: Path) -> None:
    page = read(write_report([run, synthetic]))
    assert ("html", {"lang": "en"}) in page.tags
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) > 20
    assert all(attributes["alt"] for attributes in images)
    assert all(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_first_paragraph_tells_the_facts_in_plain_words(run: Path, synthetic: Path) -> None:
    text = read(write_report([run, synthetic])).text
    assert "The generator run-one learned from 1,450 images, each with its outline (mask)" in text
    assert "(data set clinic, part “train”) in 1,000 training steps of 16 pairs." in text
    assert "outlines of existing images, unchanged" in text
    assert "8 synthetic images, all that were planned." in text
    assert "Synthetic images are made by a computer." in text


def test_a_run_shows_its_curves_settings_and_samples(run: Path) -> None:
    page = read(write_report([run], defaults=SiameseFitSettings().model_dump(mode="json")))
    assert sum(tag == "svg" for tag, _ in page.tags) == 6
    assert "train.learning_rate 0.0002 1e-05" in page.text
    assert "Passes over the data 11.0" in page.text
    assert "embedded tiny" in page.text
    assert MODEL in page.text
    assert "Step 100" in page.text
    assert "Step 1,000" in page.text


def test_without_defaults_nothing_is_said_to_differ(run: Path) -> None:
    text = read(write_report([run])).text
    assert "differ from the paper" not in text
    assert "All settings" in text


def test_items_carry_labels_seeds_and_settings(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panels, "MOST_ITEMS", 5)
    page = read(write_report([synthetic]))
    kinds = [attributes.get("class") for tag, attributes in page.tags if tag == "figure"]
    assert kinds == ["real", "synthetic", "synthetic"] * 5
    assert "5 of 8 finished images" in page.text
    assert str(2**61) in page.text
    assert "DDIM, 25 steps, eta 0; guidance 2" in page.text


def test_the_solver_and_the_guidance_interval_are_those_of_the_set(synthetic: Path) -> None:
    settings = json.loads((synthetic / "plan.json").read_text())["settings"]
    departures = {"sampler": "dpm-solver++", "guidance_interval": [200, 900], "steps": 20}
    edit(synthetic / "plan.json", settings={**settings, **departures})
    text = read(write_report([synthetic])).text
    assert "Sampler DPM-Solver++, 20 steps" in text
    assert "Guidance scale 2 at timesteps 200 to 900, none elsewhere" in text
    assert "DDIM" not in text


def test_model_hashes_tie_a_set_to_its_run(run: Path, synthetic: Path) -> None:
    assert (
        "Made by the model of the training run run-one" in read(write_report([run, synthetic])).text
    )
    edit(run / "run.json", model_sha256="00" * 32)
    assert "the model hashes differ" in read(write_report([run, synthetic])).text


def test_measured_numbers_are_shown_with_all_their_keys(synthetic: Path) -> None:
    numbers = {"dice_on_synthetic": 0.78123, "dice_on_shuffled": 0.12, "dice_on_real": 0.861,
               "n": 40, "segmenter": {"parameters": 500_000}, "passed": True}  # fmt: skip
    (synthetic / "alignment.json").write_text(json.dumps(numbers))
    text = read(write_report([synthetic])).text
    assert "dice_on_synthetic 0.78123" in text
    assert "segmenter.parameters 500,000" in text
    assert "passed yes" in text
    assert "a Dice coefficient of 0.78" in text


def test_what_is_not_there_is_stated_as_not_recorded(run: Path, synthetic: Path) -> None:
    for name in ("log.jsonl", "config.yaml", "environment.json"):
        (run / name).unlink()
    for grid in (run / "samples").iterdir():
        grid.unlink()
    text = read(write_report([run, synthetic])).text
    assert "Mask loss: not recorded." in text
    assert "Validation loss: not recorded." in text
    assert "Samples: not recorded." in text
    assert "Effective batch not recorded" in text
    assert "Measured agreement: not recorded" in text


def test_a_run_in_progress_takes_its_step_from_the_log(run: Path) -> None:
    edit(run / "run.json", state="training", step=0, model_sha256=None, max_steps=5000)
    text = read(write_report([run])).text
    assert "The training is not finished: 5,000 steps are planned." in text
    assert "Training steps 1,000 of 5,000" in text


def test_an_imported_run_says_that_its_training_is_unknown(run: Path) -> None:
    edit(run / "run.json", state="imported", data=None, step=0)
    (run / "log.jsonl").unlink()
    assert "was imported from a published checkpoint" in read(write_report([run])).text


def test_an_unfinished_set_is_said_to_be_so_and_torn_lines_are_counted(synthetic: Path) -> None:
    manifest = synthetic / "manifest.jsonl"
    lines = manifest.read_text().splitlines()[:6]
    manifest.write_text("\n".join([*lines[:3], '{"id": "99", "ind', *lines[3:]]) + "\n")
    text = read(write_report([synthetic])).text
    assert "6 synthetic images of 8 planned; the set is not finished" in text
    assert "1 unreadable lines of manifest.jsonl were skipped." in text


def test_phantoms_are_named_as_such(run: Path, synthetic: Path, data: Path) -> None:
    (data / "phantom.json").write_text("{}")
    text = read(write_report([run, synthetic])).text
    assert "phantoms drawn by formulas" in text
    assert "Phantom against synthetic" in text


def test_everything_is_escaped(run: Path, synthetic: Path) -> None:
    nasty = "<script>alert('x')</script>\"&"
    edit(run / "run.json", prompt=nasty)
    edit(synthetic / "plan.json", origin={"run": nasty, "masks": nasty})
    (synthetic / "alignment.json").write_text(json.dumps({nasty: nasty}))
    lines = [json.loads(line) for line in (synthetic / "manifest.jsonl").read_text().splitlines()]
    json_lines(synthetic / "manifest.jsonl", [{**line, "prompt": nasty} for line in lines])
    path = write_report([run, synthetic])
    assert "<script" not in path.read_text(encoding="utf-8")
    assert nasty in "".join(read(path).words)


def test_many_sources_share_the_pictures(synthetic: Path) -> None:
    page = read(write_report([synthetic] * 3))
    assert sum(attributes.get("class") == "item" for _, attributes in page.tags) == 24


def test_other_folders_are_refused_with_what_was_found(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"clinic' holds images, masks; expected a run folder"):
        write_report([data])
    with pytest.raises(DataError, match=r"nowhere' does not exist; expected a run folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"00\.png' is a file, but none of a score, an audit"):
        write_report([data / "masks" / "00.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' holds nothing; expected"):
        write_report([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="at least one source"):
        write_report([])


def test_a_set_without_a_finished_image_is_refused(synthetic: Path) -> None:
    (synthetic / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match=r"made' holds plan\.json but no manifest\.jsonl"):
        write_report([synthetic])


def test_a_folder_as_output_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=rf"'{tmp_path}' is a folder"):
        write_report([run], tmp_path)


def test_damaged_files_are_named(run: Path, synthetic: Path) -> None:
    (synthetic / "alignment.json").write_text("{")
    with pytest.raises(OutputError, match=r"alignment\.json' is not readable JSON"):
        write_report([synthetic])
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(OutputError, match=r"config\.yaml' is not readable YAML"):
        write_report([run])


def test_without_the_extra_its_name_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(
        ConfigError, match=r"'jinja2'.*\n.*pip install 'siamese-diffusion\[report\]'"
    ):
        write_report([run])
    assert not (run / "report.html").exists()


def test_reports_do_not_import_torch(run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from siamese_diffusion.reports import write_report; "
        f"write_report([Path({str(run)!r})]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
