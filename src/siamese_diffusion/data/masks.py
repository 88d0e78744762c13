"""Tell which stored values of a mask mean foreground, and refuse what is not a binary mask.

Every mask is examined alone (`examine`); a folder's masks must agree on one rule (`combine`). Two
questions are hard and answered from where the grey pixels lie: grey at edges only is an
anti-aliased or lossy binary mask, grey with an interior of its own is a label map. A label map is
refused, because one lesion class per set is all the method knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from siamese_diffusion.core.errors import DataError
from siamese_diffusion.data.images import Levels, Pixels

MaskKind = Literal["0/255", "0/65535", "0/1", "soft"]

PAPER_THRESHOLD: Final = 127.0  # foreground is > 127 of 255 (release, data loader)
# All numbers below are in 8-bit levels, pixels or shares; the tests state what they must tell
# apart.
NEAR: Final = 32  # values this close to an end count as that end
FEW_VALUES: Final = 16  # more distinct values than this come from blurring, not from labels
SPECKS: Final = 8  # this many odd pixels are a slip of the pen
FLAT_PIXELS: Final = 9  # a 3x3 interior in every direction
FLAT_SHARE: Final = 0.10
WAIVING_SOFT: Final = 4  # soft masks for each doubtful one
LABEL_HINT: Final = (
    "keep one class a set: write 255 where the wanted label is and 0 elsewhere, for instance "
    "Image.fromarray(((np.asarray(Image.open(f)) == 1) * 255).astype('uint8')).save(f)"
)


@dataclass(frozen=True)
class MaskRule:
    """Which values are foreground: those above `threshold`.

    `threshold` is 0 for kind "0/1", in stored values; otherwise it is in 8-bit levels and 16-bit
    values are divided by 257 first. `statement` says the same in words, with counts.
    """

    kind: MaskKind
    threshold: float
    statement: str


@dataclass(frozen=True)
class Evidence:
    """What one mask tells: a kind, or "empty" (no evidence), or a `refusal` in words.

    A refusal that is not certain (faint or thin foreground) is waived among soft masks.
    """

    kind: MaskKind | Literal["empty"] | None
    values: tuple[int, ...] = ()
    refusal: str | None = None
    is_certain: bool = True


def examine(levels: Levels, *, lossy: bool = False) -> Evidence:
    """Classify the values of one mask.

    Args:
        levels: Stored grey levels, (H, W), uint8 or uint16.
        lossy: Whether the file format (JPEG) blurs exact values.
    """
    top = _top(levels)
    counts = np.bincount(levels.ravel(), minlength=top + 1)
    values = np.flatnonzero(counts)
    shown = tuple(int(v) for v in values[:8])
    lowest, highest = int(values[0]), int(values[-1])
    if highest == 0:
        return Evidence("empty", shown)
    if highest == 1:
        return Evidence("0/1", shown) if not lossy else Evidence("empty", shown)
    if set(shown) <= {0, top} and len(values) <= 2:
        return Evidence("0/255" if top == 255 else "0/65535", shown)
    scale = top / 255
    if lossy and highest <= SPECKS * 2:
        return Evidence("empty", shown)  # compression noise on black
    if highest < top - NEAR * scale:
        area = _filled_value(levels, values[1:], counts)
        refusal = f"{_listed(values)}; none is near {top}, and they are not 0 and 1 either"
        return Evidence(None, shown, refusal, is_certain=area is not None)
    if len(values) > FEW_VALUES or lossy:
        refused = _many_values_refusal(levels, counts, scale)
        return Evidence(None if refused else "soft", shown, refused)
    if lowest > NEAR * scale:
        return Evidence(None, shown, f"{_listed(values)}; none is near 0")
    return _few_values_evidence(levels, values, counts, scale)


def detect_rule(masks: Iterable[tuple[str, Levels]]) -> MaskRule:
    """The rule of a set of (name, levels) pairs; names ending in .jpg count as lossy.

    Raises:
        DataError: If a mask is refused or the masks need different rules.
    """
    return combine(
        {
            name: examine(levels, lossy=name.lower().endswith((".jpg", ".jpeg")))
            for name, levels in masks
        }
    )


def combine(evidence: Mapping[str, Evidence], *, total: int | None = None) -> MaskRule:
    """One rule for all masks of a folder.

    Args:
        evidence: What each mask tells, by its name.
        total: Number of masks in the folder if `evidence` is a sample of them.

    Raises:
        DataError: If there is no mask, one is refused, or the masks need different rules.
    """
    if not evidence:
        raise DataError("no mask to find a mask rule from", hint="add masks to the folder")
    refusals = refused(evidence)
    if refusals:
        lines = [f"mask '{name}' has {why}" for name, why in list(refusals.items())[:5]]
        more = f"\nand {len(refusals) - 5} more masks like these" if len(refusals) > 5 else ""
        raise DataError("\n".join(lines) + more, hint=LABEL_HINT)
    named: dict[str, str] = {}
    for name, e in evidence.items():
        named.setdefault(e.kind or "soft", name)
    if "0/1" in named and len(named.keys() - {"0/1", "empty"}) > 0:
        other = next(kind for kind in ("0/255", "0/65535", "soft") if kind in named)
        raise DataError(
            f"masks need different rules: '{named['0/1']}' has values 0 and 1, "
            f"'{named[other]}' is of kind {other}",
            hint="save all masks of the folder with 0 for background and 255 for foreground",
        )
    kind: MaskKind = "0/255"
    candidates: tuple[MaskKind, ...] = ("0/65535", "0/1", "soft")
    for candidate in candidates:
        if candidate in named:
            kind = candidate
    empty = sum(e.kind == "empty" for e in evidence.values())
    faint = sum(e.refusal is not None for e in evidence.values())
    return MaskRule(
        kind,
        0.0 if kind == "0/1" else PAPER_THRESHOLD,
        _statement(kind, len(evidence), empty, faint, total or len(evidence)),
    )


def refused(evidence: Mapping[str, Evidence]) -> dict[str, str]:
    """The masks that cannot be used and why; doubts are waived where soft masks prevail."""
    doubts = sum(e.refusal is not None and not e.is_certain for e in evidence.values())
    soft = sum(e.kind == "soft" for e in evidence.values())
    waive = WAIVING_SOFT * doubts <= soft
    return {
        name: e.refusal
        for name, e in evidence.items()
        if e.refusal is not None and (e.is_certain or not waive)
    }


def rule_of(evidence: Evidence) -> MaskRule:
    """The rule by which a single mask would be read, whatever its folder's."""
    kind: MaskKind = "soft"
    if evidence.kind is not None and evidence.kind != "empty":
        kind = evidence.kind
    return MaskRule(kind, 0.0 if kind == "0/1" else PAPER_THRESHOLD, "")


def require_rule(name: str, levels: Levels, rule: MaskRule, *, lossy: bool = False) -> None:
    """Refuse a mask that the folder's rule does not cover (it may have been sampled).

    Raises:
        DataError: Naming the mask and what it holds.
    """
    found = examine(levels, lossy=lossy)
    if found.refusal and not (rule.kind == "soft" and not found.is_certain):
        raise DataError(f"mask '{name}' has {found.refusal}", hint=LABEL_HINT)
    if (
        not found.refusal
        and found.kind != "empty"
        and (found.kind == "0/1") != (rule.kind == "0/1")
    ):
        raise DataError(
            f"mask '{name}' is of kind {found.kind}, but the rule of its folder is {rule.kind}",
            hint="save all masks of the folder with 0 for background and 255 for foreground",
        )


def binarise(levels: Levels, rule: MaskRule) -> Pixels:
    """Apply the rule: uint8 (H, W) with 255 for foreground and 0 for background."""
    threshold = rule.threshold
    if rule.kind != "0/1" and _top(levels) > 255:
        threshold *= 257
    return np.where(levels > threshold, np.uint8(255), np.uint8(0))


def _top(levels: Levels) -> int:
    """Full scale: 16-bit files that hold 8-bit values count as 8 bit."""
    return 65535 if levels.dtype == np.uint16 and int(levels.max(initial=0)) > 255 else 255


def _few_values_evidence(
    levels: Levels, values: npt.NDArray[np.intp], counts: npt.NDArray[np.intp], scale: float
) -> Evidence:
    lowest, highest = int(values[0]), int(values[-1])
    shown = tuple(int(v) for v in values[:8])
    near_top = highest - NEAR * scale
    others = values[(values > lowest) & (values < near_top)]
    if counts[others].sum() <= SPECKS:
        return Evidence("soft", shown)
    filled = _filled_value(levels, others, counts)
    if filled is not None:
        refusal = (
            f"{_listed(values)}; value {filled} fills areas of its own, as in a label map, "
            "not only edges"
        )
        return Evidence(None, shown, refusal)
    is_edge = (_lowest(levels, 2) == lowest) & (_highest(levels, 2) >= near_top)
    grey = np.isin(levels, others)
    astray = np.bincount(levels[grey & ~is_edge], minlength=1)
    if astray.sum() > 0.5 * grey.sum():
        refusal = f"{_listed(values)}; most pixels of value {astray.argmax()} lie off the edges"
        return Evidence(None, shown, refusal, is_certain=False)
    return Evidence("soft", shown)


def _filled_value(
    levels: Levels, values: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]
) -> int | None:
    """The first of some values that fills areas and not only edges."""
    flat = np.bincount(levels[_spread(levels) == 0].ravel(), minlength=len(counts))
    for value in values:
        if flat[value] >= FLAT_PIXELS and flat[value] >= FLAT_SHARE * counts[value]:
            return int(value)
    return None


def _many_values_refusal(levels: Levels, counts: npt.NDArray[np.intp], scale: float) -> str | None:
    low, high = NEAR * scale, (255 - NEAR) * scale
    grey = (levels > low) & (levels < high)
    n_grey, n_high = int(grey.sum()), int((levels >= high).sum())
    spread = _spread(levels)
    exact = grey & (spread == 0)
    if exact.sum() >= max(FLAT_PIXELS, 0.25 * n_grey):
        labels = np.unique(levels[exact])
        return f"{_listed(labels)} filling areas of their own, as in a label map"
    share = n_grey / levels.size
    if share > 0.5 or (share > 0.2 and n_grey > 2 * n_high):
        return (
            f"{int((counts > 0).sum())} different values and {share:.0%} grey pixels: it looks "
            "like a photograph or a map of values, not like a mask"
        )
    flat = grey & (spread <= 8 * scale)
    n_flat = int(flat.sum())
    if n_flat < max(2 * FLAT_PIXELS, FLAT_SHARE * n_grey, 0.02 * (n_grey + n_high)):
        return None
    # A blurred label map keeps its plateaus: a few narrow bands hold most of the flat grey.
    bands = np.bincount((levels[flat] / scale).astype(np.intp), minlength=256)[:256]
    peaks: list[int] = []
    held = 0
    for _ in range(3):
        window = np.convolve(bands, np.ones(17, dtype=np.intp), mode="same")
        peak = int(window.argmax())
        held += int(window[peak])
        if window[peak] >= 0.05 * n_flat:
            peaks.append(round(peak * scale))
        bands[max(0, peak - 8) : peak + 9] = 0
    if held < 0.7 * n_flat:
        return None
    return f"areas of their own near value {', '.join(map(str, sorted(peaks)))}, as in a label map"


def _spread(levels: Levels) -> npt.NDArray[np.int64]:
    """Largest minus smallest value of each 3x3 neighbourhood."""
    return _highest(levels, 1).astype(np.int64) - _lowest(levels, 1).astype(np.int64)


def _highest(levels: Levels, radius: int) -> Levels:
    """Largest value of the square neighbourhood of each pixel, in two passes of shifted maxima."""
    result = levels
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (radius, radius)
        padded = np.pad(result, width, mode="edge")
        length = levels.shape[axis]
        result = result.copy()
        for start in range(2 * radius + 1):
            np.maximum(result, np.take(padded, range(start, start + length), axis), out=result)
    return result


def _lowest(levels: Levels, radius: int) -> Levels:
    """Smallest value of the square neighbourhood of each pixel."""
    return np.invert(_highest(np.invert(levels), radius))


def _listed(values: npt.NDArray[np.intp] | Levels) -> str:
    shown = ", ".join(str(int(v)) for v in values[:8])
    more = f", ... ({len(values)} in all)" if len(values) > 8 else ""
    return f"{'value' if len(values) == 1 else 'values'} {shown}{more}"


def _statement(kind: MaskKind, looked_at: int, empty: int, faint: int, total: int) -> str:
    words = {
        "0/255": "values 0 and 255: foreground is > 127 (the paper's threshold)",
        "0/65535": "values 0 and 65535: foreground is > 127 of 255 (the paper's threshold)",
        "0/1": "values 0 and 1: foreground is 1",
        "soft": "grey at the edges (soft, anti-aliased or lossy): foreground is > 127 of 255 "
        "(the paper's threshold)",
    }[kind]
    seen = f"{looked_at:,} masks" if looked_at == total else f"{looked_at:,} of {total:,} masks"
    details = f", {empty:,} of them empty" if empty else ""
    details += f", {faint:,} of them faint or thin" if faint else ""
    return f"{words}; seen in {seen}{details}"
