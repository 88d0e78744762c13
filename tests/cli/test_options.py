"""The frozen list of verbs and options; a change here is a change of the public interface."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from siamese_diffusion.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
VERBS = {
    "data phantom": "OUT --centre --pairs --seed --size",
    "data check": "FOLDER --json",
    "pretrain": "--autoencoder --config --data --device --out --set --split --start",
    "fit": "--base --config --data --device --dry-run --generator --out --preset --set --split",
    "plan": "--base --config --data --device --generator --like --precision --preset "
    "--samples-per-second --set --split --vram",
    "sample": "RUN --base --batch-size --config --device --exact --folds --guidance "
    "--guidance-interval --images --masks --out --precision --prompt --recipe --sampler --seed "
    "--set --split --steps",
    "import": "CHECKPOINT --base --out --prompt --size",
    "export": "RUN OUT --base --to",
    "score": "--cache --config --device --extractor --holdout --holdout-split --metrics --out "
    "--protocol --real --set --split --synthetic --synthetic-split",
    "compare-scores": "SCORES...",
    "audit memorisation": "--cache --config --device --extractor --holdout --holdout-split --out "
    "--real --set --split --synthetic",
    "audit alignment": "--config --out --real --set --split --synthetic",
    "audit artefacts": "--config --out --real --set --split --synthetic",
    "filter": "SYNTHETIC --audit --keep --out",
    "plot tsne": "--cache --config --device --extractor --out --real --set --split --synthetic",
    "segment fit": "--config --copy-paste --device --encoder-weights --model --only-synthetic "
    "--out --preset --ratio --real --seed --set --split --synthetic",
    "segment evaluate": "RUN --absent --allow-overlap --data --device --out --protocol --resamples "
    "--split",
    "segment predict": "RUN --device --images --out --split",
    "utility": "--baselines --config --device --encoder-weights --folds --model --no-baselines "
    "--out --preset --protocol --real --seeds --set --split --synthetic --test",
    "compare": "--base --data --device --extractor --generators --held-out --mask-split "
    "--masks --out --scale --seeds --set --split --steps",
    "report": "SOURCES... --out",
    "mos prepare": "--base-url --jpeg-quality --key --out --per-source --raters --real --repeats "
    "--seed --size --split --synthetic --title",
    "mos serve": "STUDY --host --port --store",
    "mos analyse": "STUDY --csv --key --out --resamples --seed --store",
    "doctor": "",
}


def described(command: object, prefix: str = "") -> dict[str, str]:
    """Arguments and options of every verb, as they are."""
    commands = getattr(command, "commands", None)
    if commands is not None:
        found = {}
        for name, inner in commands.items():
            found.update(described(inner, f"{prefix} {name}".strip()))
        return found
    arguments, options = [], []
    for parameter in getattr(command, "params"):  # noqa: B009  (typer types it loosely)
        if parameter.param_type_name == "argument":
            arguments.append(parameter.name.upper() + ("..." if parameter.nargs == -1 else ""))
        else:
            assert parameter.help, f"{prefix} {parameter.opts[0]} has no help"
            options += [*parameter.opts, *parameter.secondary_opts]
    return {prefix: " ".join([*arguments, *sorted(options)])}


def test_verbs_and_options_are_those_of_the_list() -> None:
    assert described(typer.main.get_command(app)) == VERBS


def test_the_page_has_a_section_for_every_verb_and_no_other() -> None:
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Exit codes", "Settings", *VERBS]


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_the_page_use_options_that_exist(verb: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^## {verb}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    lines = re.findall(rf"^siamdiff {verb}\b(.*)$", section[1], re.MULTILINE)
    assert lines, f"docs/cli.md shows no example of {verb}"
    for line in lines:
        assert set(re.findall(r"--[a-z-]+", line)) <= set(VERBS[verb].split()), line


def test_options_named_in_the_pages_exist() -> None:
    """In running text too, so that none survives its removal."""
    known = {word for options in VERBS.values() for word in options.split()}
    known |= {"--debug", "--help", "--nproc-per-node"}  # of every verb; of torchrun
    for page in (PAGE, *PAGE.parent.glob("*.md"), PAGE.parents[1] / "README.md"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"^.*(?:pip|tools/|-m benchmarks).*$", "", text, flags=re.MULTILINE)
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known, page.name


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["data", "--help"]])
def test_help_comes_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from siamese_diffusion.cli.main import main\n"
        f"sys.argv = ['siamdiff', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'scipy', 'PIL', 'matplotlib', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(len(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout
    assert int(done.stderr) < 700  # torch alone brings more than a thousand


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "siamese_diffusion", "data", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "phantom" in done.stdout and "check" in done.stdout
