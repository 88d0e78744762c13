"""One process's share of a plan: claim, denoise, write, until nothing is missing.

An item is finished when its image is there. Knows no model: anything that meets `MaskToImage` can
be driven.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from PIL import Image

from siamese_diffusion.core.artifacts import require_free_space
from siamese_diffusion.core.errors import Interrupted, OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.core.progress import ProgressBar
from siamese_diffusion.data.images import Pixels
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.diffusion.sampler import PAPER, Sampler
from siamese_diffusion.sampling.claims import Claim, Claims, release_all
from siamese_diffusion.sampling.plan import Mask, Plan, PlanItem, item_image, item_mask
from siamese_diffusion.sampling.provenance import is_finished, write_item
from siamese_diffusion.sampling.settings import GUIDANCE_SCALE, STEPS, SampleSettings

_WRITERS = 2  # threads that compress and write while the next batch is denoised
_BATCHES_IN_FLIGHT = 2  # batches kept in memory until written
_POLL_SECONDS = 0.2  # between looks at items that another process holds
_BYTES_PER_PIXEL = 4  # RGB and mask, as if nothing could be compressed


class MaskToImage(Protocol):
    """What bulk sampling needs of a pipeline."""

    @property
    def size(self) -> int: ...
    @property
    def prompt(self) -> str: ...
    @property
    def model_sha256(self) -> str: ...
    @property
    def run(self) -> Path: ...

    def __call__(
        self,
        masks: Sequence[Mask],
        seeds: Sequence[int],
        *,
        prompts: Sequence[str] | None = None,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        batch_size: int | None = None,
        exact: bool = False,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]: ...


class PairToImage(MaskToImage, Protocol):
    """A pipeline that samples from masks and images; `nature` says what its images are."""

    @property
    def nature(self) -> str: ...

    def __call__(
        self,
        masks: Sequence[Mask],
        seeds: Sequence[int],
        *,
        images: Sequence[Pixels] | None = None,
        prompts: Sequence[str] | None = None,
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        batch_size: int | None = None,
        exact: bool = False,
        sampler: Sampler = PAPER,
    ) -> list[Image.Image]: ...


class Worker:
    """One process's share of a plan.

    Args:
        pipeline: Makes the images.
        masks: Folder the plan was made from.
        plan: What is to be made; already written to its folder.
        paths: That folder.
        claims: Its locks.
        settings: Batch size and sampler settings.
        signals: Asked before each batch whether to stop.
        bar: Told of every finished item.
        images: Images of the masks, where the pipeline is a `PairToImage`.

    Attributes:
        made: Items made by this worker.
        already_there: Items found finished at the start.
        seconds: Time spent, without planning.
    """

    def __init__(
        self,
        pipeline: MaskToImage | PairToImage,
        masks: PairFolder,
        plan: Plan,
        paths: SyntheticPaths,
        claims: Claims,
        settings: SampleSettings,
        signals: Signals,
        bar: ProgressBar,
        images: PairFolder | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._images = images
        self._masks = masks
        self._positions = {pair.stem: index for index, pair in enumerate(masks.pairs)}
        self._plan = plan
        self._paths = paths
        self._claims = claims
        self._settings = settings
        self._signals = signals
        self._bar = bar
        self._finished: set[int] = set()
        self._in_flight: deque[list[Future[int]]] = deque()
        self.made = 0
        self.already_there = 0
        self.seconds = 0.0
        self._started = 0.0

    @property
    def speed(self) -> float:
        """Images a second."""
        return self.made / self.seconds if self.made and self.seconds > 0 else 0.0

    def work(self) -> None:
        """Make every item that nobody else makes; return when all are finished."""
        items = self._plan.items
        self._unfinished(items)
        self.already_there = len(self._finished)
        missing = len(items) - self.already_there
        self._require_space(missing)
        self._started = time.monotonic()
        self._show()
        step = self._settings.batch_size
        # Chunks are fixed by the plan, so that a continued set is batched as an uninterrupted one.
        chunks = [items[start : start + step] for start in range(0, len(items), step)]
        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="png") as writers:
            while chunks:
                left = [chunk for chunk in chunks if not self._make(chunk, writers)]
                self._await_written(0)
                if len(left) == len(chunks):
                    time.sleep(_POLL_SECONDS)  # all that is left is held by other processes
                chunks = left
        self.seconds = time.monotonic() - self._started

    def _require_space(self, missing: int) -> None:
        try:
            require_free_space(self._paths.root, missing * self._plan.size**2 * _BYTES_PER_PIXEL)
        except OutputError as error:
            raise OutputError(
                f"{missing} images: {error.message}",
                hint="free space, ask for fewer folds, or choose another output folder",
            ) from None

    def _make(self, chunk: Sequence[PlanItem], writers: ThreadPoolExecutor) -> bool:
        """Make what is missing of a chunk; False if another process holds a part of it."""
        missing = self._unfinished(chunk)
        if not missing:
            return True
        self._stop_if_asked(writers)
        claims = self._claims.attempt_all([_claim_name(item) for item in missing])
        if claims is None:
            return False
        held = dict(zip([item.index for item in missing], claims, strict=True))
        try:
            # Another process may have finished an item between the look and the claim.
            missing = self._unfinished(missing)
            for index in held.keys() - {item.index for item in missing}:
                held.pop(index).release()
            if missing:
                pairs = self._render(missing if self._settings.exact else chunk)
                self._in_flight.append(
                    [
                        writers.submit(self._write, item, held.pop(item.index), *pairs[item.index])
                        for item in missing
                    ]
                )
        finally:
            release_all(list(held.values()))
        self._await_written(_BATCHES_IN_FLIGHT)
        return True

    def _render(self, items: Sequence[PlanItem]) -> dict[int, tuple[Mask, Image.Image]]:
        masks = [
            item_mask(self._masks, item, position=self._positions[item.stem], size=self._plan.size)
            for item in items
        ]
        call: Callable[..., list[Image.Image]] = self._pipeline
        pictures = {}
        if self._images is not None:
            pictures["images"] = self._pictures(items, self._images)
        images = call(
            masks,
            [item.seed for item in items],
            prompts=[item.prompt for item in items],
            steps=self._settings.steps,
            guidance_scale=self._settings.guidance_scale,
            exact=self._settings.exact,
            sampler=self._settings.chosen_sampler,
            **pictures,
        )
        made = zip(items, masks, images, strict=True)
        return {item.index: (mask, image) for item, mask, image in made}

    def _pictures(self, items: Sequence[PlanItem], images: PairFolder) -> list[Pixels]:
        at = {stem: index for index, stem in enumerate(images.stems)}
        return [
            item_image(images, item, position=at[item.stem], size=self._plan.size) for item in items
        ]

    def _write(self, item: PlanItem, claim: Claim, mask: Mask, image: Image.Image) -> int:
        try:
            write_item(item, self._plan, self._paths, mask=mask, image=image)
        finally:
            claim.release()
        return item.index

    def _await_written(self, most: int) -> None:
        """Wait until at most `most` batches are still being written."""
        while len(self._in_flight) > most:
            for future in self._in_flight.popleft():
                self._finished.add(future.result())
                self.made += 1
            self._show()

    def _unfinished(self, items: Sequence[PlanItem]) -> list[PlanItem]:
        missing = []
        for item in items:
            if item.index in self._finished:
                continue
            if is_finished(item, self._paths):
                self._finished.add(item.index)
            else:
                missing.append(item)
        return missing

    def _stop_if_asked(self, writers: ThreadPoolExecutor) -> None:
        if self._signals.received is None:
            return
        self._await_written(0)
        raise Interrupted(
            f"stopped by {self._signals.received}: {len(self._finished)} of "
            f"{len(self._plan.items)} images are finished in '{self._paths.root}'",
            hint="repeat the same command to continue",
        )

    def _show(self) -> None:
        elapsed = time.monotonic() - self._started
        speed = self.made / elapsed if self.made and elapsed > 0 else 0.0
        self._bar.advance_to(len(self._finished), {"images/s": speed})


class Signals:
    """The first SIGTERM or SIGINT, if one came."""

    received: str | None = None


@contextmanager
def signals_noted() -> Iterator[Signals]:
    """Note a first SIGTERM or SIGINT instead of dying of it; a second one acts as usual."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals  # only the main thread may handle signals
        return
    watched = (signal.SIGTERM, signal.SIGINT)
    former = {number: signal.getsignal(number) for number in watched}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: FrameType | None) -> None:
        signals.received = signal.Signals(number).name
        restore()

    for number in watched:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        restore()


def _claim_name(item: PlanItem) -> str:
    # The index, because a mask's name may be as long as a file name can be.
    return f"{item.index:08d}"
