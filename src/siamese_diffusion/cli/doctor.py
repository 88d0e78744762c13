"""`siamdiff doctor`: what is installed, what is broken, how to mend it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path

from siamese_diffusion import __version__
from siamese_diffusion.core.environment import processor, versions

_EXTRAS = {
    "report": ("matplotlib", "jinja2"),
    "track": ("tensorboard",),
    "web": ("fastapi", "uvicorn", "jinja2", "python_multipart", "sqlalchemy"),
    "8bit": ("bitsandbytes",),
}


def examine() -> tuple[str, bool]:
    """The report, and whether everything needed works."""
    lines = [
        f"siamese-diffusion {__version__}",
        f"processor: {processor()}, {os.cpu_count()} cores",
    ]
    ok = True
    for name in ("torch", "diffusers", "transformers", "accelerate", "safetensors"):
        problem = _import_problem(name)
        version = versions().get(name, "?")
        lines.append(f"{name} {version}: {'works' if problem is None else problem}")
        ok = ok and problem is None
    lines.append(f"torchvision: {_torchvision()}")
    ok = ok and "broken" not in lines[-1]
    if _import_problem("torch") is None:
        lines.append(_device())
    for extra, modules in _EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        state = (
            "installed"
            if not missing
            else (f"not installed (optional: pip install 'siamese-diffusion[{extra}]')")
        )
        lines.append(f"extra {extra}: {state}")
    tiny = Path(__file__).parents[1] / "bases" / "tiny" / "model_index.json"
    lines.append(f"embedded base tiny: {'present' if tiny.exists() else 'MISSING; reinstall'}")
    ok = ok and tiny.exists()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    lines.append(f"disk free here: {free:.1f} GiB")
    offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    lines.append(
        "network: never used unless a hub id is given as base"
        + ("; HF_HUB_OFFLINE is set" if offline else "")
    )
    lines.append("everything needed works" if ok else "something needs mending, see above")
    return "\n".join(lines), ok


def _import_problem(name: str) -> str | None:
    # A broken binary raises OSError or RuntimeError rather than ImportError.
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        words = str(error).splitlines() or [type(error).__name__]
        return f"does not import ({words[0][:100]})"
    return None


def _torchvision() -> str:
    if importlib.util.find_spec("torchvision") is None:
        return "absent, and not needed"
    problem = _import_problem("torchvision")
    if problem is None:
        return "works, and not needed"
    return (
        f"installed but broken: {problem}; it breaks diffusers and transformers too. "
        "Mend: pip uninstall torchvision"
    )


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"device: cpu, {torch.get_num_threads()} threads; no CUDA device"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
    return f"device: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB, {bf16} bf16"
