"""Files appear whole or not at all, and what hinders them is named."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from siamese_diffusion.core.artifacts import (
    append_jsonl,
    atomic_folder,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    make_folder,
    output_error,
    read_json,
    read_jsonl,
    remove_leftovers,
    require_free_space,
    text_sha256,
)
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.folders import RunPaths, SyntheticPaths


def refuse(number: int) -> object:
    """A function of the system that fails with this errno."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf8_with_its_folders(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a" / "b.txt", "Läsion\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"L\xc3\xa4sion\n"
    assert names(tmp_path / "a") == ["b.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"the disk of '.*a\.txt' is full"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOSPC, r"the disk of 'out/x' is full", "free space"),
        (errno.EROFS, r"'out/x' cannot be written \(Read-only file system\)", "may write"),
        (errno.EACCES, r"'out/x' cannot be written \(Permission denied\)", "may write"),
        (errno.EIO, r"'out/x' cannot be written \(Input/output error\)", "None"),
    ],
)
def test_each_cause_of_a_failed_write_has_its_sentence(
    number: int, message: str, hint: str
) -> None:
    error = output_error(Path("out/x"), OSError(number, os.strerror(number)))
    with pytest.raises(OutputError, match=message):
        raise error
    assert hint in str(error.hint)
    assert error.exit_code == 2


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match=r"out/deep' cannot be written \(Not a directory\)"):
        make_folder(tmp_path / "out" / "deep")


def test_json_keeps_order_and_letters(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"b": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    assert read_json(tmp_path / "a.json") == {"b": 1, "a": "ü"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"x\.json' is missing or not readable JSON"),
        (b'{"a": 1', r"x\.json' is missing or not readable JSON"),
        (b"\xff\xfe", r"x\.json' is missing or not readable JSON"),
        (b"[1]", r"x\.json' does not hold a JSON object"),
    ],
)
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutputError, match=message):
        read_json(path)


def test_appended_records_are_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records: list[dict[str, object]] = [{"step": n, "text": "é\u2028\x85\n"} for n in range(3)]
    for record in records:
        append_jsonl(path, record)
    assert list(read_jsonl(path)) == records
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_a_line_torn_by_a_kill_is_skipped_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = json.dumps({"step": 1, "prompt": "polyp"}) + "\n"
    second = json.dumps({"step": 2, "prompt": "café \u00e9"}, ensure_ascii=False).encode()
    for length in range(len(second)):
        path.write_bytes(first.encode() + second[:length])
        assert [record["step"] for record in read_jsonl(path)] == [1]
    path.write_bytes(first.encode() + second)
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]


def test_a_broken_line_before_the_last_is_an_error_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(OutputError, match=r"log\.jsonl' line 2 is not JSON"):
        list(read_jsonl(path))


def test_a_record_cut_short_by_a_full_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(OutputError, match=r"the disk of '.*log\.jsonl' is full"):
        append_jsonl(tmp_path / "log.jsonl", {"step": 1})


def test_a_log_on_a_read_only_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", refuse(errno.EROFS))
    with pytest.raises(OutputError, match=r"log\.jsonl' cannot be written \(Read-only"):
        append_jsonl(tmp_path / "log.jsonl", {"step": 1})


def _append_many(path: Path, writer: int) -> None:
    for n in range(200):
        append_jsonl(path, {"writer": writer, "n": n, "padding": "x" * (n % 50)})


def test_lines_of_several_processes_do_not_interleave(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, w)) for w in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    found = sorted((int(str(r["writer"])), int(str(r["n"]))) for r in read_jsonl(path))
    assert found == [(w, n) for w in range(3) for n in range(200)]


def test_a_folder_appears_when_it_is_full(tmp_path: Path) -> None:
    target = tmp_path / "in" / "model"
    with atomic_folder(target) as folder:
        (folder / "weights").write_bytes(b"1")
        assert not target.exists()
    assert (target / "weights").read_bytes() == b"1"
    assert names(tmp_path / "in") == ["model"]


def test_a_folder_replaces_the_one_before_as_a_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "model") as folder:
            (folder / name).touch()
    assert names(tmp_path / "model") == ["new"]
    assert names(tmp_path) == ["model"]


def test_a_folder_whose_filling_fails_leaves_the_one_before(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    full = pytest.raises(OutputError, match=r"disk of '.*model' is full")
    with full, atomic_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path / "model") == ["old"]
    assert names(tmp_path) == ["model"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".a.json.0123abcd.tmp").touch()
    (tmp_path / ".model.0123abcd.old").mkdir()
    (tmp_path / ".model.0123abcd.old" / "file").touch()
    for kept in ("a.json", ".hidden", "b.tmp"):
        (tmp_path / kept).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "a.json", "b.tmp"]
    remove_leftovers(tmp_path / "none")


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000  # longer than one chunk
    atomic_write_bytes(tmp_path / "a", content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    # FIPS 180-2, appendix B.1
    assert text_sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_disk_too_small_is_told_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    require_free_space(tmp_path / "not" / "yet", 3 * 2**20)
    with pytest.raises(OutputError, match=r"yet' needs 4 MiB but its disk has 3 MiB"):
        require_free_space(tmp_path / "not" / "yet", 4 * 2**20)


def test_the_names_inside_our_folders_are_frozen() -> None:
    # Folders written by one version are read by the next.
    run, synthetic = RunPaths(Path("r")), SyntheticPaths(Path("s"))
    assert [
        path.as_posix()
        for path in (
            run.run,
            run.config,
            run.asked,
            run.environment,
            run.log,
            run.checkpoint(7),
            run.model,
            run.sample_grid(7),
            run.cache,
            run.tensorboard,
            run.base,
            synthetic.image("a_r0"),
            synthetic.mask("a_r0"),
            synthetic.prompt,
            synthetic.plan_header,
            synthetic.plan,
            synthetic.manifest,
            synthetic.claims,
        )
    ] == [
        "r/run.json",
        "r/config.yaml",
        "r/config.asked.yaml",
        "r/environment.json",
        "r/log.jsonl",
        "r/checkpoints/step-00000007",
        "r/model",
        "r/samples/step-00000007.png",
        "r/data",
        "r/tensorboard",
        "r/base",
        "s/images/a_r0.png",
        "s/masks/a_r0.png",
        "s/prompt.txt",
        "s/plan.json",
        "s/plan.jsonl",
        "s/manifest.jsonl",
        "s/claims",
    ]
