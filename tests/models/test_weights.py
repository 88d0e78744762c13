"""Reading weight files without executing code."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from siamese_diffusion.core.errors import WeightsError
from siamese_diffusion.models.weights import read_state_dict

STATE = {"a.weight": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}


class Payload:
    """Creates a file when unpickled by a careless reader."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._trace),)


def equal(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_pickled_tensors_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(STATE, path)
    assert equal(read_state_dict(path))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.safetensors")
    assert equal(read_state_dict(tmp_path / "weights.safetensors"))


@pytest.mark.parametrize("key", ["state_dict", "module"])
def test_a_nested_state_dict_is_taken_out(tmp_path: Path, key: str) -> None:
    path = tmp_path / "weights.ckpt"
    torch.save({key: STATE, "epoch": 3, "global_step": 7}, path)
    assert equal(read_state_dict(path))


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**STATE, "epoch": 3}, path)
    assert equal(read_state_dict(path))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_by_name_and_not_run(tmp_path: Path, form: str) -> None:
    path, trace = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"state_dict": {"a": Payload(trace)}}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=re.escape(f"'{path}' is a pickle")) as caught:
        read_state_dict(path)
    assert "safetensors" in str(caught.value.hint)
    assert not trace.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.pth"
    with pytest.raises(WeightsError, match=re.escape(f"'{path}' does not exist")):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["empty", "truncated", "text"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello, I am text"}[content]
    )
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [{}, {"epoch": 3}, {"state_dict": {}}, [torch.zeros(2)], torch.zeros(2), torch.zeros(())],
    ids=["nothing", "number", "empty", "list", "tensor", "scalar"],
)
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=re.escape(f"'{path}' holds no tensors")):
        read_state_dict(path)
