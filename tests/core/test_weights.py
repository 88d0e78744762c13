"""Reading weight files without executing code, and writing them whole."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from siamese_diffusion.core.errors import OutputError, WeightsError
from siamese_diffusion.core.weights import (
    misfits,
    read_state_dict,
    store_tensors,
    write_tensors,
)

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


def test_stored_tensors_come_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.safetensors"
    view = torch.arange(12.0).reshape(3, 4).T  # neither contiguous nor alone in its memory
    store_tensors(path, {"a": view, "b": torch.ones(2, dtype=torch.uint8)})
    store_tensors(path, {"a": view * 2})
    assert torch.equal(read_state_dict(path)["a"], view * 2)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_a_place_that_cannot_be_written_is_named_with_the_systems_reason(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/a' cannot be written \(No such file"):
        write_tensors(tmp_path / "none" / "a", {"a": torch.ones(1)})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written \(Not a directory\)"):
        store_tensors(tmp_path / "file" / "a", {"a": torch.ones(1)})


def _store_on_a_full_disk(path: Path, says: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        store_tensors(path, {"a": torch.ones(10_000)})
    except OutputError as error:
        says.write_text(error.message)


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path, says = tmp_path / "out" / "a.safetensors", tmp_path / "says"
    store_tensors(path, {"a": torch.zeros(2)})
    process = multiprocessing.get_context("fork").Process(
        target=_store_on_a_full_disk, args=(path, says)
    )
    process.start()
    process.join()
    assert "cannot be written (File too large)" in says.read_text()
    assert read_state_dict(path)["a"].tolist() == [0, 0]
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_misfits_name_each_tensor_once() -> None:
    own = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    state = {"b": torch.ones(3, 1), "c": torch.zeros(1), "d": torch.ones(1)}
    assert misfits(own, state) == "missing a; unexpected d; b is (3, 1), needs (3,)"
    assert misfits(own, own) == ""
    many = {f"n{i:02d}": torch.ones(1) for i in range(23)}
    assert misfits(many, {}).endswith("missing n19; and 3 more")
