"""The training list: real pairs, synthetic pairs, or both in a stated proportion. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from siamese_diffusion.core.errors import ConfigError
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.segmentation.provenance import Provenance, prefer_folds, read_provenance

Kind = Literal["real", "synthetic"]
MAX_RATIO = 100.0


@dataclass(frozen=True)
class Mixture:
    """What is trained on.

    Attributes:
        real: Real pairs for training, also where none of them is used.
        synthetic: Synthetic pairs, if any were given.
        known: What the synthetic set says of itself; None without a manifest.
        entries: Kind and row of every entry; a pair may occur more than once.
    """

    real: PairFolder
    synthetic: PairFolder | None
    known: Provenance | None
    entries: tuple[tuple[Kind, int], ...]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def composition(self) -> dict[str, int]:
        """Entries of each kind in one epoch."""
        kinds = [kind for kind, _ in self.entries]
        return {"real": kinds.count("real"), "synthetic": kinds.count("synthetic")}


def check_proportion(
    *, synthetic: bool, ratio: float | None, only_synthetic: bool, copy_paste: bool
) -> None:
    """Refuse combinations without a meaning, before any folder is opened.

    Raises:
        ConfigError: Naming the options.
    """
    if ratio is not None and not 0 < ratio <= MAX_RATIO:
        raise ConfigError(
            f"--ratio {ratio:g} is out of range; it is the number of synthetic pairs for each "
            f"real one, above 0 and at most {MAX_RATIO:g}",
            hint="for real pairs alone leave out --synthetic and --ratio",
        )
    if not synthetic and (ratio is not None or only_synthetic):
        option = "--ratio" if ratio is not None else "--only-synthetic"
        raise ConfigError(f"{option} needs a synthetic set", hint="add --synthetic FOLDER")
    if copy_paste and synthetic:
        raise ConfigError(
            "--copy-paste duplicates the real set as a baseline without synthetic pairs",
            hint="leave out --synthetic or --copy-paste",
        )


def mix(
    real: PairFolder,
    synthetic: PairFolder | None = None,
    *,
    ratio: float | None = None,
    only_synthetic: bool = False,
    copy_paste: bool = False,
    seed: int = 0,
) -> Mixture:
    """Make the training list.

    Args:
        real: Real pairs.
        synthetic: Synthetic pairs.
        ratio: Synthetic pairs for each real one; None takes one for each, or with
            `only_synthetic` all there are. Whole folds are used before the next one is begun.
        only_synthetic: Leave the real pairs out.
        copy_paste: Use every real pair twice, so that updates match those of one fold.
        seed: Which pairs of a fold that is not used as a whole.

    Raises:
        ConfigError: For combinations without a meaning, and for more pairs than there are.
    """
    check_proportion(
        synthetic=synthetic is not None,
        ratio=ratio,
        only_synthetic=only_synthetic,
        copy_paste=copy_paste,
    )
    entries: list[tuple[Kind, int]] = []
    if not only_synthetic:
        entries += [("real", row) for row in range(len(real))] * (2 if copy_paste else 1)
    known = None
    if synthetic is not None:
        known = read_provenance(synthetic)
        count = len(synthetic) if ratio is None and only_synthetic else _count(real, ratio)
        if count > len(synthetic):
            raise ConfigError(
                f"a ratio of {1.0 if ratio is None else ratio:g} asks for {count} synthetic pairs "
                f"({len(real)} real ones), but '{synthetic.root}' has {len(synthetic)}",
                hint=f"--ratio {len(synthetic) / len(real):.3g} at most, or sample more folds",
            )
        entries += [("synthetic", row) for row in prefer_folds(synthetic, known, seed)[:count]]
    return Mixture(real, synthetic, known, tuple(entries))


def _count(real: PairFolder, ratio: float | None) -> int:
    return max(1, round((1.0 if ratio is None else ratio) * len(real)))
