"""Every evaluation ever made, in a database: SQLite in the run's folder, or any URL that SQLAlchemy takes."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from types import TracebackType
from typing import Any, Self

from sqlalchemy import (
    JSON, Column, Engine, Float, Integer, MetaData, String, Table, Text, create_engine, delete, event, insert, select,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from metanas.api import Evaluation
from metanas.errors import MetanasError

VERSION = 1

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
    Column("split", String(255), nullable=False),
    Column("task", String(255), nullable=False),
    Column("episode", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("params", Integer, nullable=False),
    Column("macs", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("status", String(16), nullable=False),
    Column("accuracy", Float),
    Column("loss", Float),
    Column("error", Text),
)


class Store:
    """The evaluations of one or several runs, in the order in which they were added. Only a driver writes."""

    def __init__(self, url: str) -> None:
        """Opens or makes the database. Raises MetanasError for a URL or a file that is none, or a newer one."""
        self.url = url
        try:
            self._engine = _engine(url)
            _metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                found = connection.execute(select(_versions.c.version)).scalar()
                if found is None:
                    connection.execute(insert(_versions).values(version=VERSION))
        except (ArgumentError, NoSuchModuleError, DatabaseError, ImportError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise MetanasError(
                f"the store '{url}' cannot be opened ({reason}); give a URL such as sqlite:///runs/demo/store.sqlite."
            ) from error
        if found is not None and found > VERSION:
            raise MetanasError(
                f"the store '{url}' has version {found}, this metanas reads up to {VERSION}; install a newer metanas."
            )

    def add(self, run: str, evaluations: Sequence[Evaluation]) -> None:
        """Appends, all or none."""
        if evaluations:
            with self._engine.begin() as connection:
                connection.execute(insert(_evaluations), [{"run": run, **_row(e)} for e in evaluations])

    def evaluations(self, run: str | None = None, space: str | None = None) -> list[Evaluation]:
        """In the order in which they were added; of one run or space if named."""
        query = select(*(_evaluations.c[field.name] for field in fields(Evaluation))).order_by(_evaluations.c.id)
        if run is not None:
            query = query.where(_evaluations.c.run == run)
        if space is not None:
            query = query.where(_evaluations.c.space == space)
        with self._engine.connect() as connection:
            return [_record(dict(row)) for row in connection.execute(query).mappings()]

    def runs(self) -> list[str]:
        """The names of the runs with evaluations."""
        with self._engine.connect() as connection:
            return list(connection.execute(select(_evaluations.c.run).distinct().order_by(_evaluations.c.run)).scalars())

    def discard_from(self, run: str, generation: int) -> None:
        """Removes what a run wrote from a generation on: a resumed run measures it again."""
        here = (_evaluations.c.run == run) & (_evaluations.c.generation >= generation)
        with self._engine.begin() as connection:
            connection.execute(delete(_evaluations).where(here))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _write_ahead(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")

    return engine


def _row(evaluation: Evaluation) -> dict[str, Any]:
    return asdict(evaluation) | {"architecture": list(evaluation.architecture)}


def _record(row: dict[str, Any]) -> Evaluation:
    return Evaluation(**row | {"architecture": tuple(row["architecture"])})
