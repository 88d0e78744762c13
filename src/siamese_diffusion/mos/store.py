"""The append-only store of ratings: SQLite by default, any SQLAlchemy URL otherwise.

What is acknowledged is on disk: SQLite runs with a write-ahead log and full synchronisation,
PostgreSQL with synchronous commit. A rating is one row whose key is (study, rater, position), so
that a second submission finds the first one instead of doubling it. Rows are never changed; the
database itself refuses to.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from siamese_diffusion.core.errors import ConfigError, DataError, OutputError

Outcome = Literal["recorded", "repeated", "kept", "early"]
"""`recorded`: a new row; `repeated`: the same answer was there; `kept`: another one was there and
stands; `early`: an image before this one is not rated yet, so nothing was written."""

_BUSY_SECONDS: Final = 30
_NO_CHANGE: Final = "ratings are append-only"

_METADATA = sa.MetaData()
_STUDIES = sa.Table(
    "mos_studies",
    _METADATA,
    sa.Column("study", sa.String(32), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
)
_CONSENTS = sa.Table(
    "mos_consents",
    _METADATA,
    sa.Column("study", sa.String(32), primary_key=True),
    sa.Column("rater", sa.String(64), primary_key=True),
    sa.Column("given_at", sa.String(32), nullable=False),
)
_RATINGS = sa.Table(
    "mos_ratings",
    _METADATA,
    sa.Column("study", sa.String(32), primary_key=True),
    sa.Column("rater", sa.String(64), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("item", sa.String(32), nullable=False),
    sa.Column("is_real", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("rated_at", sa.String(32), nullable=False),
    sa.CheckConstraint("is_real IN (0, 1)", name="mos_is_real"),
    sa.CheckConstraint("confidence BETWEEN 0 AND 10", name="mos_confidence"),
)


@dataclass(frozen=True)
class Rating:
    """One answer: `position` counts a rater's screens from 0; `seconds` since the page was made."""

    rater: str
    position: int
    item: str
    is_real: bool
    confidence: int
    seconds: float
    rated_at: str = ""


class Store:
    """Ratings of one study in a database that several processes and studies may share."""

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._engine = engine
        self._study = study
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    @classmethod
    def open(cls, url: str, *, study: str, fingerprint: str, create: bool = True) -> Store:
        """Open the store and tie it to a study.

        Args:
            url: SQLAlchemy URL, `sqlite:///FILE` or `postgresql+psycopg://...`.
            study: Identifier of the study.
            fingerprint: Hash of its plan; ratings of a changed plan would be mixed up.
            create: False refuses a SQLite file that does not exist.

        Raises:
            ConfigError: For a URL or a database that cannot be used.
            DataError: If there are no ratings yet (`create=False`), or the store holds this study
                with another plan.
            OutputError: If the database cannot be reached or written.
        """
        parsed = _parse(url)
        file = parsed.database if parsed.get_backend_name() == "sqlite" else None
        if file is not None and not create and not Path(file).is_file():
            raise DataError(
                f"no ratings at '{file}'",
                hint="serve the study first, or name its store: --store URL",
            )
        engine = _engine(parsed)
        try:
            if file is not None and not Path(file).exists():
                # Ratings are personal data: readable by the owner only.
                os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
            _METADATA.create_all(engine)
            store = cls(engine, study)
            store._tie(fingerprint)
        except (DBAPIError, OSError) as error:
            raise OutputError(
                f"the store '{_shown(parsed)}' cannot be used "
                f"({str(getattr(error, 'orig', error)).strip()})",
                hint="check that it is reachable and writable, or name another: --store URL",
            ) from error
        return store

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def consent(self, rater: str) -> None:
        """Record that a rater has agreed to take part; the first time counts."""
        with self._writing() as connection:
            connection.execute(
                self._insert(_CONSENTS)
                .values(study=self._study, rater=rater, given_at=_now())
                .on_conflict_do_nothing()
            )

    def has_consented(self, rater: str) -> bool:
        """Whether a rater has agreed to take part."""
        where = (_CONSENTS.c.study == self._study) & (_CONSENTS.c.rater == rater)
        with self._engine.connect() as connection:
            return connection.execute(sa.select(_CONSENTS.c.rater).where(where)).first() is not None

    def count(self, rater: str) -> int:
        """How many screens a rater has answered; the next one has this position."""
        with self._engine.connect() as connection:
            return self._count(connection, rater)

    def add(self, rating: Rating) -> Outcome:
        """Append one rating; when this returns, it is on disk.

        May be called again with the same rating, by several threads and by several processes.
        """
        values = {
            "study": self._study,
            "rater": rating.rater,
            "position": rating.position,
            "item": rating.item,
            "is_real": int(rating.is_real),
            "confidence": rating.confidence,
            "seconds": rating.seconds,
            "rated_at": rating.rated_at or _now(),
        }
        with self._writing() as connection:
            if rating.position > self._count(connection, rating.rater):
                return "early"
            # The driver's count of rows is not kept for all dialects; a returned row is.
            done = connection.execute(
                self._insert(_RATINGS)
                .values(values)
                .on_conflict_do_nothing()
                .returning(_RATINGS.c.position)
            )
            if done.first() is not None:
                return "recorded"
            row = connection.execute(
                sa.select(_RATINGS.c.is_real, _RATINGS.c.confidence).where(
                    self._of(rating.rater) & (_RATINGS.c.position == rating.position)
                )
            ).one()
        same = (bool(row.is_real), row.confidence) == (rating.is_real, rating.confidence)
        return "repeated" if same else "kept"

    def ratings(self) -> list[Rating]:
        """All ratings of the study, by rater and position."""
        query = (
            sa.select(_RATINGS)
            .where(_RATINGS.c.study == self._study)
            .order_by(_RATINGS.c.rater, _RATINGS.c.position)
        )
        with self._engine.connect() as connection:
            return [
                Rating(
                    rater=row.rater,
                    position=row.position,
                    item=row.item,
                    is_real=bool(row.is_real),
                    confidence=row.confidence,
                    seconds=row.seconds,
                    rated_at=row.rated_at,
                )
                for row in connection.execute(query)
            ]

    def _writing(self) -> AbstractContextManager[sa.Connection]:
        return self._engine.execution_options(mos_write=True).begin()

    def _count(self, connection: sa.Connection, rater: str) -> int:
        query = sa.select(sa.func.count()).select_from(_RATINGS).where(self._of(rater))
        return int(connection.execute(query).scalar_one())

    def _of(self, rater: str) -> sa.ColumnElement[bool]:
        return sa.and_(_RATINGS.c.study == self._study, _RATINGS.c.rater == rater)

    def _tie(self, fingerprint: str) -> None:
        with self._writing() as connection:
            connection.execute(
                self._insert(_STUDIES)
                .values(study=self._study, fingerprint=fingerprint)
                .on_conflict_do_nothing()
            )
            query = sa.select(_STUDIES.c.fingerprint).where(_STUDIES.c.study == self._study)
            known = connection.execute(query).scalar_one()
        if known != fingerprint:
            raise DataError(
                f"the store holds study {self._study} with plan {known[:12]}, but study.json has "
                f"{fingerprint[:12]}: it was changed after the first start",
                hint="put the original study.json back; it is not meant to be edited",
            )


def default_url(file: Path) -> str:
    """URL of the SQLite file of a study."""
    return sa.URL.create("sqlite", database=str(file)).render_as_string()


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(
            "--store is not a database URL",  # not shown: it may hold a password
            hint="write sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
        ) from error
    usable = backend == "postgresql" or (backend == "sqlite" and parsed.database)
    if not usable or parsed.database == ":memory:":
        raise ConfigError(
            f"--store '{_shown(parsed)}' is not supported; a SQLite file or PostgreSQL is",
            hint="write sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
        )
    return parsed


def _engine(url: sa.URL) -> sa.Engine:
    try:
        if url.get_backend_name() == "sqlite":
            engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
            sa.event.listen(engine, "connect", _configure_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
        else:
            engine = sa.create_engine(url, pool_pre_ping=True)
            sa.event.listen(engine, "connect", _configure_postgresql)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(
            f"the driver of --store '{_shown(url)}' is not installed ({error})",
            hint="for PostgreSQL: pip install 'psycopg[binary]'",
        ) from error
    return engine


def _configure_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    # The driver would begin transactions by its own rules; `_begin_sqlite` does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail instead of waiting its turn.
    writes = connection.get_execution_options().get("mos_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_postgresql(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("SET synchronous_commit TO on")
    cursor.close()
    connection.commit()


def _shown(url: sa.URL) -> str:
    return url.render_as_string(hide_password=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _forbid_changes(table: sa.Table) -> None:
    """Triggers by which the database refuses UPDATE and DELETE of its rows."""
    for verb in ("UPDATE", "DELETE"):
        trigger = f"{table.name}_no_{verb.lower()}"
        for dialect, statement in (
            (
                "sqlite",
                f"CREATE TRIGGER {trigger} BEFORE {verb} ON {table.name} "
                f"BEGIN SELECT RAISE(ABORT, '{_NO_CHANGE}'); END",
            ),
            (
                "postgresql",
                f"CREATE OR REPLACE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION '{_NO_CHANGE}'; END $$",
            ),
            (
                "postgresql",
                f"CREATE TRIGGER {trigger} BEFORE {verb} ON {table.name} "
                f"FOR EACH ROW EXECUTE FUNCTION {trigger}()",
            ),
        ):
            ddl = sa.DDL(statement)  # type: ignore[no-untyped-call]
            sa.event.listen(table, "after_create", ddl.execute_if(dialect=dialect))


for _table in (_CONSENTS, _RATINGS):
    _forbid_changes(_table)
