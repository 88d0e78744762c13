"""The equations in the code and the pages about them say the same."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from siamese_diffusion.segmentation import SEGMENTERS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "siamese_diffusion"
PAGE = ROOT / "docs" / "paper-map.md"
EQUATIONS = range(1, 14)
# Eq. (10) is an explanation; Eq. (3) is Eq. (4) without control; the paper samples by DDIM, not by
# Eq. (2) itself; Eq. (1) is not of the objective.
OF_THE_OBJECTIVE = {4, 5, 6, 7, 8, 9, 11, 12, 13}
_TAG = re.compile(r"Eq\. \((\d+)\)")
_ROW = re.compile(r"^\| Eq\. \((\d+)\) \|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)


def definitions(folder: str) -> dict[int, list[str]]:
    """Functions of a package whose docstring begins with the tag, by equation."""
    found = defaultdict(list)
    for path in sorted((SOURCE / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                tag = _TAG.match(ast.get_docstring(node) or "")
                if tag:
                    found[int(tag[1])].append(f"{folder}/{path.name}:{node.name}")
    return found


def rows() -> dict[int, tuple[str, str]]:
    """(file, functions) that the page names for each equation."""
    text = PAGE.read_text(encoding="utf-8")
    return {int(row[0]): (row[2].strip(), row[3].strip()) for row in _ROW.findall(text)}


def top_level(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def test_each_equation_of_the_objective_is_defined_once() -> None:
    found = definitions("objectives")
    assert set(found) == OF_THE_OBJECTIVE
    assert {number: names for number, names in found.items() if len(names) != 1} == {}


def test_the_page_has_a_row_for_every_equation() -> None:
    assert sorted(rows()) == list(EQUATIONS)


@pytest.mark.parametrize("number", sorted(OF_THE_OBJECTIVE | {1}))
def test_the_page_names_the_function_that_carries_the_tag(number: int) -> None:
    folder = "objectives" if number in OF_THE_OBJECTIVE else "diffusion"
    file, functions = rows()[number]
    named = re.findall(r"`(\w+)`", functions)
    assert f"{file.strip('`')}:{named[0]}" in definitions(folder)[number]


@pytest.mark.parametrize("number", EQUATIONS)
def test_functions_named_for_an_equation_exist(number: int) -> None:
    file, functions = rows()[number]
    if file == "-":
        assert number == 10
        return
    existing = top_level(SOURCE / file.strip("`"))
    first = re.findall(r"`(\w+)`", functions)[0]
    assert first in existing, f"{file} has no {first}"


def test_files_and_names_of_the_page_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = set(re.findall(r"`([a-z_/0-9]+\.py)`", text))
    assert files
    for file in files:
        assert (SOURCE / file).is_file(), f"docs/paper-map.md names {file}, which is not there"
    for file, names in re.findall(r"`([a-z_/0-9]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", text):
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in top_level(SOURCE / file), f"{file} has no {name}"


def test_every_switch_named_in_the_pages_is_a_setting() -> None:
    from siamese_diffusion.core.config import flatten
    from siamese_diffusion.generators.settings import SiameseFitSettings
    from siamese_diffusion.segmentation.run_folder import settings_class

    known = set(flatten(SiameseFitSettings().model_dump()))
    segmenters = set()
    for name in SEGMENTERS:
        segmenters |= set(
            flatten(settings_class(name).model_validate({"model": name}).model_dump())
        )
    known |= segmenters
    for page in (PAGE, ROOT / "docs" / "deviations.md"):
        named = re.findall(
            r"\b((?:data|train|model|objective|preview)\.[a-z0-9_]+)(?!\w*\.py|[\w/(.])",
            page.read_text(encoding="utf-8"),
        )
        assert named
        assert set(named) <= known, f"{page.name} names settings that do not exist"
    own = r"\b((?:network|inputs|augment|colour|optimizer|schedule|validation)\.[a-z0-9_]+)"
    named = re.findall(own, (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8"))
    assert named and set(named) <= segmenters
