"""The data at training size: computed once, under a key of its content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.generators import tensors
from siamese_diffusion.generators.tensors import PairTensors, pair_tensors
from siamese_diffusion.models.base import Base, load_base
from siamese_diffusion.models.latents import encode_moments

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(small_base_folder: Path) -> Base:
    return load_base(small_base_folder)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the images that go through the autoencoder."""
    seen: list[int] = []

    def counted(vae: object, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(images))
        return encode_moments(vae, images)

    monkeypatch.setattr(tensors, "encode_moments", counted)
    return seen


def load(
    base: Base, folder: PairFolder, cache: Path, *, size: int = 64, sha: str = "b"
) -> PairTensors:
    return pair_tensors(
        base, folder, size=size, cache=cache, device=CPU, base_sha256=sha, quiet=True
    )


def few(phantoms: Path, n: int = 3, *, prompt: str | None = None) -> PairFolder:
    folder = PairFolder.open(phantoms, prompt=prompt)
    return folder.without(folder.stems[n:])


def same(left: PairTensors, right: PairTensors) -> bool:
    names = PairTensors.__dataclass_fields__
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in names)


def test_pixels_latents_and_prompts_are_those_of_the_folder(
    phantoms: Path, base: Base, tmp_path: Path
) -> None:
    folder = few(phantoms)
    found = load(base, folder, tmp_path)
    assert len(found) == 3
    for index in range(3):
        image = folder.image(index, 64)
        np.testing.assert_array_equal(found.image[index].permute(1, 2, 0).numpy(), image)
        np.testing.assert_array_equal(found.mask[index].numpy(), folder.mask(index, 64))
        scaled = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        mean, std = encode_moments(base.vae, scaled)
        torch.testing.assert_close(found.mean[index : index + 1], mean)
        torch.testing.assert_close(found.std[index : index + 1], std)
        prompt = base.embed([folder.pairs[index].prompt])[0]
        torch.testing.assert_close(found.context[found.prompt[index]], prompt)
    torch.testing.assert_close(found.context[:1], base.embed([""]))
    assert found.mean.shape == (3, 4, 8, 8)


def test_an_empty_prompt_has_one_row(phantoms: Path, base: Base, tmp_path: Path) -> None:
    found = load(base, few(phantoms, prompt=""), tmp_path)
    assert len(found.context) == 1 and found.prompt.tolist() == [0, 0, 0]


def test_the_autoencoder_runs_once_for_a_data_set(
    phantoms: Path, base: Base, tmp_path: Path, calls: list[int]
) -> None:
    first = load(base, few(phantoms), tmp_path)
    assert sum(calls) == 3
    moved = shutil.copytree(phantoms, tmp_path / "moved")
    assert same(load(base, few(moved), tmp_path), first)
    assert sum(calls) == 3
    assert len(list(tmp_path.glob("pairs-*.safetensors"))) == 1


def test_other_data_size_prompt_or_base_are_computed_anew(
    phantoms: Path, base: Base, tmp_path: Path, calls: list[int]
) -> None:
    load(base, few(phantoms), tmp_path)
    load(base, few(phantoms), tmp_path, size=32)
    load(base, few(phantoms), tmp_path, sha="c")
    load(base, few(phantoms, prompt="naevus"), tmp_path)
    load(base, few(phantoms, 2), tmp_path)
    assert calls == [3, 3, 3, 3, 2]
    assert len(list(tmp_path.glob("pairs-*.safetensors"))) == 5


@pytest.mark.parametrize("fault", ["cut", "zeroed", "other fields"])
def test_a_damaged_cache_is_computed_again(
    phantoms: Path, base: Base, tmp_path: Path, calls: list[int], fault: str
) -> None:
    first = load(base, few(phantoms), tmp_path)
    (file,) = tmp_path.glob("pairs-*.safetensors")
    if fault == "other fields":
        save_file({"image": torch.zeros(1)}, file)
    else:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if fault == "cut" else bytes(len(content)))
    assert same(load(base, few(phantoms), tmp_path), first)
    assert calls == [3, 3]
    assert same(load(base, few(phantoms), tmp_path), first)
    assert calls == [3, 3]


def test_a_disk_too_small_is_refused_before_the_cache_is_written(
    phantoms: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"cache' needs .* its disk has 0 MiB"):
        load(base, few(phantoms), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
