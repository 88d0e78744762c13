"""Locks that die with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.sampling.claims import Claims

_HOLDER = """
import sys, time
from pathlib import Path
from siamese_diffusion.sampling.claims import Claims
Claims(Path(sys.argv[1])).hold("a")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims")


def test_a_claimed_name_is_refused_to_others_until_released(claims: Claims, tmp_path: Path) -> None:
    other = Claims(tmp_path / "claims")
    held = claims.attempt("a")
    assert held is not None
    assert other.attempt("a") is None
    held.release()
    again = other.attempt("a")
    assert again is not None
    again.release()


def test_release_leaves_no_file_behind(claims: Claims, tmp_path: Path) -> None:
    claims.hold("a").release()
    assert list((tmp_path / "claims").iterdir()) == []
    claims.remove_folder()
    assert not (tmp_path / "claims").exists()
    claims.remove_folder()


def test_the_claim_of_a_killed_process_is_free(claims: Claims, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "claims")], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert claims.attempt("a") is None
        os.kill(holder.pid, signal.SIGKILL)
    assert (tmp_path / "claims" / "a.lock").exists()
    claim = claims.attempt("a")
    assert claim is not None
    claim.release()


def test_several_names_are_claimed_together_or_not_at_all(claims: Claims) -> None:
    held = claims.hold("b")
    assert claims.attempt_all(["a", "b", "c"]) is None
    free = claims.attempt("a")
    assert free is not None
    free.release()
    held.release()
    all_held = claims.attempt_all(["a", "b", "c"])
    assert all_held is not None and len(all_held) == 3
    for claim in all_held:
        claim.release()


def test_a_waiting_claim_ends_up_on_the_file_that_exists(claims: Claims, tmp_path: Path) -> None:
    # The holder deletes its file before letting go: who waited on it holds a deleted file and
    # must take the new one, or two could hold the same name.
    held = claims.hold("a")
    waited = []
    waiter = threading.Thread(target=lambda: waited.append(claims.hold("a")))
    waiter.start()
    held.release()
    waiter.join(timeout=10)
    assert waited[0].path.exists()
    assert claims.attempt("a") is None
    waited[0].release()


def test_many_threads_never_hold_the_same_name_at_once(claims: Claims) -> None:
    inside = []
    most = []

    def work() -> None:
        for _ in range(50):
            claim = claims.hold("a")
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            claim.release()
            claims.remove_folder()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(most) == 200
    assert max(most) == 1


def test_waiting_for_others_clears_dead_locks_and_keeps_the_own(
    claims: Claims, tmp_path: Path
) -> None:
    own = claims.hold("finish")
    (tmp_path / "claims" / "00000001.lock").touch()
    claims.wait_for_others(but="finish")
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["finish.lock"]
    claims.remove_folder()
    assert (tmp_path / "claims").exists()
    own.release()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "claims").touch()
    with pytest.raises(OutputError, match=r"claims.*cannot be written"):
        Claims(tmp_path / "claims").attempt("a")
