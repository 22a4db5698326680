"""A search that learns from searches of other tasks."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metanas.commands.earlier import earlier_predictors
from metanas.commands.searching import search
from metanas.config import SearchConfig
from metanas.errors import MetanasError
from metanas.found import SearchFolder
from metanas.parsing import parse
from metanas.tables.catalogue import load_table
from tests.searches import CASES, tiny_search


def table_search(table: str, evaluations: int, **changes: Any) -> SearchConfig:
    content = {"name": table, "table": table, "strategy": {"name": "random"}, "batch": 4}
    return parse(SearchConfig, content | {"budget": {"evaluations": evaluations}} | changes, "the test")


@pytest.fixture(scope="module")
def before(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of another task."""
    folder = tmp_path_factory.mktemp("before") / "cifar10"
    search(table_search("cifar10", 40), folder, tables=data)
    return folder


def measured(folder: Path) -> list[tuple[int, ...]]:
    with SearchFolder(folder).store() as store:
        return [row.architecture for row in store.evaluations()]


def test_the_first_that_are_measured_are_what_earlier_searches_think_best(
    data: Path, before: Path, tmp_path: Path
) -> None:
    config = table_search("cifar100", 8, strategy={"name": "guided"}, learn_from=[str(before)])
    search(config, tmp_path / "run", tables=data)
    space = load_table(data, "cifar100").space
    (source,) = earlier_predictors(config, space)

    def worth(architectures: list[tuple[int, ...]]) -> np.ndarray:
        return source.predict(np.stack([space.encode(space.canonical(a)) for a in architectures]))[0]

    rng = np.random.default_rng(0)
    usual = worth([space.sample(rng) for _ in range(500)])
    first = measured(tmp_path / "run")[:4]
    assert worth(first).min() > np.quantile(usual, 0.95)
    search(config.model_copy(update={"learn_from": ()}), tmp_path / "alone", tables=data)
    assert worth(measured(tmp_path / "alone")[:4]).min() < np.quantile(usual, 0.95)


def test_several_are_asked_and_their_stores_stay_as_they_are(data: Path, before: Path, tmp_path: Path) -> None:
    seen = measured(before)
    config = table_search("cifar100", 8, strategy={"name": "guided"}, learn_from=[str(before), str(before)])
    search(config, tmp_path / "run", tables=data)
    assert len(set(measured(tmp_path / "run"))) == 8
    assert measured(before) == seen
    believed = SearchFolder(tmp_path / "run").read_json("result.json")["believed"]
    assert len(believed) == 3, "of both, and of its own measurements"
    assert sum(believed) == pytest.approx(1.0)


def test_searches_that_mislead_lose_their_say_and_it_is_told(data: Path, tmp_path: Path) -> None:
    """Of a task that orders cells alike: asked by one with few measurements of its own, and the opposite of it."""
    before = tmp_path / "before"
    search(table_search("jigsaw", 40), before, tables=data)
    opposite = SearchFolder(tmp_path / "opposite")
    shutil.copytree(before, opposite.path)
    with opposite.store() as store:
        rows = store.evaluations()
        store.discard_from(opposite.id, 0)
        store.add(opposite.id, [replace(row, accuracy=-(row.accuracy or 0.0)) for row in rows])
    own: list[float] = []
    told: list[str] = []
    for path, evaluations in ((before, 8), (opposite.path, 30)):
        out = tmp_path / f"after {path.name}"
        config = table_search("autoencoder", evaluations, strategy={"name": "guided"}, learn_from=[str(path)])
        search(config, out, tables=data, show=lambda event: told.append(event.get("text", "")))
        own.append(SearchFolder(out).read_json("result.json")["believed"][-1])
    assert own[0] < 0.5 < 0.8 < own[1]
    helped, misled = filter(None, told)
    assert helped.endswith("of the say")
    assert misled.endswith("they order this task's networks worse than its own measurements")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": {"name": "regularized"}}, r"strategy: 'regularized' asks no predictors, .*; name 'guided'"),
        ({"learn_from": ["nowhere"]}, "'nowhere' is no run"),
    ],
)
def test_mistakes_are_named(data: Path, before: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    content = {"strategy": {"name": "guided"}, "learn_from": [str(before)]} | changes
    with pytest.raises(MetanasError, match=message):
        search(table_search("cifar100", 8, **content), tmp_path / "run", tables=data)
    assert not (tmp_path / "run").exists()


def test_a_search_over_another_space_or_of_too_little_is_refused(data: Path, before: Path, tmp_path: Path) -> None:
    search(table_search("cifar10", 9), tmp_path / "short", tables=data)
    config = table_search("cifar100", 8, strategy={"name": "guided"}, learn_from=[str(tmp_path / "short")])
    with pytest.raises(MetanasError, match=r"'.*short' holds measurements of 9 networks of the space .*, and 10 are"):
        search(config, tmp_path / "run", tables=data)
    task = tiny_search(data, **CASES["regularized"] | {"strategy": {"name": "guided"}}, learn_from=(str(before),))
    with pytest.raises(MetanasError, match=r"learn_from: the search '.*cifar10' is over another space"):
        search(task, tmp_path / "run")


def test_a_race_over_guided_may_ask_them_too(data: Path, before: Path, tmp_path: Path) -> None:
    strategy = {"name": "asha", "over": {"name": "guided"}, "eta": 2}
    search(table_search("cifar100", 3, strategy=strategy, learn_from=[str(before)]), tmp_path / "run", tables=data)
    assert SearchFolder(tmp_path / "run").finished
