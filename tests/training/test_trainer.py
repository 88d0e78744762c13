"""The loop on a task of two numbers: updates, resuming, stopping, and what it refuses."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import torch

from siamese_diffusion.core.artifacts import read_jsonl
from siamese_diffusion.core.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    MemoryExhausted,
    NumericsError,
    OutputError,
    WeightsError,
)
from siamese_diffusion.core.lock import alone_in
from siamese_diffusion.training.checkpoint import list_checkpoints, load_latest
from siamese_diffusion.training.settings import TrainSettings
from siamese_diffusion.training.trainer import channels_last, check_training, split_batch
from training.toy import ToyTask, settings_of, trainer_of

CPU = torch.device("cpu")
RICH = {
    "ema_decay": 0.9,
    "warmup_steps": 3,
    "decay": "cosine",
    "micro_batch_size": 2,
    "max_gradient_norm": 0.5,
    "validate_every": 4,
    "sample_every": 5,
}


def train(folder: Path, settings: TrainSettings | None = None, **faults: object) -> ToyTask:
    task = ToyTask(**faults)  # type: ignore[arg-type]
    trainer = trainer_of(task, folder, settings)
    trainer.run()
    if trainer.average is not None:
        trainer.average.finish()
    return task


def weights(task: ToyTask) -> list[float]:
    return [float(x) for p in task.line.parameters() for x in p.detach()]


def events(folder: Path, name: str) -> list[dict[str, object]]:
    return [record for record in read_jsonl(folder / "log.jsonl") if record["event"] == name]


def steps_of(folder: Path, name: str) -> list[object]:
    return [record["step"] for record in events(folder, name)]


@pytest.mark.parametrize(
    ("batch", "micro", "world", "expected"),
    [(48, None, 1, (48, 1)), (48, 6, 1, (6, 8)), (48, 6, 8, (6, 1)), (48, None, 8, (6, 1))],
)
def test_the_batch_is_split_over_accumulation_and_processes(
    batch: int, micro: int | None, world: int, expected: tuple[int, int]
) -> None:
    settings = TrainSettings(batch_size=batch, micro_batch_size=micro)
    assert split_batch(settings, world) == expected


@pytest.mark.parametrize(
    ("batch", "micro", "world", "message"),
    [
        (48, 6, 7, r"batch_size 48 \(effective\) .* micro_batch_size 6 x 7 processes"),
        (10, None, 4, r"batch_size 10 \(effective\) .* micro_batch_size 2 x 4 processes"),
        (2, None, 4, r"batch_size 2 \(effective\) .* micro_batch_size 1 x 4 processes"),
    ],
)
def test_a_batch_that_cannot_be_split_is_refused(
    batch: int, micro: int | None, world: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        split_batch(TrainSettings(batch_size=batch, micro_batch_size=micro), world)


def test_what_the_device_cannot_do_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    half = settings_of(precision="fp16")
    with pytest.raises(ConfigError, match=r"precision=fp16 needs a GPU, .* 'cpu'"):
        trainer_of(ToyTask(), tmp_path / "out", half)
    check_training(half, device=torch.device("cuda"), world=1)
    with pytest.raises(ConfigError, match=r"adamw8bit needs bitsandbytes"):
        trainer_of(ToyTask(), tmp_path / "out", settings_of(optimizer="adamw8bit"))
    assert not (tmp_path / "out").exists()


def test_steps_are_those_of_plain_pytorch(tmp_path: Path) -> None:
    settings = settings_of(steps=5, warmup_steps=2)
    task = train(tmp_path, settings)
    other = ToyTask()
    optimizer = torch.optim.AdamW(other.line.parameters(), lr=0.1, weight_decay=1e-2)
    for k, rate in enumerate([0.05, 0.1, 0.1, 0.1, 0.1]):
        optimizer.param_groups[0]["lr"] = rate
        terms = other.line(k, other.batch(k, range(4), CPU))
        optimizer.zero_grad()
        (terms["loss/fit"] + terms["loss/size"]).backward()
        terms = {name: term.detach() for name, term in terms.items()}
        optimizer.step()
    assert weights(task) == pytest.approx(weights(other), rel=1e-6)
    logged = events(tmp_path, "train")
    assert [record["weight/step"] for record in logged] == [0, 1, 2, 3, 4]
    assert logged[-1]["loss/fit"] == pytest.approx(float(terms["loss/fit"]), rel=1e-6)
    total = float(terms["loss/fit"]) + float(terms["loss/size"])
    assert logged[-1]["loss/total"] == pytest.approx(total, rel=1e-6)


def test_micro_batches_change_the_result_by_rounding_only(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    split = train(tmp_path / "split", settings_of(micro_batch_size=1))
    assert whole.seen[0] == (0, (0, 1, 2, 3))
    assert split.seen[:4] == [(0, (0,)), (0, (1,)), (0, (2,)), (0, (3,))]
    assert weights(split) == pytest.approx(weights(whole), rel=1e-5)
    losses = [[e["loss/total"] for e in events(tmp_path / n, "train")] for n in ("whole", "split")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_logged(tmp_path: Path) -> None:
    train(tmp_path, settings_of(steps=1, max_gradient_norm=0.5))
    task = ToyTask()
    terms = task.line(0, task.batch(0, range(4), CPU))
    (terms["loss/fit"] + terms["loss/size"]).backward()
    norm = torch.stack([p.grad for p in task.line.parameters() if p.grad is not None]).norm()
    assert float(norm) > 0.5
    assert events(tmp_path, "train")[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
    state, _ = load_latest(tmp_path / "checkpoints")
    assert state is not None
    moments = [entry["exp_avg"] for entry in state.optimizer["state"].values()]
    assert float(torch.cat(moments).norm()) == pytest.approx(0.1 * 0.5, rel=1e-4)  # 1 - beta_1


def test_validation_and_grids_see_the_averages_and_change_no_bits(tmp_path: Path) -> None:
    quiet = {**RICH, "validate_every": 0, "sample_every": 0}
    with_previews = train(tmp_path / "a", settings_of(**RICH))
    assert weights(with_previews) == weights(train(tmp_path / "b", settings_of(**quiet)))
    assert steps_of(tmp_path / "a", "validate") == [4, 8, 10]
    assert steps_of(tmp_path / "a", "sample") == [5, 10]
    # the last validation is of the averages, which is what the training leaves behind
    assert with_previews.validated[-1].tolist() == weights(with_previews)[:4]


@pytest.mark.parametrize("more", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("stop_at", [0, 2, 3, 7, 9])
def test_a_stopped_training_goes_on_to_the_same_bits(
    tmp_path: Path, more: dict[str, object], stop_at: int
) -> None:
    settings = settings_of(**more)
    expected = weights(train(tmp_path / "whole", settings))
    if stop_at < 9:
        with pytest.raises(Interrupted, match=rf"after step {stop_at + 1} of 10") as caught:
            train(tmp_path / "out", settings, stop_at=stop_at)
        assert caught.value.exit_code == 75
        assert steps_of(tmp_path / "out", "interrupted") == [stop_at + 1]
    else:  # asked to stop in the last step: it is done anyway
        train(tmp_path / "out", settings, stop_at=stop_at)
    assert weights(train(tmp_path / "out", settings)) == expected
    assert steps_of(tmp_path / "out", "train") == list(range(1, 11))
    numbers = [
        [(e["step"], e["loss/total"]) for e in events(tmp_path / n, "train")]
        for n in ("whole", "out")
    ]
    assert numbers[0] == numbers[1]


def test_a_second_signal_stops_at_once_and_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=4, signals=(signal.SIGINT, signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == ["step-00000003"]


def test_a_finished_training_does_nothing_again(tmp_path: Path) -> None:
    expected = weights(train(tmp_path))
    again = train(tmp_path)
    assert again.seen == [] and weights(again) == expected


def test_a_damaged_checkpoint_falls_back_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(**RICH)
    expected = weights(train(tmp_path / "whole", settings))
    with pytest.raises(Interrupted):
        train(tmp_path / "out", settings, stop_at=7)
    damaged = list_checkpoints(tmp_path / "out" / "checkpoints")[-1]
    (damaged / "weights.safetensors").write_bytes(b"x")
    assert weights(train(tmp_path / "out", settings)) == expected
    said = capsys.readouterr().err
    assert "step-00000008' is damaged: 'weights.safetensors'" in said
    assert "using the one before it" in said
    assert steps_of(tmp_path / "out", "train") == list(range(1, 11))
    assert events(tmp_path / "out", "resume")[-1]["step"] == 6


def test_nothing_but_damaged_checkpoints_is_an_error(tmp_path: Path) -> None:
    train(tmp_path)
    for path in list_checkpoints(tmp_path / "checkpoints"):
        (path / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000010' is damaged: 'optimizer\.pt'"):
        train(tmp_path)


def test_checkpoints_of_another_architecture_are_refused_by_tensor(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(WeightsError, match=r"another architecture: slope is \(4,\), needs \(6,\)"):
        train(tmp_path, width=6)


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_a_term_that_is_not_finite_stops_and_is_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(NumericsError, match=r"^loss/fit became (nan|inf) at step 6\n") as caught:
        train(tmp_path, bad=5, bad_value=value)
    assert "train.learning_rate" in str(caught.value.hint)
    state, _ = load_latest(tmp_path / "checkpoints")
    assert state is not None and state.step == 3
    assert steps_of(tmp_path, "train")[-1] == 5


def test_a_gradient_that_overflows_under_a_finite_loss_stops(tmp_path: Path) -> None:
    # x = 1e15: the square is 1e30, whose gradient by the slope is beyond 3.4e38
    with pytest.raises(NumericsError, match=r"norm of the gradient became inf at step 4"):
        train(tmp_path, bad=3, bad_value=1e15)
    state, _ = load_latest(tmp_path / "checkpoints")
    assert state is not None and all(t.isfinite().all() for t in state.weights.values())


def test_weights_that_overflow_in_an_update_are_never_saved(tmp_path: Path) -> None:
    # the first update of Adam is the rate itself; weight decay takes it beyond the range
    settings = settings_of(steps=2, learning_rate=3e38, weight_decay=3e38, checkpoint_every=1)
    with pytest.raises(NumericsError, match=r"'slope' is not finite after step 1"):
        train(tmp_path, settings)
    assert list_checkpoints(tmp_path / "checkpoints") == []


def test_a_batch_that_does_not_fit_names_the_settings_to_change(tmp_path: Path) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
    with pytest.raises(MemoryExhausted, match=r"out of memory \(CUDA out of memory") as caught:
        train(tmp_path, memory=(4, error))
    assert "train.micro_batch_size=2" in str(caught.value.hint)
    assert caught.value.exit_code == 2


def test_a_sample_grid_that_does_not_fit_says_so(tmp_path: Path) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(MemoryExhausted) as caught:
        train(tmp_path, settings_of(sample_every=2), sample_memory=error)
    assert "preview.pairs=1" in str(caught.value.hint)


def test_bfloat16_runs_on_the_cpu_and_keeps_float32_weights(tmp_path: Path) -> None:
    task = train(tmp_path, settings_of(precision="bf16"))
    assert task.line.slope.dtype == torch.float32
    state, _ = load_latest(tmp_path / "checkpoints")
    assert state is not None
    assert {t.dtype for t in state.weights.values()} == {torch.float32}
    exact = weights(train(tmp_path / "exact"))
    assert weights(task) == pytest.approx(exact, rel=0.05)


def test_each_step_is_logged_once_with_rate_speed_and_memory(tmp_path: Path) -> None:
    train(tmp_path, settings_of(log_every=4))
    assert steps_of(tmp_path, "train") == [4, 8, 10]
    first = events(tmp_path, "train")[0]
    assert first["learning_rate"] == 0.1
    assert float(str(first["samples_per_second"])) > 0
    assert float(str(first["peak_memory_mb"])) > 0
    start = events(tmp_path, "start")[0]
    assert (start["processes"], start["micro_batch"], start["accumulation"]) == (1, 4, 1)
    assert (start["device"], start["threads"]) == ("cpu", 1)
    assert steps_of(tmp_path, "complete") == [10]


@pytest.mark.parametrize(
    ("device", "precision", "asked", "expected"),
    [
        ("cpu", "fp32", None, True),
        ("cuda", "fp32", None, False),
        ("cuda", "bf16", None, True),
        ("cpu", "fp32", False, False),
        ("cuda", "fp32", True, True),
    ],
)
def test_channels_go_innermost_where_it_is_faster_or_asked_for(
    device: str, precision: str, asked: bool | None, expected: bool
) -> None:
    settings = TrainSettings.model_validate({"precision": precision, "channels_last": asked})
    assert channels_last(settings, torch.device(device)) is expected


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(OutputError, match="another process is working in"):
        train(tmp_path)
    train(tmp_path)
    assert len(list_checkpoints(tmp_path / "checkpoints")) > 0
