"""A whole study in a real browser: three raters, the server killed in between, every number right.

Needs Chromium (`CHROMIUM`, or the one of the system) and the package playwright; skips without.
`SIAMDIFF_SCREENSHOTS=FOLDER` keeps pictures of the pages.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mos.rating import running, tokens
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.report import analyse_study
from siamese_diffusion.mos.study import Study, open_key

pytestmark = pytest.mark.slow

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if executable is None:
        pytest.skip("no Chromium; install it, or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


def opinion(rater: int, source: str, index: int) -> tuple[bool, int]:
    """What a simulated rater answers on the index-th image of a source: vote and confidence."""
    if source == "real":
        return (index != rater, 9 - rater)  # each misses another one of four
    if source == "secretmethod":
        return (index <= rater, 5)  # 1, 2 and 3 of four taken for real
    return (False, 10)


def picture(page: Any, name: str) -> None:
    folder = os.environ.get("SIAMDIFF_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def answer(page: Any, rater: int, vote: bool, confidence: int) -> None:
    """Rater 0 uses keys, rater 1 the mouse, rater 2 a phone."""
    word = "real" if vote else "synthetic"
    if rater == 0:
        page.keyboard.press(word[0])
        for digit in str(confidence):
            page.keyboard.press(digit)
        assert page.locator("input[name=vote]:checked").get_attribute("value") == word
        chosen = page.locator("input[name=confidence]:checked").get_attribute("value")
        assert chosen == str(confidence)
        page.keyboard.press("Enter")
        return
    press = "click" if rater == 1 else "tap"
    getattr(page.locator(f"label:has(input[value={word}])"), press)()
    getattr(page.locator(f'label:has(input[name=confidence][value="{confidence}"])'), press)()
    getattr(page.get_by_role("button", name="Next image"), press)()


def test_three_raters_finish_a_study_whose_server_is_killed(
    browser: Any, prepared: Prepared, study: Study, tmp_path: Path
) -> None:
    key = open_key(prepared.key, study)
    numbers = {
        item: sorted(i for i in key.items if key.items[i].source == entry.source).index(item)
        for item, entry in key.items.items()
    }
    given = {
        (rater, item): opinion(rater, key.items[item].source, numbers[item])
        for rater in range(3)
        for item in key.items
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    links = [f"http://127.0.0.1:{port}/r/{token}" for token in tokens(prepared)]
    desk = {"viewport": {"width": 1366, "height": 768}}
    phone = {"viewport": {"width": 390, "height": 664}, "has_touch": True, "is_mobile": True}
    pages = [browser.new_context(**options).new_page() for options in (desk, desk, phone)]
    problems: list[str] = []
    outside: list[str] = []
    for page in pages:
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(f"http://127.0.0.1:{port}/")
                else outside.append(request.url)
            ),
        )

    def rate(rater: int, screen: int) -> None:
        page = pages[rater]
        page.wait_for_selector(f"text=Image {screen + 1} of 14")
        assert page.evaluate("document.images[0].naturalWidth") == study.record.size
        answer(page, rater, *given[rater, study.record.raters[rater].order[screen]])
        page.wait_for_url(links[rater])

    with running(prepared.study, port=port):
        for rater, page in enumerate(pages):
            page.goto(links[rater])
            picture(page, f"welcome-{rater}")
            page.get_by_label("I agree to take part").check()
            page.get_by_role("button", name="Start").click()
            page.wait_for_selector("text=Image 1 of 14")
            picture(page, f"question-{rater}")
        pages[0].get_by_role("button", name="Next image").click()  # nothing chosen: not sent
        for screen in range(6):
            for rater in range(3):
                rate(rater, screen)
        pages[1].wait_for_selector("text=Image 7 of 14")
    # The context killed the server with SIGKILL. What is answered now gets no acknowledgement.
    assert problems == []
    answer(pages[0], 0, True, 0)
    pages[0].wait_for_timeout(500)
    problems.clear()
    with running(prepared.study, port=port):
        for rater, page in enumerate(pages):
            page.goto(links[rater])
            page.wait_for_selector("text=Image 7 of 14")
        for screen in range(6, 14):
            for rater in range(3):
                rate(rater, screen)
        for rater, page in enumerate(pages):
            page.wait_for_selector("text=You have rated all 14 images")
            picture(page, f"thanks-{rater}")
        pages[0].go_back()
        pages[0].goto(links[0])
        pages[0].wait_for_selector("text=You have rated all 14 images")
    assert problems == []
    assert outside == []

    out = tmp_path / "mos.json"
    print(analyse_study(prepared.study, out=out, resamples=1000))
    found = json.loads(out.read_text())
    sources = found["sources"]
    # Real: 9 of 12; secretmethod: 1 + 2 + 3 of 12; othermethod: none.
    assert {n: (s["real"], s["n"]) for n, s in sources.items()} == {
        "real": (9, 12),
        "secretmethod": (6, 12),
        "othermethod": (0, 12),
    }
    assert [sources[n]["mos"] for n in ("real", "secretmethod", "othermethod")] == [0.75, 0.5, 0.0]
    assert sources["real"]["confidence"] == pytest.approx((9 + 8 + 7) / 3)
    assert sources["secretmethod"]["confidence"] == 5.0
    assert sources["othermethod"]["confidence"] == 10.0
    # Votes for real per image of secretmethod: 3, 2, 1, 0: the kappa of the document, 1/3.
    assert found["agreement"]["secretmethod"]["kappa"] == pytest.approx(1 / 3)
    # Of real: 2, 2, 2, 3 of three; observed (3/3 + 3 * 1/3) / 4 = 1/2, chance 10/16.
    assert found["agreement"]["real"]["kappa"] == pytest.approx((0.5 - 0.625) / 0.375)
    assert found["agreement"]["othermethod"]["kappa"] is None
    assert (found["consistency"]["n"], found["consistency"]["same"]) == (6, 6)
    right = [found["raters"][f"rater-{n}"]["right"] for n in (1, 2, 3)]
    assert right == [3 + 3 + 4, 3 + 2 + 4, 3 + 1 + 4]
    gap = next(c for c in found["comparisons"] if c["second"] == "othermethod")
    assert gap["first"] == "secretmethod"
    assert gap["difference"] == 0.5
    # Sums per image 3, 2, 1, 0 against 0, 0, 0, 0. As large is a split if one side holds all of 3,
    # 2 and 1: it takes one of the five zeros; 2 * 5 of 70 splits.
    assert gap["test"] == {"p": pytest.approx(10 / 70), "splits": 70, "exact": True}
