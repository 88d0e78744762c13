"""What runs on a CPU gives the same on a GPU: losses, images, and the command line's chain."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invoking import siamdiff
from reference.literal import disturb
from siamese_diffusion.core.artifacts import atomic_write_json, read_json, read_jsonl
from siamese_diffusion.core.config import build
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators.settings import SiameseFitSettings
from siamese_diffusion.generators.siamese import Siamese
from siamese_diffusion.models.base import Base
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
SMALL = SmallBaseSettings(
    autoencoder_widths=(16, 16, 16, 16),
    unet_widths=(32, 64),
    unet_layers=1,
    text_width=32,
    text_layers=1,
)
GREY_LEVELS = 2  # of 255; sums are taken in another order


def method() -> tuple[Base, Siamese]:
    base = build_small_base(SMALL, size=64, seed=0)
    generator = Siamese.build(build(SiameseFitSettings, {"train": {"steps": 30}}), base)
    disturb(generator.network.control, scale=0.02)
    return base, generator


def losses(device: str, *, bf16: bool = False) -> dict[str, float]:
    base, generator = method()
    generator.objective.to(device)
    draws = torch.Generator().manual_seed(5)
    t = torch.tensor([100, 150, 600, 900])
    batch = {
        "z0": torch.randn(4, 4, 8, 8, generator=draws),
        "eps": torch.randn(4, 4, 8, 8, generator=draws),
        "mask": (torch.rand(4, 1, 64, 64, generator=draws) > 0.5).float().repeat(1, 3, 1, 1),
        "image": torch.rand(4, 3, 64, 64, generator=draws),
        "alpha_bar_t": base.scheduler.alphas_cumprod.float()[t],
        "c_text": torch.randn(4, 77, 32, generator=draws),
    }
    moved = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        terms = generator.objective(20, {**moved, "t": t})
    torch.autograd.backward(torch.stack([v for k, v in terms.items() if "loss" in k]).sum())
    return {name: float(value.detach()) for name, value in terms.items()}


def test_losses_of_a_gpu_are_those_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert losses("cuda") == pytest.approx(losses("cpu"), rel=1e-4)


def test_losses_in_bf16_are_those_in_fp32_within_a_hundredth() -> None:
    assert losses("cuda", bf16=True) == pytest.approx(losses("cuda"), rel=0.01)


def test_a_sampled_image_is_that_of_a_cpu(monkeypatch: pytest.MonkeyPatch, tiny_run: Path) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 255
    images = [
        np.asarray(
            SiameseDiffusionPipeline.from_pretrained(tiny_run, device=device)(
                [mask], [3], steps=5, guidance_scale=2.0
            )[0]
        ).astype(int)
        for device in ("cpu", "cuda")
    ]
    assert np.abs(images[0] - images[1]).max() <= GREY_LEVELS


def test_a_training_in_bf16_goes_on_from_its_checkpoint(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    command = ("fit", "--data", phantoms, "--base", small_base_folder, "--out", tmp_path / "run")
    settings = ["--set", "data.size=64", "--set", "train.batch_size=4", "--set", "train.steps=4"]
    settings += ["--set", "train.precision=bf16", "--set", "train.checkpoint_every=2"]
    first = siamdiff(*command, *settings, "--device", "cuda")
    assert first.code == 0, first.err
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    run = read_json(tmp_path / "run" / "run.json")
    atomic_write_json(tmp_path / "run" / "run.json", {**run, "state": "training"})
    again = siamdiff(*command, *settings, "--device", "cuda")
    assert again.code == 0, again.err
    events = [r["event"] for r in read_jsonl(tmp_path / "run" / "log.jsonl")]
    assert "resume" in events and events[-1] == "complete"


def test_the_chain_of_the_command_line(
    phantoms: Path, small_base_folder: Path, tmp_path: Path
) -> None:
    run, made, segmenter = tmp_path / "run", tmp_path / "set", tmp_path / "segmenter"
    settings = ("data.size=64", "train.steps=3", "train.batch_size=4", "train.precision=bf16")
    common = [a for s in settings for a in ("--set", s)]
    fitted = siamdiff(
        *("fit", "--data", phantoms, "--base", small_base_folder, "--out", run, "--device", "cuda"),
        *common,
    )
    assert fitted.code == 0, fitted.err
    sampled = siamdiff(
        *("sample", run, "--masks", phantoms, "--split", "test", "--out", made, "--steps", "3"),
        *("--device", "cuda", "--precision", "bf16"),
    )
    assert sampled.code == 0, sampled.err
    for path in PairFolder.open(made).pairs:
        assert path.image is not None and Image.open(path.image).size == (64, 64)
    trained = siamdiff(
        *("segment", "fit", "--model", "unet", "--real", phantoms, "--synthetic", made),
        *("--ratio", "0.2"),
        *("--out", segmenter, "--preset", "small", "--set", "inputs.size=64"),
        *("--set", "train.steps=3", "--device", "cuda"),
    )
    assert trained.code == 0, trained.err
    result = tmp_path / "result.json"
    judged = siamdiff(
        *("segment", "evaluate", segmenter, "--data", phantoms, "--split", "val"),
        *("--out", result, "--device", "cuda"),
    )
    assert judged.code == 0, judged.err
    assert read_json(result)
