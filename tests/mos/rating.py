"""Small studies and a rater who speaks HTTP, for the tests of the rating study."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, PngImagePlugin

from siamese_diffusion.mos.prepare import Prepared, prepare
from siamese_diffusion.mos.store import Store, default_url
from siamese_diffusion.mos.study import Study

SIDE = 40
PER_SOURCE = 4


def write_sources(root: Path, *, images: int = 6) -> dict[str, Path]:
    """A real set of JPEG files with EXIF, and two synthetic sets of PNG files with text."""
    rng = np.random.default_rng(0)
    folders = {name: root / name for name in ("real", "secretmethod", "othermethod")}
    for name, folder in folders.items():
        (folder / "images").mkdir(parents=True)
        for number in range(images):
            picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
            path = folder / "images" / f"patient{name}{number}"
            if name == "real":
                exif = Image.Exif()
                exif[0x010E] = "hiddenexif"  # ImageDescription
                picture.save(path.with_suffix(".jpg"), exif=exif, comment=b"hiddencomment")
            else:
                info = PngImagePlugin.PngInfo()
                info.add_text("Synthetic", "hiddentext")
                picture.save(path.with_suffix(".png"), pnginfo=info)
    return folders


def make_study(root: Path, *, repeats: int = 2, raters: int = 3, seed: int = 5) -> Prepared:
    """A study of four images from each of three sources."""
    folders = write_sources(root)
    return prepare(
        folders.pop("real"),
        folders,
        root / "study",
        raters=raters,
        per_source=PER_SOURCE,
        repeats=repeats,
        seed=seed,
        title="Two methods",
        base_url="http://127.0.0.1:1",
    )


def tokens(prepared: Prepared) -> list[str]:
    """The raters' tokens, in order."""
    with prepared.links.open(newline="") as handle:
        return [row["link"].rsplit("/", 1)[1] for row in csv.DictReader(handle)]


@contextmanager
def opened(study: Study, url: str | None = None) -> Iterator[Store]:
    """The store of a study, closed at the end."""
    store = Store.open(
        url or default_url(study.paths.store),
        study=study.record.study,
        fingerprint=study.fingerprint,
    )
    try:
        yield store
    finally:
        store.close()


@contextmanager
def running(
    study: Path, *arguments: str, port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "siamese_diffusion", "mos", "serve", str(study), *arguments]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "serving" in line, process.stderr.read() if process.stderr else ""
        address = line.split(" at ")[1].split(" (")[0]
        yield process, address
    finally:
        process.kill()
        process.communicate()


class Reply(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def text(self) -> str: ...


class Client(Protocol):
    """What a rater needs: a test client or a real one."""

    def get(self, url: str) -> Reply: ...
    def post(self, url: str, *, data: Mapping[str, str]) -> Reply: ...


def hidden(page: str, name: str) -> str:
    """Value of a hidden field."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)">', page)
    assert found is not None, page
    return found[1]


def start(client: Client, token: str) -> str:
    """Agree to take part; returns the first question."""
    return client.post(f"/r/{token}/start", data={"consent": "yes"}).text


def answer(client: Client, token: str, page: str, vote: str, confidence: int) -> Reply:
    """Fill in the form of a page and send it."""
    data = {name: hidden(page, name) for name in ("position", "shown")}
    return client.post(
        f"/r/{token}/rate", data={**data, "vote": vote, "confidence": str(confidence)}
    )
