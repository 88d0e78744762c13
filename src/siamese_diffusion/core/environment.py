"""What a run was made with: versions, machine, command, commit."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "siamese-diffusion",
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
)


def snapshot() -> dict[str, object]:
    """Python, packages, platform, device, command, commit and time, for a run folder."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device(),
        "packages": versions(),
        "commit": commit(),
    }


def command() -> str:
    """The command line of this process, quoted for a shell; `siamdiff` under whatever path."""
    program = Path(sys.argv[0])
    # `python -m siamese_diffusion` is the same command
    ours = program.stem == "siamdiff" or program.parent.name == "siamese_diffusion"
    return shlex.join(["siamdiff" if ours else program.name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Installed versions of what results depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def device() -> str:
    """The GPU's name, or "cpu"; does not import torch by itself."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return "cpu"


def commit() -> str | None:
    """Commit of the source tree this package runs from (with a `+` if changed), if it is one.

    A copy without its repository, as in a container, may be told by SIAMDIFF_COMMIT.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return os.environ.get("SIAMDIFF_COMMIT")
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()
