"""One worker: batches, claims, signals."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from PIL import Image

from sampling.painting import PaintingPipeline, files_of, write_masks
from siamese_diffusion.core.errors import Interrupted, OutputError
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.sampling.bulk import sample_with
from siamese_diffusion.sampling.claims import Claims
from siamese_diffusion.sampling.settings import SampleSettings
from siamese_diffusion.sampling.worker import signals_noted


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "masks", 10)


def run(
    pipeline: PaintingPipeline, masks: Path, out: Path, settings: SampleSettings | None = None
) -> int:
    settings = settings or SampleSettings(batch_size=4)
    return sample_with(pipeline, masks, out, settings=settings, progress=False).made


def test_items_are_made_in_batches_of_the_size_asked_for(masks: Path, tmp_path: Path) -> None:
    pipeline = PaintingPipeline()
    assert run(pipeline, masks, tmp_path / "out") == 10
    assert [len(seeds) for seeds in pipeline.seeds] == [4, 4, 2]


@pytest.mark.parametrize(
    ("asked", "told"),
    [({}, PAPER), ({"sampler": "dpm-solver++"}, Sampler("dpm-solver++"))],
    ids=["paper", "other"],
)
def test_the_pipeline_is_told_the_sampler(
    masks: Path, tmp_path: Path, asked: dict[str, object], told: Sampler
) -> None:
    pipeline = PaintingPipeline()
    run(pipeline, masks, tmp_path / "out", SampleSettings.model_validate(asked))
    assert pipeline.samplers == {told}


def test_sigterm_writes_the_batch_and_the_same_command_continues(
    masks: Path, tmp_path: Path
) -> None:
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM: 8 of 10 images are finished") as caught:
        run(PaintingPipeline(signal_at=1), masks, tmp_path / "out")
    assert caught.value.exit_code == 75
    assert "same command" in str(caught.value.hint)
    assert signal.getsignal(signal.SIGTERM) == former
    assert len(list((tmp_path / "out" / "images").iterdir())) == 8
    assert not (tmp_path / "out" / "claims").exists()
    assert run(PaintingPipeline(), masks, tmp_path / "out") == 2
    run(PaintingPipeline(), masks, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_signal_during_the_last_batch_does_not_spoil_a_finished_set(
    masks: Path, tmp_path: Path
) -> None:
    assert run(PaintingPipeline(signal_at=2), masks, tmp_path / "out") == 10


def test_a_second_signal_acts_as_usual() -> None:
    with signals_noted() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_left_alone_outside_the_main_thread(masks: Path, tmp_path: Path) -> None:
    made = []
    thread = threading.Thread(
        target=lambda: made.append(run(PaintingPipeline(), masks, tmp_path / "out"))
    )
    thread.start()
    thread.join(timeout=30)
    assert made == [10]


def test_exact_mode_makes_only_what_is_missing(masks: Path, tmp_path: Path) -> None:
    settings = SampleSettings(batch_size=4, exact=True)
    run(PaintingPipeline(), masks, tmp_path / "out", settings)
    (tmp_path / "out" / "images" / "m01.png").unlink()
    pipeline = PaintingPipeline()
    assert run(pipeline, masks, tmp_path / "out", settings) == 1
    assert [len(seeds) for seeds in pipeline.seeds] == [1]


def test_a_missing_image_is_made_again_in_its_old_batch(masks: Path, tmp_path: Path) -> None:
    run(PaintingPipeline(rounds=True), masks, tmp_path / "out")
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / "images" / "m01.png").unlink()
    assert run(PaintingPipeline(rounds=True), masks, tmp_path / "out") == 1
    assert files_of(tmp_path / "out") == before


def test_items_held_by_another_process_are_waited_for(masks: Path, tmp_path: Path) -> None:
    held = Claims(tmp_path / "out" / "claims").hold("00000005")
    releaser = threading.Timer(0.5, held.release)
    releaser.start()
    pipeline = PaintingPipeline()
    assert run(pipeline, masks, tmp_path / "out") == 10
    assert [len(seeds) for seeds in pipeline.seeds] == [4, 2, 4]


def test_a_disk_that_is_too_full_is_refused_before_the_work(
    masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, 1))
    pipeline = PaintingPipeline()
    with pytest.raises(OutputError, match=r"10 images: .*out' needs"):
        run(pipeline, masks, tmp_path / "out")
    assert pipeline.seeds == []


def test_an_error_while_writing_ends_the_work_and_frees_the_claims(
    masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Image.Image, *args: object, **kwargs: object) -> None:
        raise OutputError("the disk of 'out' is full")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", refuse)
        with pytest.raises(OutputError, match="full"):
            run(PaintingPipeline(), masks, tmp_path / "out")
    assert not (tmp_path / "out" / "claims").exists()
    assert run(PaintingPipeline(), masks, tmp_path / "out") == 10
