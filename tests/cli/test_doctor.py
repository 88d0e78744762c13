"""What `siamdiff doctor` says of an installation."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from invoking import siamdiff
from siamese_diffusion import __version__
from siamese_diffusion.cli import doctor


def breaking(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, *, found: bool = True
) -> None:
    """Let `name` be installed, but not importable."""
    real_import, real_find = importlib.import_module, importlib.util.find_spec

    def import_module(asked: str, package: str | None = None) -> ModuleType:
        if asked == name:
            raise error
        return real_import(asked, package)

    def find_spec(asked: str, package: str | None = None) -> ModuleSpec | None:
        if asked == name:
            return ModuleSpec(name, None) if found else None
        return real_find(asked, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_a_sound_installation_is_said_to_work() -> None:
    ran = siamdiff("doctor")
    assert ran.code == 0, ran.out
    assert f"siamese-diffusion {__version__}" in ran.out
    for name in ("torch", "diffusers", "transformers", "accelerate", "safetensors"):
        assert f"{name} {importlib.metadata.version(name)}: works" in ran.out
    assert "torchvision: absent, and not needed" in ran.out
    assert "embedded base tiny: present" in ran.out
    assert ran.out.endswith("everything needed works\n")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        OSError("libcudart.so.13: cannot open shared object file"),
        ImportError("DLL load failed"),
    ],
)
def test_a_broken_torchvision_is_recognised(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    breaking(monkeypatch, "torchvision", error)
    ran = siamdiff("doctor")
    assert ran.code == 2
    assert f"torchvision: installed but broken: does not import ({error})" in ran.out
    assert "pip uninstall torchvision" in ran.out
    assert ran.out.endswith("something needs mending, see above\n")


def test_an_error_without_words_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, "diffusers", ImportError())
    ran = siamdiff("doctor")
    assert ran.code == 2
    assert "does not import (ImportError)" in ran.out


def test_a_missing_extra_is_no_fault_and_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, "bitsandbytes", ImportError("no"), found=False)
    ran = siamdiff("doctor")
    assert ran.code == 0
    assert "extra 8bit: not installed (optional: pip install 'siamese-diffusion[8bit]')" in ran.out


def test_a_missing_embedded_base_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "package" / "cli" / "doctor.py"))
    ran = siamdiff("doctor")
    assert ran.code == 2
    assert "embedded base tiny: MISSING; reinstall" in ran.out
