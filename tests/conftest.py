"""Fixtures for all tests: phantom pairs, a very small base, one thread, no network."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # as the command does, before anything reads it
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bits must not depend on how many cores the machine has."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_arrives() -> None:
    """A shell starts what it puts in the background deaf to Ctrl-C, children included."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any connection beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        local = self.family == socket.AF_UNIX or (
            isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1", "localhost")
        )
        if not local:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty phantom pairs at 64 px with split lists; do not write into it."""
    from siamese_diffusion.data.phantom import write_phantom

    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantom(folder, pairs=20, seed=0, size=64)
    return folder


@pytest.fixture(scope="session")
def small_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of about 0.3 M random parameters for 64 px images; do not write into it."""
    from siamese_diffusion.models.settings import SmallBaseSettings
    from siamese_diffusion.models.small import build_small_base

    settings = SmallBaseSettings(
        autoencoder_widths=(16, 16, 16, 16),
        unet_widths=(16, 32),
        unet_layers=1,
        text_width=32,
        text_layers=1,
    )
    folder = tmp_path_factory.mktemp("base") / "small"
    folder.mkdir()
    build_small_base(settings, size=64, seed=0).save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Path, small_base_folder: Path
) -> Path:
    """A run of a few steps on `phantoms`, trained fast enough to show its masks' influence.

    Copy it before changing anything in it.
    """
    from siamese_diffusion.generators.fitting import fit

    overrides = [
        "data.size=64",
        "train.steps=6",
        "train.batch_size=4",
        "train.learning_rate=1e-2",
        "train.log_every=1",
        "train.tensorboard=false",
        "preview.pairs=2",
        "preview.steps=2",
        "preview.validation_pairs=2",
    ]
    out = tmp_path_factory.mktemp("run") / "tiny"
    return fit(phantoms, out, base=small_base_folder, overrides=overrides, device="cpu", quiet=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the checkout; tests that need it skip without."""
    folder = Path(os.environ.get("SIAMDIFF_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set SIAMDIFF_SHARED")
    return folder
