"""Imports go one way, and what needs no torch does not load it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NAME = "siamese_diffusion"
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / NAME

# A package sees itself and all to its left, not its neighbours of the same line. A new package
# needs its name here, and in the list of CONTRIBUTING.md.
LAYERS = (
    ("core",),
    ("data",),
    ("metrics", "models", "mos"),
    ("diffusion",),
    ("objectives",),
    ("training",),
    ("segmentation", "generators"),
    ("sampling",),
    ("audit",),
    ("comparison",),
    ("interchange",),
    ("reports",),
    ("cli",),
)
SEES_ONLY = {name: {"core", "data"} for name in ("metrics", "mos", "reports")}
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}
WITHOUT_TORCH = ("core", "data", "mos", "reports")


def packages() -> list[str]:
    return sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def modules(pattern: str = "**/*.py") -> list[Path]:
    return sorted(SOURCE.glob(pattern))


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and package of ours of every import, those in functions and for types included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports with the package's name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == NAME and len(parts) > 1:
                yield node.lineno, parts[1]


def visible(package: str) -> set[str]:
    left = {name for name, rank in RANK.items() if rank < RANK[package]}
    return SEES_ONLY.get(package, left) | {package}


def test_every_package_has_its_place_in_the_order() -> None:
    for package in packages():
        assert package in RANK, (
            f"package '{package}' has no place in the order of imports: add it to LAYERS in "
            f"{Path(__file__).name} and to CONTRIBUTING.md, Structure"
        )


def test_contributing_names_every_package_in_this_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    chain = re.search(r"Imports go one way: `([^`]+)`", text)
    assert chain is not None
    told = re.findall(r"\w+", chain[1])
    ranks = [RANK[name] for name in told]
    assert ranks == sorted(ranks), f"CONTRIBUTING.md lists {told} in another order"
    assert set(packages()) <= set(re.findall(r"\w+", text)), "CONTRIBUTING.md lacks a package"


@pytest.mark.parametrize("package", packages())
def test_imports_point_left(package: str) -> None:
    if package not in RANK:
        pytest.fail(f"package '{package}' has no place in the order of imports")
    allowed = visible(package) | {"__version__"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in modules(f"{package}/**/*.py")
        for line, other in imported(path)
        if other not in allowed
    ]
    assert not wrong, f"{package} may see {sorted(visible(package))} only: {'; '.join(wrong)}"


def test_nothing_outside_the_packages_imports_them_when_it_is_imported() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in top if isinstance(node, ast.ImportFrom)} == {
        "__future__",
        "typing",
    }


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("group", [*WITHOUT_TORCH, "settings", "cli"])
def test_torch_is_not_loaded_by(group: str) -> None:
    pattern = "**/settings.py" if group == "settings" else f"{group}/**/*.py"
    names = [dotted(path) for path in modules(pattern)]
    assert names
    code = (
        f"import importlib, sys\nfor name in {names!r}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name"
    )
    run_python(code)


def test_importing_any_module_touches_neither_network_nor_folders(tmp_path: Path) -> None:
    names = [dotted(path) for path in modules() if path.name != "__main__.py"]
    code = f"""
import importlib, os, socket
def refuse(*arguments, **options):
    raise AssertionError(f"reached for the network: {{arguments}}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
os.chdir({str(tmp_path)!r})
for name in {names!r}:
    importlib.import_module(name)
"""
    assert run_python(code) == ""
    assert list(tmp_path.iterdir()) == []
