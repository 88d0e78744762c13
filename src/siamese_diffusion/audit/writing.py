"""Results of audits as files: JSON for programs, a panel of pictures for eyes.

The JSON says of every folder where it is, which split was used and what was in it, so that
`repeating.py` can make the same audit of another set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from siamese_diffusion.audit.artefacts import ArtefactReport
from siamese_diffusion.audit.crossfit import AlignmentReport
from siamese_diffusion.audit.memorisation import MemorisationReport
from siamese_diffusion.audit.pictures import PanelRow, outlined, write_panel
from siamese_diffusion.core.artifacts import atomic_write_bytes, atomic_write_json, make_folder
from siamese_diffusion.core.environment import snapshot
from siamese_diffusion.core.folders import AuditPaths
from siamese_diffusion.data.images import encode_png, read_image, resize_mask
from siamese_diffusion.data.pairs import PairFolder
from siamese_diffusion.metrics.sets import ImageSet

MOST_SHOWN: Final = 24
_PANEL_SIDE: Final = 192  # pixels at which outlines are drawn


def write_memorisation(
    report: MemorisationReport,
    real: ImageSet,
    synthetic: ImageSet,
    out: Path,
    *,
    holdout: ImageSet | None = None,
    extractor: Mapping[str, object] | None = None,
) -> None:
    """Write `memorisation.json`, and `near_copies.png` if there are near copies.

    Args:
        report: What is written.
        real: Images that the audit searched.
        synthetic: Images that it judged.
        out: Folder of the audit.
        holdout: Its hold-out images, if there were any.
        extractor: `FeatureSpace.record()` of its second space, if there was one.

    Raises:
        OutputError: If `out` cannot be written.
    """
    paths = AuditPaths(out)
    content = {
        "kind": "memorisation",
        **report.as_dict(),
        "real": _source(real),
        "holdout": None if holdout is None else _source(holdout),
        "extractor": None if extractor is None else dict(extractor),
        "synthetic": {"path": str(synthetic.root), "fingerprint": synthetic.fingerprint},
        "stems": [file.stem for file in synthetic.files],
        "environment": snapshot(),
    }
    atomic_write_json(paths.memorisation, content)
    rows = [
        PanelRow(
            (read_image(Path(copy.path)), read_image(Path(copy.nearest_path))),
            f"{copy.stem} (synthetic) | {copy.nearest} (real), {copy.turn}\n"
            f"{copy.space}: distance {copy.distance:.4f}, threshold {copy.threshold:.4f}",
        )
        for copy in report.near_copies[:MOST_SHOWN]
    ]
    if rows:
        write_panel(paths.near_copies, rows)
    else:
        paths.near_copies.unlink(missing_ok=True)  # of an earlier audit in the same folder


def write_artefacts(report: ArtefactReport, real: ImageSet, synthetic: ImageSet, out: Path) -> None:
    """Write `artefacts.json`.

    Raises:
        OutputError: If `out` cannot be written.
    """
    content = {
        "kind": "artefacts",
        **report.as_dict(),
        "real": _source(real),
        "synthetic": {"path": str(synthetic.root), "fingerprint": synthetic.fingerprint},
        "environment": snapshot(),
    }
    atomic_write_json(AuditPaths(out).artefacts, content)


def memorisation_text(report: MemorisationReport) -> str:
    """A summary for people."""
    lines = [report.verdict, f"judged by: {report.calibration}"]
    for space in report.spaces:
        lines.append(
            f"{space.space}: {space.flagged} near copies at a rate of {space.rate:.3g} (expected "
            f"{space.expected:.3g}, chance {space.chance:.3g}); median distance "
            f"{space.median_distance:.4f}, of honest images {space.median_distance_of_holdout:.4f}"
        )
        if space.closer_to_train is not None:
            lines.append(
                f"{space.space}: {space.closer_to_train:.3f} of images are closer to the training "
                "set than to as many hold-out images (0.5 is expected of an honest set)"
            )
        if space.false_alarms is not None:
            lines.append(
                f"{space.space}: halves of the honest images were accused in "
                f"{space.false_alarms:.3f} of cases"
            )
    return "\n".join(lines)


def write_alignment(
    report: AlignmentReport, real: PairFolder, synthetic: PairFolder, out: Path
) -> None:
    """Write `alignment.json`, and the worst pairs with both outlines as `worst_pairs.png`.

    What was found in them is kept as masks in `worst_pairs/`, so that a page can show it.

    Raises:
        OutputError: If `out` cannot be written.
    """
    paths = AuditPaths(out)
    content = {
        "kind": "alignment",
        **report.as_dict(),
        "real": _source(real),
        "synthetic": {"path": str(synthetic.root), "fingerprint": synthetic.fingerprint()},
        "environment": snapshot(),
    }
    atomic_write_json(paths.alignment, content)
    worst = sorted(range(len(report.synthetic)), key=lambda row: report.synthetic[row].dice)
    rows = []
    make_folder(paths.found)
    for row in worst[:MOST_SHOWN]:
        score = report.synthetic[row]
        image, mask = synthetic.image(row, _PANEL_SIDE), synthetic.mask(row, _PANEL_SIDE)
        small = report.found[row].astype(np.uint8) * 255
        atomic_write_bytes(paths.found_in(score.stem), encode_png(small))
        found = resize_mask(small, _PANEL_SIDE)
        text = (
            f"{score.stem}: Dice {score.dice:.3f}, boundary {score.boundary:.3f}\n"
            "cyan: its mask, yellow: what the segmenter found"
        )
        rows.append(PanelRow((image, outlined(image, mask, found)), text))
    write_panel(paths.worst_pairs, rows)


def _source(folder: ImageSet | PairFolder) -> dict[str, object]:
    """Where a folder is, seen from anywhere, and what was in it."""
    content = folder.fingerprint if isinstance(folder, ImageSet) else folder.fingerprint()
    return {"path": str(folder.root.resolve()), "split": folder.split, "fingerprint": content}
