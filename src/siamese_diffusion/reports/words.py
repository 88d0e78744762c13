"""What values and settings of a file mean, for readers who do not know their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from siamese_diffusion.reports.charts import NOT_RECORDED
from siamese_diffusion.reports.reading import count_of, in_words

_LIKENESS: Final = "mean likeness of all synthetic with all real images, as a general network sees"
MEANINGS: Final = {
    "fid": "distance between what a network sees in all synthetic and in all real images; "
    "0 for equal sets",
    "kid": "the same question by another formula that small sets do not mislead; around 0 for sets "
    "of one origin",
    "precision": "share of synthetic images that lie among the real ones: are they realistic?",
    "recall": "share of real images that lie among the synthetic ones: is their variety covered?",
    "density": "how deep synthetic images lie among the real ones; around 1 for sets of one origin",
    "coverage": "share of real images with a synthetic one close by: is their variety covered?",
    "mixing": "share of the other set among the nearest neighbours; near one half if the sets "
    "cannot be told apart",
    "cmmd": "distance of the sets as CLIP, a network that knows words, sees them; 0 for equal sets",
    "clip-i": f"{_LIKENESS}; 1 for the same picture",
    "clip-i-paired": "the same likeness, each image with the real one of its mask",
    "lpips": "how different each image looks from the real one of its mask; 0 for the same picture",
    "lpips-cross": "how different random synthetic and real images look from each other",
    "lpips-diversity": "how different images of one mask look from each other; near 0 would mean "
    "that the generator repeats itself",
}
UNKNOWN: Final = "see the documentation of the command line"
UNTRAINED: Final = "random-"  # how the names of untrained extractors begin


def meaning(name: str) -> str:
    """Of a value; names that another extractor gave go by what they begin with."""
    if name in MEANINGS:
        return MEANINGS[name]
    if name.startswith("cmmd_"):
        return "distance of the sets as the named network sees them; 0 for equal sets"
    if name.startswith("sim_"):
        return MEANINGS["clip-i-paired" if name.endswith("-paired") else "clip-i"]
    return UNKNOWN


def reading(
    value: float, floor: float | None, interval: tuple[float, float] | None, higher: bool
) -> str:
    """A value beside that of real against real, in words."""
    if floor is None:
        return "nothing to compare with"
    low, high = interval or (value, value)
    if low <= floor <= high:
        return "like real against real"
    return "worse than real against real" if (value < floor) == higher else "no worse than real"


def following(synthetic: float, shuffled: float, real: float) -> str:
    """How far the images follow their masks, in words: the way from chance to real pairs."""
    if real <= shuffled:
        return (
            "This cannot be told here: the separate program does no better on real pairs than on "
            "exchanged outlines."
        )
    share = (synthetic - shuffled) / (real - shuffled)
    way = f"{max(0.0, share):.0%} of the way from chance to real pairs"
    if share < 0.2:
        return f"No, or hardly: {way}."
    if share < 0.8:
        return f"In part: {way}."
    return f"Yes: {way}."


# A set names its solver only where it is not the paper's.
_SOLVERS: Final = {"ddim": "DDIM", "dpm-solver++": "DPM-Solver++"}


def solver(settings: Mapping[str, object]) -> str:
    """Name of the solver that made a set, by its own sampling settings."""
    name = str(settings.get("sampler") or "ddim")
    return _SOLVERS.get(name, name)


def sampling(settings: Mapping[str, object]) -> str:
    """Solver and number of steps of a set."""
    noise = ", eta 0" if solver(settings) == "DDIM" else ""
    steps = settings.get("steps")
    unit = "step" if steps == 1 else "steps"
    return f"{solver(settings)}, {in_words(steps)} {unit}{noise}"


def guidance(settings: Mapping[str, object]) -> str:
    """Guidance scale of a set, and where it acted if not everywhere."""
    scale, ends = in_words(settings.get("guidance_scale")), settings.get("guidance_interval")
    if ends is None:
        return scale
    limits = [count_of(end) for end in ends] if isinstance(ends, list) else []
    if len(limits) != 2 or None in limits:
        return f"{scale}; where it acted: {NOT_RECORDED}"
    return f"{scale} at timesteps {limits[0]} to {limits[1]}, none elsewhere"
