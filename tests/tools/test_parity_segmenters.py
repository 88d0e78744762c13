from __future__ import annotations

from pathlib import Path

import pytest

from parity_segmenters import Agreement, check_segmenter


@pytest.mark.parametrize("name", ["sanet", "polyp-pvt", "ctnet"])
def test_outputs_and_losses_agree_with_the_published_code(name: str, shared: Path) -> None:
    found = check_segmenter(shared / "parity" / "segmenters" / name)
    assert {"parameters", "output0.352"} <= {a.name for a in found}
    assert any(a.name.startswith("loss ") for a in found)
    assert [a for a in found if not a.ok] == []


def test_an_error_above_its_tolerance_is_no_agreement() -> None:
    assert not Agreement("output", 2e-4, 1e-4).ok
    assert Agreement("output", 1e-4, 1e-4).ok
