"""A real server process: killed in the middle, several raters at once, addresses and ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from mos.rating import answer, opened, running, start, tokens
from siamese_diffusion.core.errors import ConfigError, DataError
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.serving import serve
from siamese_diffusion.mos.study import Study


def client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, follow_redirects=True, timeout=30, trust_env=False)


def test_a_killed_server_has_lost_and_doubled_nothing_that_was_acknowledged(
    prepared: Prepared, study: Study
) -> None:
    names = tokens(prepared)
    acknowledged: list[tuple[str, int, bool, int]] = []
    lock = threading.Lock()
    half = threading.Event()

    def rate(number: int, address: str) -> None:
        token, rater = names[number], f"rater-{number + 1}"
        with client(address) as http:
            try:
                page = start(http, token)
                for position in range(14):
                    vote = (position + number) % 3 > 0
                    reply = answer(
                        http, token, page, "real" if vote else "synthetic", position % 11
                    )
                    assert reply.status_code == 200
                    with lock:
                        acknowledged.append((rater, position, vote, position % 11))
                        if len(acknowledged) == 12:
                            half.set()
                    page = reply.text
            except httpx.TransportError:
                return  # the server is gone

    with running(prepared.study) as (process, address):
        threads = [threading.Thread(target=rate, args=(n, address)) for n in range(3)]
        for thread in threads:
            thread.start()
        assert half.wait(60)
        process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert 12 <= len(acknowledged) < 42
    with opened(study) as store:
        stored = [(r.rater, r.position, r.is_real, r.confidence) for r in store.ratings()]
    assert set(acknowledged) <= set(stored)
    assert len({row[:2] for row in stored}) == len(stored)
    # What was in flight may be there too: at most one answer a rater.
    assert len(stored) <= len(acknowledged) + 3

    with running(prepared.study) as (process, address), client(address) as http:
        for number, token in enumerate(names):
            done = sum(row[0] == f"rater-{number + 1}" for row in stored)
            page = start(http, token)
            assert done == 14 or f"Image {done + 1} of 14" in page
            while "Thank you" not in page:
                page = answer(http, token, page, "synthetic", 0).text
    with opened(study) as store:
        rows = store.ratings()
    assert [(r.rater, r.position) for r in rows] == [
        (f"rater-{n}", p) for n in (1, 2, 3) for p in range(14)
    ]
    assert set(stored) <= {(r.rater, r.position, r.is_real, r.confidence) for r in rows}


def test_server_is_local_prints_no_token_and_ends_well(prepared: Prepared) -> None:
    with running(prepared.study) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        token = tokens(prepared)[0]
        with client(address) as http:
            assert http.get(f"/r/{token}").status_code == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert "every acknowledged rating is stored" in out
        assert token not in out + err


def test_listening_beyond_this_machine_is_warned_of(prepared: Prepared) -> None:
    with running(prepared.study, "--host", "0.0.0.0") as (process, _):
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert "0.0.0.0 is reachable from other machines, without encryption" in err


def test_a_used_port_and_an_address_of_another_machine_are_told(prepared: Prepared) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen at 127\.0\.0\.1 port {port} \("):
            serve(prepared.study, port=port)
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1 port 0"):
        serve(prepared.study, host="192.0.2.1", port=0)
    with pytest.raises(ConfigError, match="--port 70000 is not possible"):
        serve(prepared.study, port=70000)


def test_a_damaged_study_is_not_served(prepared: Prepared) -> None:
    next((prepared.study / "images").iterdir()).unlink()
    with pytest.raises(DataError, match="1 of 12 images of study"):
        serve(prepared.study, port=0)


def test_a_missing_extra_is_named(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match="needs 'uvicorn', which is not installed") as error:
        serve(prepared.study, port=0)
    assert error.value.hint == "pip install 'siamese-diffusion[web]'"


def test_help_imports_neither_torch_nor_the_web_packages() -> None:
    code = (
        "import sys; from siamese_diffusion.cli.main import app\n"
        "try: app(['mos', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'fastapi', 'sqlalchemy', 'uvicorn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert "Serve the study" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
