"""What a metric is: measurements of a comparison between a real and a synthetic set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from siamese_diffusion.metrics.sets import ImageFile, ImageSet, partners
from siamese_diffusion.metrics.settings import ScoreSettings
from siamese_diffusion.metrics.statistics import Features, Real

if TYPE_CHECKING:
    from siamese_diffusion.metrics.extractors import Extractor, Perceptual

Role = Literal["fidelity", "similarity", "perceptual"]
Pair = tuple[ImageFile, ImageFile]


@dataclass(frozen=True)
class Measurement:
    """One value.

    Attributes:
        name: As it is to be reported.
        value: The value itself.
        higher_is_better: Its direction.
        interval: 95 %, by bootstrap over images; None where it was not asked for or has no sense.
        details: What else was found on the way.
        notes: Why the value should be read with care.
    """

    name: str
    value: float
    higher_is_better: bool
    interval: tuple[float, float] | None = None
    details: Mapping[str, float | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Bench(Protocol):
    """Where features and distances come from: networks with a cache, or numbers in a test."""

    def extractor(self, role: Role) -> Extractor | Perceptual: ...

    def features(self, role: Role, images: ImageSet) -> Features:
        """(n, d) in the order of the set."""
        ...

    def distances(self, pairs: Sequence[Pair]) -> Real:
        """LPIPS of each pair, (p,)."""
        ...


@dataclass(frozen=True)
class Comparison:
    """A real and a synthetic set, and what is known of their images."""

    real: ImageSet
    synthetic: ImageSet
    bench: Bench
    settings: ScoreSettings

    def features(self, role: Role) -> tuple[Features, Features]:
        """Real (n, d) and synthetic (m, d)."""
        return self.bench.features(role, self.real), self.bench.features(role, self.synthetic)

    def distances(self, pairs: Sequence[Pair]) -> Real:
        """LPIPS of each pair, (p,)."""
        return self.bench.distances(pairs)

    def pairs(self) -> tuple[list[int], list[int]]:
        """Rows of the real and the synthetic image of each pair that shares a mask."""
        return partners(self.real, self.synthetic)

    def halves(self, number: int) -> Comparison:
        """Two random halves of the real set against each other."""
        first, second = self.real.halves(self.settings.seed, number)
        return Comparison(first, second, self.bench, self.settings)

    @property
    def encoder(self) -> str:
        """Name of the similarity extractor."""
        return self.bench.extractor("similarity").name

    @property
    def is_clip(self) -> bool:
        """Whether the similarity extractor is a CLIP image encoder."""
        return self.bench.extractor("similarity").is_clip

    @property
    def is_reference_clip(self) -> bool:
        """Whether it is the one that CMMD is defined with, ViT-L/14 at 336 pixels."""
        return self.bench.extractor("similarity").is_reference_clip


class Metric(ABC):
    """One entry of METRICS; it may give several values.

    Attributes:
        role: Which extractor it works on.
        smallest: Images that each set must have; see `least`.
        is_paired: Whether each synthetic image needs a real image of the same mask.
        has_holdout: Whether real images can stand in the place of the synthetic ones.
    """

    role: ClassVar[Role]
    smallest: ClassVar[int]
    is_paired: ClassVar[bool] = False
    has_holdout: ClassVar[bool] = True

    @abstractmethod
    def measure(self, comparison: Comparison, *, intervals: bool) -> list[Measurement]:
        """The values, with intervals and details only where they are asked for."""

    def least(self, settings: ScoreSettings) -> int:
        """Images that each set must have under these settings."""
        return self.smallest

    def floor(self, comparison: Comparison) -> dict[str, float]:
        """The same values for real against real: mean over random splits into halves."""
        splits = comparison.settings.floor_splits
        totals: dict[str, float] = {}
        for number in range(splits):
            for found in self.measure(comparison.halves(number), intervals=False):
                totals[found.name] = totals.get(found.name, 0.0) + found.value / splits
        return totals
