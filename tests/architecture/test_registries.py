"""Tables of names and the files they name cannot fall apart."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from siamese_diffusion.core.registry import Registry
from siamese_diffusion.generators import GENERATORS
from siamese_diffusion.generators.run_folder import generator_class

SOURCE = Path(__file__).parents[2] / "src" / "siamese_diffusion"


def registries() -> dict[str, Registry]:
    """Every table that a package keeps in its `__init__`, by package and name."""
    found = {}
    for path in sorted(SOURCE.glob("*/__init__.py")):
        if "Registry(" in path.read_text(encoding="utf-8"):
            package = importlib.import_module(f"siamese_diffusion.{path.parent.name}")
            for name, value in vars(package).items():
                if isinstance(value, Registry):
                    found[f"{path.parent.name}:{name}"] = value
    return found


ENTRIES = [(table, name) for table, registry in registries().items() for name in registry]


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_every_entry_resolves_to_something_of_its_own_package(table: str, name: str) -> None:
    registry = registries()[table]
    module, _, attribute = registry.target(name).partition(":")
    assert module.startswith(f"siamese_diffusion.{table.partition(':')[0]}."), module
    assert getattr(registry[name], "__name__", attribute) == attribute


def _assigns_settings(part: ast.stmt) -> bool:
    if isinstance(part, ast.AnnAssign):
        return part.value is not None and ast.unparse(part.target) == "Settings"
    return isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "Settings"


def test_every_generator_file_has_its_line() -> None:
    """A class that assigns `Settings` is a generator; the contract and its helper ask for it."""
    files = {
        path.stem
        for path in (SOURCE / "generators").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any(map(_assigns_settings, node.body))
    }
    named = {GENERATORS.target(name).partition(":")[0].rpartition(".")[2] for name in GENERATORS}
    assert files == named


@pytest.mark.parametrize("name", list(GENERATORS))
def test_a_generator_answers_to_its_name_in_the_table(name: str) -> None:
    assert generator_class(name).Settings().generator == name
