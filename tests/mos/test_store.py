"""The store: append-only, idempotent, safe under several writers; SQLite, and PostgreSQL if given.

`SIAMDIFF_TEST_POSTGRES` names an empty database, for example
`postgresql+psycopg://user@/name?host=/run/postgresql`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from siamese_diffusion.core.errors import ConfigError, DataError, OutputError
from siamese_diffusion.mos.store import Rating, Store, default_url

STUDY = "0123456789abcdef"
PLAN = "f" * 64


def rating(
    position: int, *, rater: str = "rater-1", is_real: bool = True, confidence: int = 5
) -> Rating:
    return Rating(rater, position, f"{position:016x}", is_real, confidence, 1.5, "2026-01-01")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return default_url(tmp_path / "ratings.sqlite3")
    given = os.environ.get("SIAMDIFF_TEST_POSTGRES")
    if given is None:
        pytest.skip("no PostgreSQL; set SIAMDIFF_TEST_POSTGRES to the URL of an empty database")
    return given


@pytest.fixture
def study_id(url: str) -> str:
    # Rows cannot be deleted, so every test has a study of its own.
    return uuid.uuid4().hex[:16] if url.startswith("postgresql") else STUDY


@pytest.fixture
def store(url: str, study_id: str) -> Iterator[Store]:
    opened = Store.open(url, study=study_id, fingerprint=PLAN)
    yield opened
    opened.close()


def test_ratings_come_back_as_given(store: Store) -> None:
    given = [rating(0), rating(1, is_real=False, confidence=0), rating(0, rater="rater-2")]
    assert [store.add(one) for one in given] == ["recorded"] * 3
    assert store.ratings() == given
    assert (store.count("rater-1"), store.count("rater-2"), store.count("x")) == (2, 1, 0)


def test_the_same_answer_again_is_recognised_and_another_one_does_not_replace_it(
    store: Store,
) -> None:
    assert store.add(rating(0, confidence=7)) == "recorded"
    assert store.add(rating(0, confidence=7)) == "repeated"
    assert store.add(rating(0, confidence=8)) == "kept"
    assert store.add(rating(0, is_real=False, confidence=7)) == "kept"
    assert store.ratings() == [rating(0, confidence=7)]


def test_screens_cannot_be_skipped(store: Store) -> None:
    assert store.add(rating(1)) == "early"
    assert store.ratings() == []


def test_consent_is_kept_for_each_rater(store: Store) -> None:
    assert not store.has_consented("rater-1")
    store.consent("rater-1")
    store.consent("rater-1")
    assert store.has_consented("rater-1")
    assert not store.has_consented("rater-2")


def test_studies_share_a_database_without_seeing_each_other(store: Store, url: str) -> None:
    store.add(rating(0))
    other = Store.open(url, study=uuid.uuid4().hex[:16], fingerprint="e" * 64)
    assert other.ratings() == []
    other.close()


def test_a_changed_plan_is_refused(store: Store, url: str, study_id: str) -> None:
    with pytest.raises(DataError, match=r"with plan ffffffffffff, but study\.json has eeee"):
        Store.open(url, study=study_id, fingerprint="e" * 64)


def test_the_database_itself_refuses_to_change_or_delete_a_row(store: Store, url: str) -> None:
    store.add(rating(0))
    engine = sa.create_engine(url)
    for statement in ("UPDATE mos_ratings SET confidence = 1", "DELETE FROM mos_ratings"):
        with (
            pytest.raises(DBAPIError, match="ratings are append-only"),
            engine.begin() as connection,
        ):
            connection.execute(sa.text(statement))
    engine.dispose()


def test_a_rater_who_withdraws_can_be_removed_as_the_manual_says(tmp_path: Path) -> None:
    file = tmp_path / "ratings.sqlite3"
    store = Store.open(default_url(file), study=STUDY, fingerprint=PLAN)
    store.add(rating(0))
    store.add(rating(0, rater="rater-2"))
    store.close()
    page = (Path(__file__).parents[2] / "docs" / "mos.md").read_text(encoding="utf-8")
    with sqlite3.connect(file) as connection:
        for statement in (
            "DROP TRIGGER mos_ratings_no_delete",
            "DELETE FROM mos_ratings WHERE rater = 'rater-2'",
        ):
            assert f"`{statement}`" in page
            connection.execute(statement)
    connection.close()
    store = Store.open(default_url(file), study=STUDY, fingerprint=PLAN)
    assert store.ratings() == [rating(0)]
    store.close()


def test_impossible_values_are_refused_by_the_database(store: Store) -> None:
    with pytest.raises(DBAPIError, match="mos_confidence"):
        store.add(rating(0, confidence=11))


def test_many_tabs_of_one_rater_and_many_raters_at_once_double_and_lose_nothing(
    store: Store, url: str, study_id: str
) -> None:
    second = Store.open(url, study=study_id, fingerprint=PLAN)  # as another process has
    recorded: list[tuple[str, int]] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def rate(number: int) -> None:
        mine, rater = (store, second)[number % 2], f"rater-{number // 2}"  # two tabs a rater
        try:
            barrier.wait()
            for position in range(8):
                if mine.add(rating(position, rater=rater, confidence=number)) == "recorded":
                    recorded.append((rater, position))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()
    assert errors == []
    expected = [(f"rater-{r}", p) for r in range(4) for p in range(8)]
    assert sorted(recorded) == expected
    assert [(r.rater, r.position) for r in store.ratings()] == expected


def test_sqlite_writes_ahead_synchronises_fully_and_is_the_owners(tmp_path: Path) -> None:
    file = tmp_path / "ratings.sqlite3"
    store = Store.open(default_url(file), study=STUDY, fingerprint=PLAN)
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    assert file.stat().st_mode & 0o077 == 0
    store.close()


def test_ratings_can_be_read_by_sqlite_alone(tmp_path: Path) -> None:
    file = tmp_path / "ratings.sqlite3"
    store = Store.open(default_url(file), study=STUDY, fingerprint=PLAN)
    store.add(rating(0))
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT rater, is_real, confidence FROM mos_ratings").fetchall()
    assert rows == [("rater-1", 1, 5)]
    store.close()


def test_reading_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ratings at '.*absent\.sqlite3'"):
        Store.open(
            default_url(tmp_path / "absent.sqlite3"), study=STUDY, fingerprint=PLAN, create=False
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ratings.sqlite3", "--store is not a database URL"),
        ("mysql://u:secret@h/d", r"--store 'mysql://u:\*\*\*@h/d' is not supported"),
        ("sqlite://", r"--store 'sqlite://' is not supported"),
        ("sqlite:///:memory:", "is not supported"),
        ("postgresql+nodriver://h/d", "--store is not a database URL|is not installed"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_without_showing_a_password(
    url: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        Store.open(url, study=STUDY, fingerprint=PLAN)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(OutputError, match=r"text' cannot be used \(file is not a database\)"):
        Store.open(default_url(tmp_path / "text"), study=STUDY, fingerprint=PLAN)
    with pytest.raises(OutputError, match="nowhere/r' cannot be used"):
        Store.open(default_url(tmp_path / "nowhere" / "r"), study=STUDY, fingerprint=PLAN)
