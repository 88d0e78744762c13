"""Two processes do not work in one folder at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.lock import alone_in

HOLD = """
import sys, time
from pathlib import Path
from siamese_diffusion.core.lock import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_ends(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=r"another process is working in .*run") as caught:
            alone_in(folder).__enter__()
        assert "another --out" in str(caught.value.hint)
        first.send_signal(signal.SIGKILL)
    with alone_in(folder):
        pass
    assert list(folder.iterdir()) == []


def test_the_folder_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), alone_in(tmp_path):
        raise RuntimeError
    with alone_in(tmp_path):
        pass


def test_helpers_of_one_training_hold_nothing(tmp_path: Path) -> None:
    with alone_in(tmp_path), alone_in(tmp_path, wanted=False):
        pass
