"""Every evaluation ever made, in a database: SQLite in the run's folder, or any URL that SQLAlchemy takes."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Inspector,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from metanas.api import Evaluation
from metanas.errors import MetanasError

VERSION = 2

_metadata = MetaData()
_versions = Table("schema_version", _metadata, Column("version", Integer, primary_key=True))
_evaluations = Table(
    "evaluations",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("run", String(255), nullable=False, index=True),
    Column("architecture", JSON, nullable=False),
    Column("space", String(255), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("weights_version", Integer, nullable=False),
    Column("split", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("episode", BigInteger, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("params", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("accuracy", Double),
    Column("loss", Double),
    Column("error", Text),
    Column("form", Text),
)
_ADDED = {"form"}
"""Columns that a database of version 1 lacks."""


class NewerStore(MetanasError):
    """The database was written by a metanas newer than this one."""


class Store:
    """The evaluations of one or several runs, in the order in which they were added. Only a driver writes."""

    def __init__(self, url: str, existing: bool = False) -> None:
        """Opens the database, and makes it and its tables where there are none, unless it is to be an `existing` one.

        Raises MetanasError for a URL or a file that is none, a database of something else, or a newer one.
        """
        try:
            self._engine = _engine(url, existing)
            found = _version(self._engine, existing)
        except (ArgumentError, NoSuchModuleError, DatabaseError, ImportError, FileNotFoundError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise MetanasError(
                f"the store '{shown(url)}' cannot be opened ({reason}); give a URL such as "
                "sqlite:///runs/demo/store.sqlite."
            ) from error
        if found is not None and found <= VERSION:
            self._fields = [f.name for f in fields(Evaluation) if found == VERSION or f.name not in _ADDED]
            return
        self._engine.dispose()
        if found is None:
            raise MetanasError(
                f"the database '{shown(url)}' is no store: it has not the tables of metanas; give the URL of one, such "
                "as sqlite:///runs/demo/store.sqlite."
            )
        raise NewerStore(
            f"the store '{shown(url)}' has version {found} and this metanas reads up to {VERSION}; "
            "install a newer metanas."
        )

    def add(self, run: str, evaluations: Sequence[Evaluation]) -> None:
        """Appends, all or none. A loss of NaN is kept as None, for SQLite knows no NaN."""
        if evaluations:
            with self._engine.begin() as connection:
                connection.execute(insert(_evaluations), [{"run": run, **_row(e)} for e in evaluations])

    def evaluations(self, run: str | None = None, space: str | None = None) -> list[Evaluation]:
        """In the order in which they were added; of one run or space if named."""
        query = select(*(_evaluations.c[name] for name in self._fields)).order_by(_evaluations.c.id)
        if run is not None:
            query = query.where(_evaluations.c.run == run)
        if space is not None:
            query = query.where(_evaluations.c.space == space)
        with self._reading() as connection:
            return [_record(dict(row)) for row in connection.execute(query).mappings()]

    def runs(self) -> list[str]:
        """The names of all runs, in order."""
        with self._reading() as connection:
            return list(connection.scalars(select(_evaluations.c.run).distinct().order_by(_evaluations.c.run)))

    def discard_from(self, run: str, generation: int) -> None:
        """Removes what a run wrote from a generation on: a resumed run measures it again."""
        here = (_evaluations.c.run == run) & (_evaluations.c.generation >= generation)
        with self._engine.begin() as connection:
            connection.execute(delete(_evaluations).where(here))

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Raises MetanasError for what is damaged, or cannot be reached any more."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except (DatabaseError, ValueError, TypeError) as error:
            reason = getattr(error, "orig", error)
            raise MetanasError(
                f"the store '{shown(str(self._engine.url))}' cannot be read ({reason}); put it back from a copy, "
                "or name another."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()


def shown(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).difference_update_query(["password"]).render_as_string(hide_password=True)
    except ArgumentError:
        return url.rpartition("@")[2]  # what stands before it may be one


def _engine(url: str, existing: bool) -> Engine:
    engine = create_engine(url)
    path = engine.url.database
    if engine.dialect.name == "sqlite" and existing and not (path and Path(path).is_file()):
        raise FileNotFoundError(f"there is no file '{path}'")  # SQLite would make it
    if engine.dialect.name == "sqlite" and not existing:

        @event.listens_for(engine, "connect")
        def _write_ahead(connection: Any, _: Any) -> None:
            # A report may read while a search writes.
            connection.execute("PRAGMA journal_mode=WAL")

    return engine


def _version(engine: Engine, existing: bool) -> int | None:
    """The version of the database's tables, made where there are none and brought up to date unless `existing`.

    None where the tables are of something else, and where an `existing` database has none of ours.
    """
    with engine.begin() as connection:
        tables = inspect(connection)
        if not existing and not any(map(tables.has_table, _metadata.tables)):
            _metadata.create_all(connection)
            connection.execute(insert(_versions).values(version=VERSION))
            return VERSION
        if not _ours(tables, _versions):
            return None
        found: int | None = connection.execute(select(func.max(_versions.c.version))).scalar()
        if found is None or found > VERSION:
            return found
        if not _ours(tables, _evaluations):
            return None
        if found < VERSION and not existing:
            for name in _ADDED - _columns(tables, _evaluations):  # none are left where it was interrupted before
                connection.execute(text(f"ALTER TABLE evaluations ADD COLUMN {name} TEXT"))
            connection.execute(update(_versions).values(version=VERSION))
            return VERSION
        return found


def _ours(tables: Inspector, table: Table) -> bool:
    """Whether a database has the table, with our columns of all versions."""
    return {column.name for column in table.columns} - _ADDED <= _columns(tables, table)


def _columns(tables: Inspector, table: Table) -> set[str]:
    """The names that the table's columns have in a database; none where it lacks the table."""
    return {column["name"] for column in tables.get_columns(table.name)} if tables.has_table(table.name) else set()


def _row(evaluation: Evaluation) -> dict[str, Any]:
    row = asdict(evaluation) | {"architecture": list(evaluation.architecture)}
    if evaluation.loss is not None and math.isnan(evaluation.loss):
        row["loss"] = None
    return row


def _record(row: dict[str, Any]) -> Evaluation:
    return Evaluation(**row | {"architecture": tuple(row["architecture"])})
