"""Files of predictors, their versions, comparison, promotion and rollback, and drift."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metanas.errors import MetanasError
from predictors.data import Data
from predictors.drift import drift
from predictors.features import Table
from predictors.graphs import Graph, adjacency
from predictors.models import MODELS
from predictors.saved import Saved, load_predictor, read_predictor, save_predictor
from predictors.versions import IN_USE, Versions, compare

TASKS = ("ants", "bees", "crabs", "drones")


def data(seed: int, count: int = 30, tasks: tuple[str, ...] = TASKS, sign: float = 1.0, noise: float = 0.1) -> Data:
    """Chains of three operations, each measured on every task; costs say little."""
    rng = np.random.default_rng(seed)
    genes = rng.integers(3, size=(count, 3))
    edges = [Graph(4, (0,), tuple((i, i + 1, int(g)) for i, g in enumerate(row))) for row in genes]
    onehot = np.eye(3)[genes].reshape(count, -1)
    table = Table.of(
        [
            ("architecture", onehot),
            ("adjacency", np.stack([adjacency([graph], 3) for graph in edges])),
            ("costs", rng.random((count, 2))),
        ]
    ).take(np.repeat(np.arange(count), len(tasks)))
    worth = sign * np.repeat(genes @ np.array([1.0, 0.5, 0.2]), len(tasks))
    return Data.of(table, worth + noise * rng.normal(size=len(worth)), tasks * count)


def saved(rows: Data, model: str = "trees") -> Saved:
    return Saved(model, 7, "cells", rows)


def keep(path: Path, what: Saved) -> None:
    save_predictor(path, what, what.make().fit(what.data.table.values, what.data.targets))


class TestFile:
    @pytest.mark.parametrize("model", MODELS)
    def test_a_saved_predictor_gives_the_same_answers_exactly(self, tmp_path: Path, model: str) -> None:
        what, path = saved(data(0, 12, TASKS[:1]), model), tmp_path / IN_USE
        made = what.make().fit(what.data.table.values, what.data.targets)
        save_predictor(path, what, made)
        fresh = data(1, 20, TASKS[:1]).table.values
        loaded = load_predictor(path, "cells", fresh.shape[1])
        np.testing.assert_array_equal(loaded.predict(fresh), made.predict(fresh))
        again, _ = read_predictor(path)
        assert (again.model, again.seed, again.space, again.data.tasks) == (model, 7, "cells", what.data.tasks)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize(("space", "more"), [("stages", 0), ("cells", 1)])
    def test_a_predictor_of_something_else_is_refused(self, tmp_path: Path, space: str, more: int) -> None:
        what, path = saved(data(0)), tmp_path / IN_USE
        keep(path, what)
        width = what.data.table.values.shape[1]
        with pytest.raises(MetanasError, match=f"{width} features of the space 'cells', expected {width + more} of"):
            load_predictor(path, space, width + more)

    def test_a_file_that_is_no_predictor_is_named(self, tmp_path: Path) -> None:
        text, weights, newer = tmp_path / "text", tmp_path / "weights", tmp_path / "newer"
        text.write_text("no predictor")
        save_file({"features": np.ones((2, 2))}, weights)
        keep(newer, saved(data(0)))
        save_file(load_file(newer), newer, metadata={"predictor": json.dumps({"format": 3, "space": "cells"})})
        for path in (text, weights, tmp_path / "missing"):
            with pytest.raises(MetanasError, match=f"{path.name}' is not a saved predictor"):
                load_predictor(path, "cells", 5)
        with pytest.raises(MetanasError, match="has format 3 and this metanas reads format 2"):
            load_predictor(newer, "cells", 5)


class TestVersions:
    def put(self, versions: Versions, what: Saved) -> int:
        return versions.add(what, what.make().fit(what.data.table.values, what.data.targets), {"from": ["here"]})

    def test_more_data_of_the_same_kind_is_promoted_and_rolled_back(self, tmp_path: Path) -> None:
        versions = Versions(tmp_path)
        keep(tmp_path / IN_USE, saved(data(0, 12)))
        search = (tmp_path / IN_USE).read_bytes()
        versions.adopt()
        assert versions.history == versions.numbers == [1]
        second = self.put(versions, saved(data(1, 30)))
        assert (tmp_path / IN_USE).read_bytes() == search, "kept, and not in use yet"
        comparison = versions.promote(second, seed=0)
        assert comparison is not None
        assert not comparison.worse
        assert comparison.held_out_by == "tasks"
        assert len(comparison.new) == len(TASKS)
        assert versions.history == [1, 2]
        assert read_predictor(tmp_path / IN_USE)[0].data.table.values.shape[0] == 120
        assert versions.rollback() == 1
        assert (tmp_path / IN_USE).read_bytes() == search
        with pytest.raises(MetanasError, match="no earlier predictor version"):
            versions.rollback()
        card = versions.card(second)
        assert card["tasks"] == list(TASKS)
        assert card["rows"] == 120
        assert card["features"]["costs"] == 2
        assert {"numpy", "torch"} <= card["libraries"].keys()

    def test_a_worse_one_is_refused_and_kept(self, tmp_path: Path) -> None:
        """The new one learned from shuffled targets, which cannot make what the old one learned from look bad."""
        versions = Versions(tmp_path)
        keep(tmp_path / IN_USE, saved(data(0, 30)))
        versions.adopt()
        before = (tmp_path / IN_USE).read_bytes()
        newer = data(1, 15, tuple("pqrs"))
        shuffled = Data.of(newer.table, np.random.default_rng(0).permutation(newer.targets), newer.tasks)
        number = self.put(versions, saved(shuffled))
        with pytest.raises(MetanasError, match="version 2 is worse than version 1 on held-out tasks: Kendall's tau -0"):
            versions.promote(number, seed=0)
        assert (tmp_path / IN_USE).read_bytes() == before
        assert versions.history == [1]
        assert versions.numbers == [1, 2]

    def test_one_task_is_compared_by_architectures_that_neither_has_seen(self) -> None:
        few, more = saved(data(0, 12, TASKS[:1])), saved(data(0, 60, TASKS[:1], noise=0.01))
        found = compare(few, more, seed=0)
        assert found.held_out_by == "architectures"
        assert np.mean(found.new) > np.mean(found.old)
        memory = compare(more, more, seed=0)
        assert memory.old == memory.new
        assert (memory.difference, memory.worse) == (0.0, False)

    def test_an_unknown_version_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MetanasError, match=r"no predictor version 4 \(there are: none\)"):
            Versions(tmp_path).promote(4, seed=0)

    def test_other_spaces_cannot_be_compared(self) -> None:
        rows = data(0, 10)
        with pytest.raises(MetanasError, match="cannot be compared"):
            compare(saved(rows), Saved("trees", 0, "stages", rows), seed=0)


class TestDrift:
    def test_more_of_the_same_gives_no_advice(self) -> None:
        found = drift(saved(data(0, 40)), data(5, 20))
        assert found.advice == ()
        assert found.new_tasks == ()
        assert found.tau > 0.6
        assert found.inside > 0.75

    def test_a_turned_world_gives_the_advice_to_retrain(self) -> None:
        found = drift(saved(data(0, 40)), data(5, 20, tasks=tuple("vwxyz"), sign=-1.0))
        assert found.tau < 0
        assert any("its errors have grown" in sentence for sentence in found.advice)
        assert any("distributed otherwise" in sentence for sentence in found.advice)
        assert any("5 tasks are new" in sentence for sentence in found.advice)
