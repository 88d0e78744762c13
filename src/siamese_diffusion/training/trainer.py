"""The loop: batch -> objective -> loss terms -> update. Knows no method.

Everything random is drawn by the task from (seed, step, position), so resuming needs only the step,
and the number of processes and the micro-batch change nothing but rounding.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError, Interrupted, NumericsError, WeightsError
from siamese_diffusion.core.lock import alone_in
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.core.weights import misfits
from siamese_diffusion.training.checkpoint import TrainingState, load_latest, save_checkpoint
from siamese_diffusion.training.ema import MovingAverage
from siamese_diffusion.training.layout import follow_layout, lay_out
from siamese_diffusion.training.log import RunLog
from siamese_diffusion.training.memory import (
    SAMPLE_MEMORY_HINT,
    oom_guard,
    peak_memory_mb,
    step_memory_hint,
)
from siamese_diffusion.training.optimizer import adamw8bit, build_optimizer, learning_rate
from siamese_diffusion.training.precision import chosen_precision, warn_of_emulation
from siamese_diffusion.training.processes import choose_device, join_processes
from siamese_diffusion.training.recipe import OwnRecipe, buffers
from siamese_diffusion.training.settings import TrainSettings

LOSS = "loss/"  # terms with this prefix are summed; all others are logged only
_NOT_FINITE = (
    "the last checkpoint is from before; lower train.learning_rate, or use "
    "train.precision=fp32 or bf16, then run the same command with a new --out"
)


class Task(Protocol):
    """What the loop needs of a method.

    Attributes:
        objective: `objective(step, batch)` returns named scalar terms; those called `loss/...` are
            added up. Its trainable parameters are what is trained. The names are the same for
            every micro-batch of a step, and every trained parameter gets a gradient in each:
            processes add them up name by name.
    """

    objective: nn.Module

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters in a fixed order."""
        ...

    def batch(self, step: int, positions: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """The samples at `positions` of the effective batch of `step`, with all their noise."""
        ...

    def validate(self, device: torch.device) -> Mapping[str, float]:
        """Validation numbers with the current weights; an empty mapping if there are none."""
        ...

    def sample(self, step: int, device: torch.device) -> Mapping[str, object]:
        """Draw and store a sample grid; what to log of it."""
        ...


class Trainer:
    """Trains one task in one folder.

    Args:
        settings: The loop's settings.
        task: The method.
        folder: For checkpoints (`checkpoints/`), the log and TensorBoard.
        settings_hash: Identity of the run, stored with each checkpoint.
        label: Shown by the progress bar.
        quiet: No progress bar.
        device: "cpu" or "cuda"; None takes what is there.

    Raises:
        ConfigError: If the settings cannot work on this device or with these processes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        task: Task,
        *,
        folder: Path,
        settings_hash: str,
        label: str = "fit",
        quiet: bool = False,
        device: str | None = None,
    ) -> None:
        self.settings = settings
        self.task = task
        self.folder = folder
        self._hash = settings_hash
        self._label = label
        self._quiet = quiet
        self._stop = False
        chosen = choose_device(device)
        check_training(settings, device=chosen, world=join_processes(chosen).num_processes)
        self.precision = chosen_precision(settings, chosen)
        warn_of_emulation(self.precision, chosen)
        mixed = {"fp32": "no"}.get(self.precision, self.precision)
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=chosen.type == "cpu")
        self.device = self.accelerator.device
        self.world = self.accelerator.num_processes
        self.micro, self.accumulation = split_batch(settings, self.world)
        self.average: MovingAverage | None = None

    def run(self) -> int:
        """Train to the end, continuing from the last checkpoint; returns the steps done.

        Raises:
            Interrupted: After SIGTERM or SIGINT, once a checkpoint is written.
            NumericsError: If a term, a gradient or a weight is not finite; the last checkpoint is
                from before it.
            MemoryExhausted: If the device is out of memory.
            OutputError: If another process trains in this folder.
            WeightsError: If the checkpoint is of another architecture.
        """
        hint = step_memory_hint(self.settings, self.micro, self.micro * self.accumulation)
        with alone_in(self.folder, wanted=self.accelerator.is_main_process), oom_guard(hint):
            return self._run()

    def _run(self) -> int:
        settings = self.settings
        named = list(self.task.trained_parameters())
        self.task.objective.to(self.device)
        if channels_last(settings, self.device):
            lay_out(self.task.objective)
        own = self.task if isinstance(self.task, OwnRecipe) else None
        parameters = [p for _, p in named]
        optimizer = own.build_optimizer() if own else build_optimizer(settings, parameters)
        objective, prepared = self.accelerator.prepare(self.task.objective, optimizer)
        if settings.ema_decay is not None:
            self.average = MovingAverage(named, settings.ema_decay)
        first = self._restore(named, prepared)
        main = self.accelerator.is_main_process
        board = self.folder / "tensorboard" if settings.tensorboard else None
        log = RunLog(self.folder / "log.jsonl", tensorboard=board, active=main)
        bar = ProgressBar(self._label, settings.steps, enabled=main and not self._quiet)
        with log, bar, self._signals():
            log.rewind(first)
            log.event(
                "resume" if first else "start",
                first,
                {
                    "processes": self.world,
                    "micro_batch": self.micro,
                    "accumulation": self.accumulation,
                    "device": str(self.device),
                    "precision": self.precision,
                    "threads": torch.get_num_threads(),
                },
            )
            bar.advance_to(first)
            clock, counted = time.perf_counter(), first
            for k in range(first, settings.steps):
                terms, norm = self._step(k, objective, prepared, named)
                done = k + 1
                if self.average is not None:
                    self.average.update(done)
                if done % settings.log_every == 0 or done == settings.steps:
                    now = time.perf_counter()
                    speed = (done - counted) * settings.batch_size / max(now - clock, 1e-9)
                    clock, counted = now, done
                    log.event(
                        "train",
                        done,
                        {
                            **terms,
                            "grad_norm": norm,
                            "learning_rate": self._learning_rate(k),
                            "samples_per_second": round(speed, 3),
                            "peak_memory_mb": round(peak_memory_mb(self.device), 1),
                        },
                    )
                bar.advance_to(
                    done, {n.removeprefix(LOSS): v for n, v in terms.items() if n.startswith(LOSS)}
                )
                if _due(done, settings.validate_every, settings.steps):
                    with self._averaged():
                        values = self.task.validate(self.device)
                    if values:
                        log.event("validate", done, values)
                if main and _due(done, settings.sample_every, settings.steps):
                    with self._averaged(), oom_guard(SAMPLE_MEMORY_HINT):
                        log.event("sample", done, self.task.sample(done, self.device))
                stopping = self._should_stop()
                if done % settings.checkpoint_every == 0 or done == settings.steps or stopping:
                    self._save(done, named, prepared)
                if stopping and done < settings.steps:
                    log.event("interrupted", done)
                    raise Interrupted(
                        f"stopped after step {done} of {settings.steps}; a checkpoint is written",
                        hint="the same command continues from there",
                    )
            log.event("complete", settings.steps)
        return settings.steps

    def _step(
        self,
        k: int,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        named: Sequence[tuple[str, nn.Parameter]],
    ) -> tuple[dict[str, float], float]:
        """One optimizer update at iteration `k` (from 0); mean terms and the gradient norm."""
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate(k) * group.get("lr_scale", 1.0)
        sums: dict[str, Tensor] = {}
        rank = self.accelerator.process_index
        for j in range(self.accumulation):
            start = (j * self.world + rank) * self.micro
            batch = self.task.batch(k, range(start, start + self.micro), self.device)
            last = j == self.accumulation - 1
            with nullcontext() if last else self.accelerator.no_sync(objective):
                terms: dict[str, Tensor] = objective(k, batch)
                losses = [value for name, value in terms.items() if name.startswith(LOSS)]
                self.accelerator.backward(torch.stack(losses).sum() / self.accumulation)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach()
        means = self._reduce(sums)
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise NumericsError(
                f"{' and '.join(bad)} became {means[bad[0]]} at step {k + 1}", hint=_NOT_FINITE
            )
        parameters, limit = [p for _, p in named], self.settings.max_gradient_norm
        if self.settings.max_gradient_value is not None:
            self.accelerator.clip_grad_value_(parameters, self.settings.max_gradient_value)
        norm = float(
            self.accelerator.clip_grad_norm_(parameters, limit if limit is not None else math.inf)
        )
        # The scaler of fp16 steps over gradients that overflow, and lowers its scale.
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NumericsError(
                f"the norm of the gradient became {norm} at step {k + 1}", hint=_NOT_FINITE
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total = sum(value for name, value in means.items() if name.startswith(LOSS))
        return {f"{LOSS}total": total, **means}, norm

    def _learning_rate(self, k: int) -> float:
        if isinstance(self.task, OwnRecipe):
            return self.task.learning_rate(k)
        return learning_rate(self.settings, k)

    def _reduce(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        names = list(sums)
        values = torch.stack([sums[n].float() for n in names]) / self.accumulation
        if self.world > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        return dict(zip(names, values.tolist(), strict=True))

    def _restore(
        self, named: Sequence[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
    ) -> int:
        state, damaged = load_latest(self.folder / "checkpoints")
        if self.accelerator.is_main_process:
            for sentence in damaged:
                print(f"warning: {sentence}; using the one before it", file=sys.stderr)
        if state is None:
            return 0
        kept = {**dict(named), **buffers(self.task.objective)}
        if problems := misfits(kept, state.weights):
            raise WeightsError(
                f"the checkpoints in '{self.folder}' are of another architecture: {problems}",
                hint="give --out a new folder, or bring back the checkpoints of this run",
            )
        with torch.no_grad():
            for name, tensor in kept.items():
                tensor.copy_(state.weights[name])
        optimizer.load_state_dict(dict(state.optimizer))
        follow_layout(optimizer)
        if self.average is not None and state.average is not None:
            self.average.load(state.average)
        if state.scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(state.scaler))
        return state.step

    def _save(
        self,
        step: int,
        named: Sequence[tuple[str, nn.Parameter]],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        for name, parameter in named:  # an update may overflow although its gradient did not
            if not bool(torch.isfinite(parameter).all()):
                raise NumericsError(f"'{name}' is not finite after step {step}", hint=_NOT_FINITE)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = TrainingState(
                step=step,
                weights={**dict(named), **buffers(self.task.objective)},
                optimizer=optimizer.state_dict(),
                average=self.average.average if self.average is not None else None,
                scaler=scaler.state_dict() if scaler is not None else None,
            )
            save_checkpoint(
                self.folder / "checkpoints",
                state,
                settings_hash=self._hash,
                keep=self.settings.keep_checkpoints,
            )
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def _should_stop(self) -> bool:
        if self.world == 1:
            return self._stop
        flag = torch.tensor(float(self._stop), device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item() > 0)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a stop after the current step; a second one is immediate."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        watched = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, stop) for number in watched}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def check_training(settings: TrainSettings, *, device: torch.device, world: int) -> None:
    """Refuse what would fail only after everything is loaded; free of cost.

    Raises:
        ConfigError: If the batch does not divide, the precision needs a GPU, or the optimizer's
            package is missing.
    """
    split_batch(settings, world)
    if settings.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"train.precision=fp16 needs a GPU, but the device is '{device.type}'",
            hint="--set train.precision=bf16 or fp32",
        )
    if settings.optimizer == "adamw8bit":
        adamw8bit()


def channels_last(settings: TrainSettings, device: torch.device) -> bool:
    """Whether convolution weights are kept with the channels innermost."""
    if settings.channels_last is None:
        return device.type == "cpu" or chosen_precision(settings, device) != "fp32"
    return settings.channels_last


def split_batch(settings: TrainSettings, world: int) -> tuple[int, int]:
    """Micro-batch and accumulation of one process for the effective batch.

    Raises:
        ConfigError: If the effective batch does not divide.
    """
    micro = settings.micro_batch_size or settings.batch_size // world
    if micro < 1 or settings.batch_size % (micro * world):
        raise ConfigError(
            f"train.batch_size {settings.batch_size} (effective) is not a multiple of "
            f"micro_batch_size {max(micro, 1)} x {world} processes",
            hint="change train.micro_batch_size or train.batch_size",
        )
    return micro, settings.batch_size // (micro * world)


def _due(done: int, every: int, last: int) -> bool:
    return every > 0 and (done % every == 0 or done == last)
