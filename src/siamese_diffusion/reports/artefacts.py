"""What an artefact audit says of a set: how many images are outliers, and the farthest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from siamese_diffusion.reports.examples import Example, image_examples
from siamese_diffusion.reports.freshness import Fingerprints
from siamese_diffusion.reports.reading import (
    Rows,
    float_of,
    int_of,
    list_of,
    mapping_of,
    rows_of,
)

MOST_SHOWN: Final = 12


@dataclass(frozen=True)
class ArtefactSection:
    """An artefact audit; `expected` is how many of as many real images would be listed."""

    name: str
    path: str
    n_real: int
    n_synthetic: int
    listed: int
    expected: str
    limit: str
    rate: str
    is_more: bool
    worst: tuple[Example, ...]
    settings: Rows
    stale: str | None
    remarks: tuple[str, ...]
    kind: Literal["artefacts"] = "artefacts"


def read_artefacts(
    path: Path, content: Mapping[str, object], prints: Fingerprints
) -> ArtefactSection:
    """A section from `artefacts.json`.

    Raises:
        KeyError, TypeError, ValueError: If the content is damaged.
    """
    source = mapping_of(content["synthetic"])
    root = Path(str(source["path"]))
    images = [mapping_of(image) for image in list_of(content["images"])]
    limit, rate = float_of(content["limit"]), float_of(content["rate"])
    listed, n = len(list_of(content["listed"])), int_of(content["n_synthetic"])
    worst = sorted(images, key=lambda image: -float_of(image["score"]))[:MOST_SHOWN]
    rows = [
        (
            str(image["stem"]),
            f"{float_of(image['score']):.1f} deviations ({image['farthest']})",
            float_of(image["score"]) > limit,
        )
        for image in worst
    ]
    examples, remarks = image_examples(root, prints.sets, rows)
    fresh = prints.compare(source)
    return ArtefactSection(
        name=root.name,
        path=str(path),
        n_real=int_of(content["n_real"]),
        n_synthetic=n,
        listed=listed,
        expected=f"{rate * n:.1f}",
        limit=f"{limit:.2f}",
        rate=f"{rate:.1%}",
        is_more=listed > rate * n,
        worst=examples,
        settings=rows_of(mapping_of(content.get("settings"))),
        stale=fresh.stale,
        remarks=(*fresh.remarks, *remarks),
    )
