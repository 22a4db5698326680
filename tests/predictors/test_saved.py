"""Files of predictors, their versions, comparison, promotion and rollback, and drift."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from metanas.errors import MetanasError
from predictors.data import Data
from predictors.drift import drift
from predictors.features import Table
from predictors.graphs import Graph, adjacency
from predictors.models import MODELS
from predictors.saved import Saved, load_predictor, read_predictor, save_predictor
from predictors.versions import IN_USE, Versions, Worse, compare

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


def described(rows: Data) -> Data:
    """The same rows with two numbers a task, drawn by chance."""
    numbers = {task: np.random.default_rng(len(task)).normal(size=2) for task in rows.task_names}
    table = rows.table.beside("task", np.stack([numbers[task] for task in rows.tasks]))
    return Data.of(table, rows.targets, rows.tasks)


def keep(path: Path, what: Saved) -> None:
    save_predictor(path, what, what.make().fit(what.data.table.values, what.data.targets))


class TestFile:
    @pytest.mark.parametrize("model", MODELS)
    def test_a_saved_predictor_gives_the_same_answers_exactly(self, tmp_path: Path, model: str) -> None:
        what, path = saved(data(0, 12, TASKS[:1]), model), tmp_path / IN_USE
        made = what.make().fit(what.data.table.values, what.data.targets)
        save_predictor(path, what, made)
        fresh = data(1, 20, TASKS[:1]).table.values
        loaded = load_predictor(path, "cells")
        np.testing.assert_array_equal(loaded.predict(Table(fresh, what.data.table.layout)), made.predict(fresh))
        again, _ = read_predictor(path)
        assert (again.model, again.seed, again.space, again.data.tasks) == (model, 7, "cells", what.data.tasks)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_tasks_scores_and_context_come_back_as_they_were(self, tmp_path: Path) -> None:
        rng, path = np.random.default_rng(3), tmp_path / IN_USE
        rows = described(data(0))
        context = {"pool": rng.normal(size=(3, 5)), "batch.inputs": rng.random((2, 1, 4, 4)).astype(np.float32)}
        what = Saved("trees", 7, "cells", rows, context)
        keep(path, what)
        found = load_predictor(path, "cells")
        assert found.saved.data.table.layout == rows.table.layout
        assert found.saved.context.keys() == context.keys()
        for name, array in context.items():
            np.testing.assert_array_equal(found.saved.context[name], array)
            assert found.saved.context[name].dtype == array.dtype
        for task, description in rows.descriptions().items():
            np.testing.assert_array_equal(found.saved.data.descriptions()[task], description)
        made = what.make().fit(rows.table.values, rows.targets)
        np.testing.assert_array_equal(found.predict(rows.table), made.predict(rows.table.values))

    def test_a_predictor_of_something_else_is_refused(self, tmp_path: Path) -> None:
        what, path = saved(data(0)), tmp_path / IN_USE
        keep(path, what)
        with pytest.raises(MetanasError, match="knows the space 'cells', expected 'stages'"):
            load_predictor(path, "stages")
        with pytest.raises(MetanasError, match=r"knows features .*'costs': 2.* and is asked about .*'adjacency': 65}"):
            load_predictor(path, "cells").predict(what.data.table.without("costs"))

    def test_a_file_of_the_format_before_is_read(self, tmp_path: Path) -> None:
        what, path = saved(data(0)), tmp_path / IN_USE
        keep(path, what)
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["predictor"])
        save_file(load_file(path), path, metadata={"predictor": json.dumps(about | {"format": 2})})
        found = load_predictor(path, "cells")
        assert found.saved.context == {}
        np.testing.assert_array_equal(found.saved.data.table.values, what.data.table.values)

    def test_seconds_among_the_costs_are_read_as_a_block_of_their_own(self, tmp_path: Path) -> None:
        rng, path = np.random.default_rng(0), tmp_path / IN_USE
        table = Table.of([("architecture", rng.random((9, 4))), ("costs", rng.random((9, 3)))])
        keep(path, saved(Data.of(table, rng.random(9), ["ants"] * 9)))
        found = load_predictor(path, "cells")
        assert found.saved.data.table.layout == (("architecture", 4), ("costs", 2), ("latency", 1))
        np.testing.assert_array_equal(found.saved.data.table.block("latency"), table.block("costs")[:, 2:])

    def test_other_answers_than_were_written_are_told(self, tmp_path: Path) -> None:
        """As after an upgrade of a library that fits otherwise."""
        what, path = saved(data(0)), tmp_path / IN_USE
        keep(path, what)
        load_predictor(path, "cells")  # warns of nothing
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["predictor"])
        about["versions"]["scikit-learn"] = "0.1"
        arrays = load_file(path)
        save_file(arrays, path, metadata={"predictor": json.dumps(about)})
        load_predictor(path, "cells")  # an upgrade that changes no answer
        arrays["answers"][3] += 0.01
        save_file(arrays, path, metadata={"predictor": json.dumps(about)})
        with pytest.warns(UserWarning, match=r"answers otherwise than when it was written, with .*scikit-learn 0\.1"):
            load_predictor(path, "cells")

    def test_a_file_that_is_no_predictor_is_named(self, tmp_path: Path) -> None:
        text, weights, newer = tmp_path / "text", tmp_path / "weights", tmp_path / "newer"
        text.write_text("no predictor")
        save_file({"features": np.ones((2, 2))}, weights)
        keep(newer, saved(data(0)))
        save_file(load_file(newer), newer, metadata={"predictor": json.dumps({"format": 4, "space": "cells"})})
        for path in (text, weights, tmp_path / "missing"):
            with pytest.raises(MetanasError, match=f"{path.name}' is not a saved predictor"):
                load_predictor(path, "cells")
        with pytest.raises(MetanasError, match="has format 4 and this metanas reads format 3"):
            load_predictor(newer, "cells")


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
        with pytest.raises(
            Worse, match="version 2 is worse than version 1 on held-out tasks: Kendall's tau -0"
        ) as told:
            versions.promote(number, seed=0)
        assert told.value.comparison == compare(versions.read(1), versions.read(2), seed=0)
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

    def test_predictors_of_other_blocks_are_asked_about_what_both_can_be_shown(self) -> None:
        """One sees less of the same rows; what a search learned of all tasks together cannot be shown to the other."""
        rows = data(0, 20)
        whole, less = saved(described(rows)), saved(Data.of(rows.table.without("costs"), rows.targets, rows.tasks))
        first, second = compare(less, whole, seed=0), compare(whole, less, seed=0)
        assert (first.held_out_by, len(first.new)) == ("tasks", len(TASKS))
        assert (first.old, first.new) == (second.new, second.old)
        alone = saved(Data.of(rows.table.only("architecture"), rows.targets, rows.tasks))
        same = saved(Data.of(rows.table.only("architecture", "adjacency"), rows.targets, rows.tasks))
        assert compare(alone, whole, seed=0).old == compare(alone, same, seed=0).old
        means = data(1, 12, TASKS[:1])
        search = saved(Data.of(means.table, means.targets, ["all"] * len(means)))
        found = compare(search, whole, seed=0)
        assert found.held_out_by == "architectures"
        assert np.mean(found.new) > 0.5

    def test_one_that_is_told_no_tasks_sees_an_architecture_alike_on_all(self) -> None:
        """A search that saw other blocks than a retrained predictor, neither of which is told tasks."""
        rows = data(0, 20)
        search = Data.of(rows.table.only("architecture", "adjacency"), rows.targets, ["all"] * len(rows))
        other = Data.of(rows.table.only("architecture", "costs"), rows.targets, rows.tasks)
        found = compare(saved(search), saved(other), seed=0)
        assert found.held_out_by == "architectures"
        assert min(np.mean(found.old), np.mean(found.new)) > 0.3

    def test_blocks_that_no_evaluation_has_together_cannot_be_compared(self) -> None:
        first, second = data(0, 12), data(1, 12)
        left = Data.of(first.table.only("architecture", "costs"), first.targets, first.tasks)
        right = Data.of(second.table.only("adjacency", "costs"), second.targets, second.tasks)
        with pytest.raises(MetanasError, match=r"cannot be compared.* no evaluation has them all"):
            compare(saved(left), saved(right), seed=0)

    def test_a_run_without_a_readable_predictor_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MetanasError, match="has no predictor in use"):
            Versions.of(tmp_path)
        (tmp_path / IN_USE).write_text("no predictor")
        with pytest.raises(MetanasError, match="is not a saved predictor"):
            Versions.of(tmp_path)

    def test_what_is_no_version_is_left_alone_and_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        versions = Versions(tmp_path)
        self.put(versions, saved(data(0, 20)))
        shutil.copytree(tmp_path / "predictors" / "1", tmp_path / "predictors" / "1.bak")
        assert versions.numbers == [1]
        for name, read in (("1/card.json", lambda: versions.card(1)), ("history.json", lambda: versions.history)):
            (tmp_path / "predictors" / name).write_text("")
            with pytest.raises(MetanasError, match=rf"{name}' is not JSON .* put it back from a copy"):
                read()

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
        assert found.unseen == found.rows
        assert found.tau is not None
        assert found.tau > 0.6
        assert found.inside is not None
        assert found.inside > 0.75
        assert found.tau > max(found.baselines.values())
        assert set(found.baselines) == {"nearest", "params", "macs"}

    def test_new_tasks_of_the_same_kind_give_no_advice(self) -> None:
        """Every task shifts each architecture's worth its own way, which rows of one task share."""

        def world(seed: int, tasks: Sequence[str]) -> Data:
            rows, rng = data(seed, 20, tasks=tuple(tasks)), np.random.default_rng(100 + seed)
            lean = {task: rng.normal(size=rows.table.values.shape[1]) for task in tasks}
            own = np.array([lean[task] @ row for task, row in zip(rows.tasks, rows.table.values, strict=True)])
            return Data.of(rows.table, rows.targets + own, rows.tasks)

        grown = 0
        for seed in range(8):
            found = drift(saved(world(seed, "abcdefghijkl")), world(50 + seed, "wxyz"))
            assert found.unseen
            grown += any("its errors have grown" in sentence for sentence in found.advice)
        assert grown == 0

    def test_errors_on_known_tasks_are_seen_whatever_else_is_new(self) -> None:
        """One row of a turned world is of a new task; and a search's own predictor knows means alone."""
        turned = data(5, 40, sign=-1.0)
        mixed = Data.of(turned.table, turned.targets, ("wasps", *turned.tasks[1:]))
        means = data(5, 40, tasks=("all",), sign=-1.0)
        for found in (
            drift(saved(data(0, 40)), mixed),
            drift(saved(data(0, 40, tasks=("all",))), means, tasks=("a", "z"), known=("a",)),
        ):
            assert found.new_tasks
            assert any("its errors have grown" in sentence for sentence in found.advice)

    def test_what_it_learned_from_measured_again_gives_no_advice(self) -> None:
        """Of what a forest has seen it is sure, and the noise of another measurement is not within that."""
        old = data(0, 40, tasks=TASKS[:1], noise=0.3)
        again = Data.of(old.table, old.targets + 0.3 * np.random.default_rng(1).normal(size=len(old)), old.tasks)
        found = drift(saved(old), again, tasks=("ants", "wasps"))
        assert (found.unseen, found.tau, found.inside, found.advice) == (0, None, None, ())
        assert found.new_tasks == ("wasps",)

    def test_a_turned_world_gives_the_advice_to_retrain(self) -> None:
        found = drift(saved(data(0, 40)), data(5, 20, tasks=tuple("vwxyz"), sign=-1.0))
        assert found.tau is not None
        assert found.tau < 0
        assert any("its errors have grown" in sentence for sentence in found.advice)
        assert any("distributed otherwise" in sentence for sentence in found.advice)
        assert any("5 tasks are new" in sentence for sentence in found.advice)

    def test_tasks_unlike_all_that_it_knows_give_the_advice(self) -> None:
        def at(rows: Data, where: float) -> Data:
            """The same with three numbers a task about a place."""
            numbers = {task: where + np.random.default_rng(ord(task)).normal(size=3) for task in rows.task_names}
            table = rows.table.beside("task", np.stack([numbers[task] for task in rows.tasks]))
            return Data.of(table, rows.targets, rows.tasks)

        known = saved(at(data(0, 10, tasks=tuple("abcdefghijkl")), 0.0))
        near, far = (drift(known, at(data(5, 10, tasks=tuple("uvwxyz")), where)) for where in (0.0, 9.0))
        assert near.tasks_p > 0.05
        assert near.advice == ()
        assert far.tasks_p < 0.01
        assert any("unlike those that it knows" in sentence for sentence in far.advice)

    def test_new_tasks_alone_are_a_reason_too(self) -> None:
        """Of evaluations on tasks that cannot be described, and of a predictor that learned from means over tasks."""
        found = drift(saved(data(0, 20)), None, tasks=tuple("vwxyz"))
        assert (found.rows, found.unseen, found.tau) == (0, 0, None)
        assert found.advice == (f"5 tasks are new to it, more than the {len(TASKS)} that it knows",)
        together = data(0, 20, tasks=("all",))
        assert drift(saved(together), together, tasks=("a", "b"), known=("a", "b")).advice == ()
        (advice,) = drift(saved(together), together, tasks=("c", "d"), known=("a",)).advice
        assert advice == "2 tasks are new to it, more than the 1 that it knows"
