"""Serve a study until it is stopped: open study and store, bind the port, run the pages."""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path
from typing import Final

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.mos.study import Study, missing_extra

HOST: Final = "127.0.0.1"
PORT: Final = 8765

_LOG = logging.getLogger(__name__)


def serve(root: Path, *, host: str = HOST, port: int = PORT, store: str | None = None) -> None:
    """Serve a study folder until interrupted.

    Args:
        root: Study folder.
        host: Address to listen at; anything but this machine's own is warned of.
        port: TCP port; 0 takes a free one.
        store: SQLAlchemy URL; default: a SQLite file in the study folder.

    Raises:
        ConfigError: If the extra `web` is missing, or address, port or URL cannot be used.
        DataError: If the study is damaged or the store belongs to another plan.
        OutputError: If the store cannot be reached.
    """
    study = Study.open(root)
    try:
        import uvicorn

        from siamese_diffusion.mos.store import Store, default_url
        from siamese_diffusion.mos.web import create_app
    except ImportError as error:
        raise missing_extra(error) from error
    listening = _listen(host, port)
    with listening:
        opened = Store.open(
            store or default_url(study.paths.store),
            study=study.record.study,
            fingerprint=study.fingerprint,
        )
        port = listening.getsockname()[1]
        if not _is_loopback(host):
            _LOG.warning(
                "%s is reachable from other machines, without encryption: put a proxy with TLS "
                "before it, or raters' answers and links can be read on the way",
                host,
            )
        shown = f"[{host}]" if ":" in host else host
        print(f"serving '{root}' at http://{shown}:{port} (stop with Ctrl-C)", flush=True)
        # No access log: its lines would hold the raters' tokens.
        config = uvicorn.Config(
            create_app(study, opened), access_log=False, log_level="warning", server_header=False
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print("stopped; every acknowledged rating is stored", flush=True)
        finally:
            opened.close()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is not possible", hint="choose 1024 to 65535, or 0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)  # from here on raters wait for the start instead of being refused
    except (OSError, UnicodeError) as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host} port {port} ({error})",
            hint="choose another --port, or an address of this machine for --host",
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
