"""The model card and sample grid of a pretrained base, written from what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.config import to_yaml
from siamese_diffusion.core.seeding import normal
from siamese_diffusion.diffusion.ddim import ddim_sample
from siamese_diffusion.generators.settings import PretrainSettings
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.latents import decode, to_uint8

_GRID = (3, 6)  # rows, columns
_GRID_STEPS = 50


@torch.no_grad()
def paint_grid(base: Base, prompt: str, *, seed: int) -> Image.Image:
    """Unguided samples of a base as one picture; each from its own seed."""
    rows, columns = _GRID
    side = base.size // 8
    shape = (int(base.unet.config["in_channels"]), side, side)
    device = next(base.unet.parameters()).device
    noise = torch.stack([normal(shape, seed, "grid", i) for i in range(rows * columns)]).to(device)
    c_text = base.embed([prompt]).to(device).expand(len(noise), -1, -1)

    def predict(zt: Tensor, t: int) -> Tensor:
        times = torch.full((len(zt),), t, device=device)
        out: Tensor = base.unet(zt, times, c_text).sample
        return out

    latents = ddim_sample(predict, noise, base.scheduler.alphas_cumprod.float(), _GRID_STEPS)
    latents = latents.to(next(base.vae.parameters()).device)
    return tile(to_uint8(decode(base.vae, latents)).cpu().numpy(), columns)


def tile(images: np.ndarray, columns: int, *, gap: int = 2) -> Image.Image:
    """(N, H, W, 3) uint8 as one picture, row by row, on white."""
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet)


def base_card(
    settings: PretrainSettings,
    numbers: Mapping[str, float],
    *,
    prompt: str,
    data: str,
    split: str | None,
    autoencoder: str | None,
    start: str | None,
    history: str | None,
    stages: Path,
    environment: Mapping[str, object],
    parameters: Mapping[str, int],
) -> str:
    """Markdown: what it is, how it was made, how good it is, what it must not be used for."""
    hours = {
        stage: _seconds(stages / stage / "log.jsonl") / 60 for stage in ("autoencoder", "denoiser")
    }
    times = ", ".join(f"{stage} {minutes:.0f} min" for stage, minutes in hours.items() if minutes)
    counts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
    packages = json.dumps(environment.get("packages"))
    given = "taken from a file, not trained here" if autoencoder else "trained from scratch"
    text = "random and frozen: it tells prompts apart, it understands none"
    if start:
        given = text = "that of the base it continues"
    return f"""# A small latent-diffusion base for {settings.size} px images

Stable Diffusion's classes (diffusers layout) at small width, for trying the whole chain on a CPU.
It is no medical device and no substitute for Stable Diffusion 1.5.

| | |
|---|---|
| data | {data}{f", split `{split}`" if split else ""}: {numbers["training_images"]} images, masks not used |
| prompt | {prompt} |
| parameters | {counts} |
| autoencoder | {given} |
| text encoder | {text} |
| continues | {start or "nothing: the denoiser starts from random weights"} |
| reconstruction | PSNR {numbers["psnr_db"]} dB, mean of {numbers["held_out_images"]} held-out images, weights as stored ({settings.save_dtype}) |
| time | {times} |
| hardware | {environment.get("processor")}, {environment.get("cores")} cores, {torch.get_num_threads()} threads, {environment.get("device")} |
| command | `{environment.get("command")}` |
| commit | {environment.get("commit")} |
| date | {environment.get("time")} |
| packages | {packages} |

`samples.png`: {_GRID[0] * _GRID[1]} samples, DDIM {_GRID_STEPS} steps, no guidance, no selection.

## Settings

```yaml
{to_yaml(settings).strip()}
```
{_quoted(history)}"""  # noqa: E501


def _quoted(history: str | None) -> str:
    """The card of the base that was continued, as a section of this one."""
    if history is None:
        return ""
    # its headings go two levels down
    lines = [f"##{line}" if line.startswith("#") else line for line in history.strip().split("\n")]
    return "\n## The base that it continues\n\n" + "\n".join(lines) + "\n"


def _seconds(log: Path) -> float:
    """Wall-clock seconds of all the parts of a training that may have been interrupted."""
    total, last = 0.0, 0.0
    for record in read_jsonl(log):
        seconds = float(str(record["seconds"]))
        total += seconds - last if seconds >= last else seconds
        last = seconds
    return total
