"""From masks to images with a run that was really trained, a little."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from siamese_diffusion.core.artifacts import atomic_write_json, read_json
from siamese_diffusion.core.errors import ConfigError, DataError, OutputError, WeightsError
from siamese_diffusion.core.folders import RunPaths
from siamese_diffusion.generators.run_folder import load_run
from siamese_diffusion.models.settings import SmallBaseSettings
from siamese_diffusion.models.small import build_small_base
from siamese_diffusion.sampling.pipeline import SiameseDiffusionPipeline

SIZE = 64
STEPS = 3
Pixels = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def pipeline(tiny_run: Path) -> SiameseDiffusionPipeline:
    """The tiny run with its control amplified: a few steps alone leave no visible trace."""
    loaded = load_run(tiny_run)
    control = loaded.generator.modules["control"]
    with torch.no_grad():
        for name, parameter in control.named_parameters():
            if "controlnet_cond_embedding.out" in name:
                parameter.mul_(50)
            elif name.startswith(("controlnet_down_blocks", "controlnet_mid_block")):
                parameter.mul_(10)
    return SiameseDiffusionPipeline(loaded, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def masks(phantoms: Path) -> list[Path]:
    return sorted((phantoms / "masks").glob("*.png"))[:5]


def pixels(images: Sequence[Image.Image]) -> Pixels:
    return np.stack([np.asarray(image) for image in images]).astype(np.int16)


def drawn(
    pipeline: SiameseDiffusionPipeline,
    masks: Sequence[Path | np.ndarray | Image.Image | str],
    seeds: Sequence[int],
    *,
    prompts: Sequence[str] | None = None,
    steps: int = STEPS,
    guidance_scale: float = 2.0,
    batch_size: int | None = None,
    exact: bool = False,
) -> Pixels:
    return pixels(
        pipeline(
            masks,
            seeds,
            prompts=prompts,
            steps=steps,
            guidance_scale=guidance_scale,
            batch_size=batch_size,
            exact=exact,
        )
    )


def differ(a: Pixels, b: Pixels) -> bool:
    """By more than rounding, in every image."""
    return bool((np.abs(a - b).max(axis=(1, 2, 3)) > 2).all())


def test_one_rgb_image_of_the_run_s_size_comes_per_mask(
    pipeline: SiameseDiffusionPipeline, masks: list[Path]
) -> None:
    images = pipeline(masks[:2], [0, 1], steps=1, guidance_scale=1)
    assert [(image.mode, image.size) for image in images] == [("RGB", (SIZE, SIZE))] * 2
    assert pipeline([], []) == []


def test_an_image_depends_on_seed_mask_prompt_and_settings(
    pipeline: SiameseDiffusionPipeline, masks: list[Path]
) -> None:
    two = masks[:2]
    one = drawn(pipeline, two, [1, 2])
    assert np.array_equal(one, drawn(pipeline, two, [1, 2]))
    assert differ(one, drawn(pipeline, two, [3, 4]))
    assert differ(one, drawn(pipeline, two[::-1], [1, 2]))
    assert differ(one, drawn(pipeline, two, [1, 2], steps=STEPS + 1))
    guided = drawn(pipeline, two, [1, 2], guidance_scale=40.0)
    assert differ(one, guided)
    # A random text encoder says little; strong guidance makes it heard.
    assert differ(guided, drawn(pipeline, two, [1, 2], prompts=["a", "b"], guidance_scale=40.0))


def test_an_image_does_not_depend_on_company_beyond_one_grey_level(
    pipeline: SiameseDiffusionPipeline, masks: list[Path]
) -> None:
    seeds = [5, 6, 7, 8, 9]
    whole = drawn(pipeline, masks, seeds)
    for batch_size in (1, 2):
        assert np.abs(whole - drawn(pipeline, masks, seeds, batch_size=batch_size)).max() <= 1
    turned = drawn(pipeline, masks[::-1], seeds[::-1])[::-1]
    assert np.abs(whole - turned).max() <= 1


def test_exact_gives_the_same_bits_at_any_batch_size_and_order(
    pipeline: SiameseDiffusionPipeline, masks: list[Path]
) -> None:
    seeds = [5, 6, 7]
    alone = [drawn(pipeline, [m], [s])[0] for m, s in zip(masks[:3], seeds, strict=True)]
    for batch_size in (1, 2, None):
        exact = drawn(pipeline, masks[:3], seeds, batch_size=batch_size, exact=True)
        assert np.array_equal(exact, alone)
    turned = drawn(pipeline, masks[2::-1], seeds[::-1], exact=True)
    assert np.array_equal(turned[::-1], alone)


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, weigh: Callable[..., int]
) -> list[int]:
    """Replace a method by itself; what `weigh` makes of its arguments, call by call."""
    calls: list[int] = []
    inner = getattr(owner, name)

    def outer(*arguments: object, **options: object) -> object:
        calls.append(weigh(*arguments))
        return inner(*arguments, **options)

    monkeypatch.setattr(owner, name, outer)
    return calls


def test_hint_and_prompts_are_encoded_once_and_both_prompts_share_a_batch(
    tiny_run: Path, masks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = SiameseDiffusionPipeline.from_pretrained(tiny_run, device="cpu")
    network = getattr(pipeline._loaded.generator, "network")  # noqa: B009

    def rows(tensor: Tensor, *_: object) -> int:
        return len(tensor)

    hints = counted(monkeypatch, network, "hint", rows)
    passes = counted(monkeypatch, network, "controls", rows)
    texts = counted(monkeypatch, pipeline._loaded.base, "embed", len)
    drawn(pipeline, masks[:3], [0, 1, 2], steps=4)
    assert hints == [3]  # per mask, not per step, and not twice for the two prompts
    assert passes == [6] * 4  # conditional and unconditional together
    assert texts == [1, 1]  # prompt and empty prompt
    drawn(pipeline, masks[:3], [0, 1, 2], steps=4)
    assert texts == [1, 1]
    passes.clear()
    drawn(pipeline, masks[:3], [0, 1, 2], steps=2, guidance_scale=1.0)
    assert passes == [3] * 2  # without guidance the empty prompt is not run


def test_guidance_one_is_the_prompt_s_prediction_alone(
    pipeline: SiameseDiffusionPipeline, masks: list[Path]
) -> None:
    """Guidance is eps_empty + s (eps_text - eps_empty), so that s near 1 tends to it."""
    alone = drawn(pipeline, masks[:1], [0], guidance_scale=1.0)
    near = drawn(pipeline, masks[:1], [0], guidance_scale=1.0 + 1e-6)
    assert np.abs(alone - near).max() <= 1


def test_no_argument_takes_an_image() -> None:
    for function in (SiameseDiffusionPipeline.__call__, SiameseDiffusionPipeline.from_pretrained):
        for name in inspect.signature(function).parameters:
            assert "image" not in name
            assert "control" not in name


def test_masks_may_come_as_arrays_pictures_or_files(
    pipeline: SiameseDiffusionPipeline, masks: list[Path], tmp_path: Path
) -> None:
    grey = np.asarray(Image.open(masks[0]).convert("L"))
    white = grey > 127
    sixteen = tmp_path / "sixteen.png"
    Image.fromarray(white.astype(np.uint16) * 65535).save(sixteen)
    same: dict[str, Path | np.ndarray | Image.Image | str] = {
        "text": str(masks[0]),
        "uint8": grey,
        "0/1": white.astype(np.uint8),
        "bool": white,
        "int64": white.astype(np.int64),
        "float": white.astype(np.float64),
        "uint16": white.astype(np.uint16) * 65535,
        "L": Image.fromarray(grey),
        "1": Image.fromarray(grey).convert("1"),
        "RGB": Image.fromarray(grey).convert("RGB"),
        "I;16": Image.open(sixteen),
        "I;16 file": sixteen,
    }
    expected = drawn(pipeline, [masks[0]], [3], exact=True)
    for kind, mask in same.items():
        assert np.array_equal(drawn(pipeline, [mask], [3], exact=True), expected), kind


def test_masks_of_another_size_are_resized(pipeline: SiameseDiffusionPipeline) -> None:
    small = np.zeros((32, 32), bool)
    small[8:20, 10:20] = True
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(drawn(pipeline, [small], [0]), drawn(pipeline, [large], [0]))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), r"has shape \(8, 8, 3\); a mask is \(height, width\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.arange(64, dtype=np.uint8).reshape(8, 8), r"a given mask"),
        (np.full((8, 8), 0.5), r"0\.5"),
        (np.full((8, 8), -1), r"-1"),
        (np.full((8, 8), 70000), r"70000"),
        (np.full((8, 8), np.nan), r"nan"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(
    pipeline: SiameseDiffusionPipeline, mask: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pipeline([mask], [0])


@pytest.mark.parametrize(("seeds", "prompts"), [([1], None), ([1, 2, 3], None), ([1, 2], ["a"])])
def test_a_wrong_number_of_seeds_or_prompts_is_refused(
    pipeline: SiameseDiffusionPipeline,
    masks: list[Path],
    seeds: list[int],
    prompts: list[str] | None,
) -> None:
    n = 2 if prompts is None else len(prompts)
    with pytest.raises(DataError, match=rf"2 masks, {len(seeds)} seeds and {n} prompts"):
        pipeline(masks[:2], seeds, prompts=prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps 0 "),
        ({"steps": 1001}, r"steps 1001 "),
        ({"batch_size": 0}, r"batch_size 0 "),
        ({"batch_size": -1}, r"batch_size -1 "),
    ],
)
def test_impossible_sampler_settings_are_refused(
    pipeline: SiameseDiffusionPipeline, masks: list[Path], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline(masks[:1], [0], **options)  # type: ignore[arg-type]


def test_an_unfinished_run_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    paths = RunPaths(run)
    atomic_write_json(paths.run, {**read_json(paths.run), "state": "training", "step": 0})
    with pytest.raises(OutputError, match=r"training in '.*run' is not finished \(6 steps asked\)"):
        SiameseDiffusionPipeline.from_pretrained(run)


def test_damaged_weights_are_named(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    file = RunPaths(run).model / "control.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"control\.safetensors' cannot be read"):
        SiameseDiffusionPipeline.from_pretrained(run)


def test_a_base_that_moved_is_given_anew(
    tiny_run: Path, small_base_folder: Path, masks: list[Path], tmp_path: Path
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(tiny_run, run)
    shutil.copytree(small_base_folder, moved)
    paths = RunPaths(run)
    told = read_json(paths.run)
    assert isinstance(told["base"], dict)
    gone = str(tmp_path / "gone")
    atomic_write_json(paths.run, {**told, "base": {**told["base"], "reference": gone}})
    with pytest.raises(WeightsError, match=r"'.*gone' is neither[^\n]*\n.*--base"):
        SiameseDiffusionPipeline.from_pretrained(run)
    found = SiameseDiffusionPipeline.from_pretrained(run, base=str(moved))
    before = SiameseDiffusionPipeline.from_pretrained(tiny_run)
    assert np.array_equal(drawn(found, masks[:1], [0]), drawn(before, masks[:1], [0]))


def test_another_base_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    settings = SmallBaseSettings(
        autoencoder_widths=(16, 16, 16, 16),
        unet_widths=(16, 32),
        unet_layers=1,
        text_width=32,
        text_layers=1,
    )
    other = tmp_path / "other"
    other.mkdir()
    build_small_base(settings, size=SIZE, seed=1).save(other)
    with pytest.raises(WeightsError, match=r"base '.*other' is not the one that run '.*tiny'"):
        SiameseDiffusionPipeline.from_pretrained(tiny_run, base=str(other))
