"""The store gives back what it was given, in order, and refuses what it cannot read."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from metanas.api import Evaluation
from metanas.errors import MetanasError
from metanas.store import Store, shown

FINITE = st.floats(allow_nan=False)
EVALUATIONS = st.builds(
    Evaluation,
    architecture=st.lists(st.integers(0, 2**31), max_size=30).map(tuple),
    space=st.sampled_from(["stages", "cells"]),
    generation=st.integers(0, 100),
    weights_version=st.integers(0, 10**6),
    split=st.text("abc é\n'", max_size=20),
    task=st.text('abc 漢字/"', max_size=300),
    episode=st.integers(0, 2**40),
    seed=st.integers(0, 2**62),
    params=st.integers(0, 2**40),
    macs=st.integers(0, 2**50),
    seconds=FINITE,
    status=st.sampled_from(["ok", "failed"]),
    accuracy=st.none() | FINITE,
    loss=st.none() | FINITE,
    error=st.none() | st.text("Traceback\n", max_size=50),
    form=st.none() | st.text("3x48 |/", max_size=200),
)
ONE = Evaluation(
    architecture=(1, 0, 2), space="stages", generation=0, weights_version=3, split="validation", task="digits",
    episode=7, seed=0, params=10, macs=100, seconds=0.5, status="ok", accuracy=0.1 + 0.2, loss=1.0,
)  # fmt: skip


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.sqlite'}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(evaluations=st.lists(EVALUATIONS, min_size=1, max_size=8))
def test_records_come_back_exactly_and_in_order(url: str, evaluations: list[Evaluation]) -> None:
    with Store(url) as store:
        store.discard_from("run", 0)
        store.add("run", evaluations[:1])
        store.add("run", evaluations[1:])
    with Store(url) as store:
        assert store.evaluations(run="run") == evaluations
        for space in ("stages", "cells"):
            assert store.evaluations(space=space) == [e for e in evaluations if e.space == space]


def test_runs_are_named_once_each(url: str) -> None:
    with Store(url) as store:
        assert store.runs() == []
        store.add("second", [ONE, ONE])
        store.add("first", [ONE])
        store.add("second", [ONE])
        assert store.runs() == ["first", "second"]


def test_a_loss_of_nan_comes_back_as_none(url: str) -> None:
    with Store(url) as store:
        store.add("run", [replace(ONE, loss=float("nan"))])
        assert store.evaluations() == [replace(ONE, loss=None)]


def test_discarding_spares_earlier_generations_and_other_runs(url: str) -> None:
    rows = [replace(ONE, generation=generation) for generation in (0, 1, 2, 1)]
    with Store(url) as store:
        store.add("mine", rows)
        store.add("other", rows)
        store.discard_from("mine", 1)
        assert store.evaluations(run="mine") == rows[:1]
        assert store.evaluations(run="other") == rows
        again = [replace(ONE, generation=1, episode=8)]
        store.add("mine", again)
        assert store.evaluations(run="mine") == rows[:1] + again
        assert store.evaluations() == rows[:1] + rows + again


def test_a_row_that_cannot_be_kept_keeps_the_others_out(url: str) -> None:
    broken = replace(ONE, status=None)  # type: ignore[arg-type]
    with Store(url) as store:
        with pytest.raises(IntegrityError):
            store.add("run", [ONE, ONE, broken])
        assert store.evaluations() == []


def test_a_reader_is_not_kept_waiting_by_the_writer(url: str) -> None:
    with Store(url) as writer, Store(url) as reader:
        writer.add("run", [ONE])
        held = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        held.execute("DELETE FROM evaluations")
        assert reader.evaluations() == [ONE]
        held.execute("ROLLBACK")
        held.close()


def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    path = url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO schema_version VALUES (99)")
    database.close()
    with pytest.raises(MetanasError, match="has version 99 and this metanas reads up to 2; install a newer metanas"):
        Store(url)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("schema_version",)]
    database.close()


def test_a_store_of_version_1_is_read_as_it_is_and_brought_up_to_date_by_who_writes(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    with Store(url) as store:
        store.add("run", [ONE, ONE])
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE evaluations DROP COLUMN form")
        database.execute("UPDATE schema_version SET version = 1")
    database.close()
    before = path.read_bytes()
    with Store(url, existing=True) as store:
        assert store.evaluations() == [ONE, ONE]
    assert path.read_bytes() == before
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE evaluations ADD COLUMN form TEXT")  # as an interrupted upgrade leaves it
    database.close()
    formed = replace(ONE, form="3x3 48")
    for _ in range(2):
        with Store(url) as store:
            store.add("run", [formed])
    with Store(url, existing=True) as store:
        assert store.evaluations() == [ONE, ONE, formed, formed]


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are no rows " * 100)
    for url in (f"sqlite:///{text}", f"sqlite:///{tmp_path / 'missing' / 'store.sqlite'}", "nonsense", "duck://x"):
        for existing in (False, True):
            with pytest.raises(MetanasError, match=r"cannot be opened .* give a URL such as"):
                Store(url, existing)
    assert text.read_text() == "these are no rows " * 100


def test_damage_is_named_where_it_is_read(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    with Store(url) as store:
        store.add("run", [replace(ONE, error="x" * 4000)] * 50)
    with sqlite3.connect(written := path.with_name("written.sqlite")) as database:
        sqlite3.connect(path).backup(database)
        database.execute("UPDATE evaluations SET architecture = '[1'")
    database.close()
    with (
        Store(f"sqlite:///{written}", existing=True) as store,
        pytest.raises(MetanasError, match=r"written\.sqlite' cannot be read"),
    ):
        store.evaluations()
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = bytes([255]) * (len(content) - 3 * 4096)
    path.write_bytes(content)
    with Store(url, existing=True) as store:
        for read in (store.runs, store.evaluations):
            with pytest.raises(MetanasError, match=r"store\.sqlite' cannot be read \(.*\); put it back from a copy"):
                read()


def test_who_reads_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match=r"typo\.sqlite' cannot be opened \(there is no file"):
        Store(f"sqlite:///{tmp_path / 'typo.sqlite'}", existing=True)
    assert list(tmp_path.iterdir()) == []
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE songs (name TEXT)")
    database.close()
    before = foreign.read_bytes()
    with pytest.raises(MetanasError, match=r"foreign\.sqlite' is no store: it has not the tables of metanas"):
        Store(f"sqlite:///{foreign}", existing=True)
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("existing", [False, True])
def test_tables_of_our_names_that_are_something_else_are_refused(url: str, existing: bool) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO schema_version VALUES (1)")
        database.execute("CREATE TABLE evaluations (teacher TEXT, mark INTEGER)")
    database.close()
    with pytest.raises(MetanasError, match="is no store"):
        Store(url, existing)


def test_what_was_written_is_read(url: str) -> None:
    with Store(url) as store:
        store.add("run", [ONE])
    with Store(url, existing=True) as store:
        assert store.evaluations() == [ONE]


@pytest.mark.parametrize(
    "url", ["postgresql://me:geheim@host/db", "duck://me:geheim@host/db", "no url, me:geheim@host"]
)
def test_a_password_is_not_told(url: str) -> None:
    assert "geheim" not in shown(url)
    assert "host" in shown(url)
    with pytest.raises(MetanasError, match="host") as told:
        Store(url)
    assert "geheim" not in str(told.value)
