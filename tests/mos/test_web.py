"""Pages: one image a screen, no way back or elsewhere, nothing revealed, nothing doubled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from mos.rating import answer, hidden, opened, start, tokens
from siamese_diffusion.mos.prepare import Prepared
from siamese_diffusion.mos.store import Store
from siamese_diffusion.mos.study import Study
from siamese_diffusion.mos.web import create_app

TOTAL = 14  # twelve images and two repeats
SECRETS = ("patientreal", "secretmethod", "othermethod", "hiddenexif", "hiddentext", ".png", ".jpg")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(study: Study) -> Iterator[Store]:
    with opened(study) as store:
        yield store


@pytest.fixture
def client(study: Study, store: Store, clock: Clock) -> Iterator[TestClient]:
    with TestClient(create_app(study, store, clock=clock)) as client:
        yield client


@pytest.fixture
def token(prepared: Prepared) -> str:
    return tokens(prepared)[0]


def heading(page: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", page)
    assert found is not None
    return found[1]


def test_a_rater_reads_agrees_rates_all_and_is_thanked(
    client: TestClient, store: Store, study: Study, token: str, clock: Clock
) -> None:
    assert "You will see <b>14 images</b>" in client.get(f"/r/{token}").text
    page = start(client, token)
    for number in range(1, TOTAL + 1):
        assert heading(page) == f"Image {number} of 14"
        image = client.get(f"/r/{token}/image/{number}")
        item = study.record.raters[0].order[number - 1]
        assert image.content == study.image(item).read_bytes()
        assert image.headers["content-type"] == "image/png"
        clock.now += 2.5
        page = answer(client, token, page, "real" if number % 2 else "synthetic", number % 11).text
    assert heading(page) == "Thank you"
    ratings = store.ratings()
    assert [r.item for r in ratings] == study.record.raters[0].order
    assert [r.is_real for r in ratings] == [True, False] * 7
    assert [r.confidence for r in ratings] == [n % 11 for n in range(1, TOTAL + 1)]
    assert {r.seconds for r in ratings} == {2.5}


def test_nothing_is_shown_or_taken_before_consent(
    client: TestClient, store: Store, token: str
) -> None:
    assert client.get(f"/r/{token}/image/1").status_code == 404
    form = {"position": "1", "shown": "1000", "vote": "real", "confidence": "5"}
    assert "I agree to take part" in client.post(f"/r/{token}/rate", data=form).text
    refused = client.post(f"/r/{token}/start", data={})
    assert refused.status_code == 400
    assert "Please tick the box" in refused.text
    assert store.ratings() == []


def test_only_the_image_of_the_own_current_screen_is_served(
    client: TestClient, prepared: Prepared, study: Study, token: str
) -> None:
    page = start(client, token)
    answer(client, token, page, "real", 5)
    assert client.get(f"/r/{token}/image/2").status_code == 200
    item = study.record.raters[0].order[1]
    for other in ("1", "3", "0", "-1", "02", "14", "99", item, "../study.json", "%2e%2e/key.json"):
        assert client.get(f"/r/{token}/image/{other}").status_code == 404
    for other in tokens(prepared)[1:]:
        assert client.get(f"/r/{other}/image/2").status_code == 404


def test_wrong_tokens_and_other_addresses_find_nothing_and_list_nothing(
    client: TestClient, study: Study, prepared: Prepared, token: str
) -> None:
    start(client, token)
    paths = ["/", "/r", "/r/", "/r/wrong", f"/r/{token[:-1]}", f"/r/{token}x", "/docs", "/redoc"]
    paths += [
        "/openapi.json",
        "/static",
        "/static/",
        "/static/page.html.j2",
        "/images",
        "/key.json",
    ]
    paths += ["/study.json", "/static/..%2fstudy.json", f"/r/{study.record.raters[0].token_sha256}"]
    for path in paths:
        reply = client.get(path)
        assert reply.status_code == 404, path
        assert "Nothing here" in reply.text
        assert "rater" not in reply.text
        assert study.record.title not in reply.text.replace("<title>Two methods</title>", "")
    for verb in ("start", "rate"):
        assert client.post(f"/r/wrong/{verb}", data={"consent": "yes"}).status_code == 404
    assert client.get(f"/r/{token}/rate").status_code == 405


def test_pages_reveal_no_source_and_no_item(client: TestClient, study: Study, token: str) -> None:
    page = client.get(f"/r/{token}").text + start(client, token)
    while "Thank you" not in page:
        shown = page.lower()
        assert not [secret for secret in SECRETS if secret in shown]
        assert not [item for item in study.record.items if item in shown]
        assert study.record.study not in shown
        page = answer(client, token, page, "synthetic", 1).text


def test_served_images_of_a_repeat_differ_in_nothing_but_their_place(
    client: TestClient, study: Study, token: str
) -> None:
    order = study.record.raters[0].order
    page, headers = start(client, token), []
    for number, _ in enumerate(order, start=1):
        reply = client.get(f"/r/{token}/image/{number}")
        headers.append({k: v for k, v in reply.headers.items() if k != "content-length"})
        page = answer(client, token, page, "real", 3).text
    assert all(header == headers[0] for header in headers)
    assert not {"etag", "last-modified"} & set(headers[0])


def test_a_double_click_is_one_rating(client: TestClient, store: Store, token: str) -> None:
    page = start(client, token)
    first, second = (answer(client, token, page, "real", 6) for _ in range(2))
    assert heading(first.text) == heading(second.text) == "Image 2 of 14"
    assert "was already saved." in second.text
    assert store.count("rater-1") == 1


def test_the_first_of_two_tabs_counts(client: TestClient, store: Store, token: str) -> None:
    page = start(client, token)
    answer(client, token, page, "real", 6)
    late = answer(client, token, page, "synthetic", 2)
    assert "had been rated already. The first answer counts." in late.text
    assert [(r.is_real, r.confidence) for r in store.ratings()] == [(True, 6)]


def test_a_later_screen_cannot_be_answered_ahead(
    client: TestClient, store: Store, token: str
) -> None:
    start(client, token)
    form = {"position": "4", "shown": "1000", "vote": "real", "confidence": "5"}
    reply = client.post(f"/r/{token}/rate", data=form)
    assert "That image is not reached yet" in reply.text
    assert heading(reply.text) == "Image 1 of 14"
    assert store.ratings() == []


@pytest.mark.parametrize(
    "change",
    [
        {"position": "0"},
        {"position": "15"},
        {"position": "1.0"},
        {"position": "-1"},
        {"position": "٣"},
        {"position": "9" * 5000},
        {"position": ""},
        {"shown": "nan"},
        {"shown": "inf"},
        {"shown": "soon"},
        {"shown": "5000"},
        {"shown": "-1e9"},
    ],
)
def test_forged_forms_are_refused(
    client: TestClient, store: Store, token: str, change: dict[str, str]
) -> None:
    start(client, token)
    form = {"position": "1", "shown": "1000", "vote": "real", "confidence": "5", **change}
    reply = client.post(f"/r/{token}/rate", data=form)
    assert reply.status_code in (400, 413)
    assert store.ratings() == []


@pytest.mark.parametrize(
    "change",
    [
        {"vote": ""},
        {"vote": "REAL"},
        {"confidence": ""},
        {"confidence": "11"},
        {"confidence": "5.5"},
    ],
)
def test_incomplete_answers_are_asked_for_again_and_keep_what_was_chosen(
    client: TestClient, store: Store, token: str, change: dict[str, str]
) -> None:
    start(client, token)
    form = {"position": "1", "shown": "990", "vote": "real", "confidence": "5", **change}
    reply = client.post(f"/r/{token}/rate", data=form)
    assert reply.status_code == 400
    assert 'role="alert"' in reply.text
    assert hidden(reply.text, "shown") == "990.000"  # the time goes on
    kept = 'value="5" required checked' if "vote" in change else 'value="real" required checked'
    assert kept in reply.text
    assert store.ratings() == []


def test_fields_that_are_files_and_large_bodies_are_refused(client: TestClient, token: str) -> None:
    start(client, token)
    reply = client.post(f"/r/{token}/rate", files={"position": ("a.txt", b"1")})
    assert reply.status_code == 400
    assert "nothing was saved" in reply.text
    assert client.post(f"/r/{token}/rate", content=b"a=" + b"x" * 10_000).status_code == 413
    chunks = client.post(f"/r/{token}/rate", content=iter([b"a=b"]))
    assert chunks.status_code == 413  # of unknown length


def test_every_response_forbids_what_is_not_from_here(client: TestClient, token: str) -> None:
    page = start(client, token)
    for path in (f"/r/{token}", f"/r/{token}/image/1", "/static/rate.css", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy and "http" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page)
    assert addresses
    assert all(a.startswith("/") and not a.startswith("//") for a in addresses)
    for name in ("rate.css", "rate.js"):
        content = client.get(f"/static/{name}").text
        assert "http" not in content and "url(" not in content and "@import" not in content
    assert "style=" not in page and "onclick" not in page  # the policy would block them


def test_every_field_has_a_label_and_every_page_a_language_and_a_heading(
    client: TestClient, token: str
) -> None:
    class Labels(HTMLParser):
        inside = 0
        unlabelled: list[dict[str, str | None]]
        ids: list[str | None]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            if tag == "label":
                self.inside += 1
                self.ids.append(values.get("for"))
            if tag == "input" and values.get("type") != "hidden" and not self.inside:
                self.unlabelled.append(values)
            if tag == "img":
                assert values["alt"]

        def handle_endtag(self, tag: str) -> None:
            self.inside -= tag == "label"

    for page in (client.get(f"/r/{token}").text, start(client, token), client.get("/x").text):
        parser = Labels()
        parser.unlabelled, parser.ids = [], []
        parser.feed(page)
        assert all(field.get("id") in parser.ids for field in parser.unlabelled)
        assert '<html lang="en">' in page
        assert page.count("<h1") == 1
    question = client.get(f"/r/{token}").text
    assert question.count("<legend>") == question.count("<fieldset>") == 2


def test_title_is_escaped(study: Study, store: Store, token: str) -> None:
    from dataclasses import replace

    record = study.record.model_copy(update={"title": "<script>x</script>"})
    with TestClient(create_app(replace(study, record=record), store)) as client:
        page = client.get(f"/r/{token}").text
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_raters_have_their_own_orders_and_places(
    client: TestClient, prepared: Prepared, study: Study, store: Store
) -> None:
    first, second, _ = tokens(prepared)
    page = start(client, first)
    for _ in range(3):
        page = answer(client, first, page, "real", 5).text
    assert heading(start(client, second)) == "Image 1 of 14"
    assert heading(client.get(f"/r/{first}").text) == "Image 4 of 14"
    assert study.record.raters[0].order != study.record.raters[1].order
    assert store.count("rater-2") == 0
