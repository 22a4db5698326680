"""Retraining chooses by what is held out, and says honestly how well that is ranked."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from metanas.errors import MetanasError
from predictors.choice import HeldOut, RetrainReport, chosen_elsewhere, fold_taus, seen_by
from predictors.choice import retrain as retrain_by
from predictors.conformal import group_folds
from predictors.data import Data
from predictors.features import Table
from predictors.predictor import Predictor
from predictors.ranking import kendall, nearest

TREES = ("trees",)
CHEAP = ("trees", "bayesian ridge")


def data(seed: int, count: int, repeats: int = 1, tasks: int = 1) -> Data:
    """Architectures of 12 binary genes, of which three matter; costs follow the gene that matters least."""
    rng = np.random.default_rng(seed)
    genes = rng.integers(2, size=(count, 12)).astype(float)
    quality = genes[:, 0] * 2 + genes[:, 1] + 0.2 * genes[:, 2] + 0.05 * rng.normal(size=count)
    costs = np.column_stack([10 + genes[:, 2] + 0.1 * rng.random(count), rng.random(count)])
    rows = np.repeat(np.arange(count), repeats * tasks)
    table = Table.of([("architecture", genes), ("costs", costs)]).take(rows)
    return Data.of(table, quality[rows], [f"task {i % tasks}" for i in range(len(rows))])


def retrain(rows: Data, seed: int, models: Sequence[str] = TREES) -> tuple[Predictor, RetrainReport]:
    return retrain_by(rows, rows.table.block("costs"), seed, models)


def brute_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b by counting pairs (Kendall 1945)."""
    i, j = np.triu_indices(len(a), 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    return float((x * y).sum() / np.sqrt((x != 0).sum() * (y != 0).sum()))


def test_kendall_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=30), rng.integers(5, size=30)
    assert kendall(a, b) == pytest.approx(brute_tau(a, b))
    assert kendall(a, np.ones(30)) == 0.0
    assert kendall(a[:1], b[:1]) == 0.0


def test_the_nearest_is_that_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([1.0, 100.0, 0.01, 1.0])
    known, asked, targets = rng.random((30, 4)) * scales, rng.random((9, 4)) * scales, rng.random(30)
    known[:, 3] = 1.0  # says nothing
    found = nearest(known, targets, asked)
    for row, target in zip(asked, found, strict=True):
        distances = [sum(((a - b) / s) ** 2 for a, b, s in zip(row[:3], own[:3], known.std(0), strict=False))
                     for own in known]  # fmt: skip
        assert target == targets[int(np.argmin(distances))]


def first(report: RetrainReport) -> HeldOut:
    """What the model was chosen by."""
    return next(iter(report.held_out.values()))


def test_a_planted_signal_beats_the_costs_and_the_nearest() -> None:
    rows = data(0, 60)
    predictor, report = retrain(rows, seed=1, models=CHEAP)
    assert (report.rows, report.architectures, report.tasks, [*report.held_out]) == (60, 60, 1, ["architectures"])
    assert first(report).taus["params"].tau == pytest.approx(brute_tau(rows.table.block("costs")[:, 0], rows.targets))
    assert first(report).taus["macs"].tau == pytest.approx(brute_tau(rows.table.block("costs")[:, 1], rows.targets))
    assert first(report).taus["predictor"].low > first(report).taus["params"].high
    assert first(report).taus["predictor"].tau > first(report).taus["nearest"].tau
    for correlation in first(report).taus.values():
        assert correlation.low <= correlation.tau <= correlation.high
    assert set(first(report).qualities) == set(first(report).taus) == {"predictor", "params", "macs", "nearest"}
    assert first(report).verdict == "orders better than nearest alone"
    assert first(report).qualities["predictor"].regret < first(report).qualities["macs"].regret
    assert first(report).qualities["predictor"].recall > first(report).qualities["macs"].recall
    assert report.model == max(first(report).models, key=lambda name: first(report).models[name])
    fresh = data(5, 60)
    assert kendall(predictor.predict(fresh.table.values)[0], fresh.targets) > 0.6, "the one handed back knows all rows"


def test_edges_are_for_those_that_read_graphs() -> None:
    """Others would take them for numbers, and be judged by how badly."""
    rows = data(0, 40)
    edges = np.random.default_rng(1).integers(2, size=(40, 30)).astype(float)
    drawn = Data(rows.table.beside("adjacency", edges), rows.targets, rows.tasks, rows.architectures)
    predictor, report = retrain(drawn, seed=0, models=CHEAP)
    _, plain = retrain(rows, seed=0, models=CHEAP)
    assert report == plain
    assert len(predictor.predict(rows.table.values)[0]) == 40
    assert seen_by("trees", drawn).table.names == ("architecture", "costs")
    assert seen_by("graph network", drawn) is drawn


def test_shuffled_targets_are_not_predicted() -> None:
    rows = data(0, 80)
    shuffled = Data.of(rows.table, np.random.default_rng(0).permutation(rows.targets), rows.tasks)
    _, report = retrain(shuffled, seed=0, models=CHEAP)
    assert re.match(r"was not seen to order better than (params|macs|nearest) alone: tau", first(report).verdict)
    assert abs(first(report).taus["predictor"].tau) < 0.25
    assert first(report).taus["predictor"].low < 0.1


def test_repeated_rows_of_one_architecture_leak_nothing() -> None:
    """With targets of pure noise, a row whose twin is in training would be ranked perfectly."""
    rows = data(0, 60, repeats=2)
    noise = Data.of(rows.table, np.random.default_rng(0).normal(size=60)[rows.architectures], rows.tasks)
    _, report = retrain(noise, seed=0, models=TREES)
    assert report.architectures == 60
    assert first(report).taus["predictor"].low < 0.1
    assert first(report).taus["predictor"].tau < 0.25


def test_tasks_are_held_out_where_there_are_enough() -> None:
    rows = data(0, 20, tasks=4)
    _, report = retrain(rows, seed=0, models=TREES)
    assert ([*report.held_out], report.tasks) == (["tasks", "architectures"], 4)
    assert first(report).taus["predictor"].tau > 0.8, "architectures known from other tasks"
    others = report.held_out["architectures"]
    assert others == retrain(data(0, 20, tasks=4), seed=0, models=TREES)[1].held_out["architectures"]
    assert 0.3 < others.taus["predictor"].tau < first(report).taus["predictor"].tau, "they are new on every task"
    folds = group_folds(rows.groupings()["tasks"], 4, 0)
    taus = fold_taus(rows.targets, rows, folds)
    np.testing.assert_allclose(taus, 1.0)
    assert all(len({rows.tasks[row] for row in fold}) == 1 for fold in folds)
    assert data(0, 20, tasks=2).held_out_by == "architectures"


def test_the_interval_covers_what_more_data_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of the example orders with tau t in the limit; the 95% intervals of small samples hold t mostly."""
    monkeypatch.setattr("predictors.ranking.RESAMPLES", 200)
    many = data(99, 3000)
    limit = brute_tau(many.table.block("costs")[:, 0], many.targets)
    held = 0
    for seed in range(8):
        _, report = retrain(data(seed, 30), seed=seed, models=("bayesian ridge",))
        held += first(report).taus["params"].low <= limit <= first(report).taus["params"].high
    assert held >= 6


def test_the_same_seed_gives_the_same_report() -> None:
    assert retrain(data(0, 20), seed=4, models=TREES)[1] == retrain(data(0, 20), seed=4, models=TREES)[1]


def test_too_few_architectures_are_counted() -> None:
    with pytest.raises(MetanasError, match=r"measurements of 9 architectures .* needs at least 10"):
        retrain(data(0, 9, repeats=5), seed=0)


def by_task(seed: int, tasks: int = 12, count: int = 15) -> Data:
    """What the first gene is worth is told by the task's second number, from -1 to 1; the first number is noise."""
    rng = np.random.default_rng(seed)
    genes = rng.integers(2, size=(count, 6)).astype(float)
    described = np.column_stack([rng.normal(size=tasks), np.linspace(-1, 1, tasks)])
    rows, own = np.repeat(np.arange(count), tasks), np.tile(np.arange(tasks), count)
    worth = described[own, 1] * (genes[rows, 0] + 0.3 * genes[rows, 1]) + 0.01 * rng.normal(size=len(rows))
    table = Table.of([("architecture", genes), ("costs", rng.random((count, 2)))]).take(rows)
    return Data.of(table.beside("task", described[own]), worth, [f"task {number}" for number in own])


def test_what_depends_on_the_task_is_found_by_its_description_alone() -> None:
    rows = by_task(0)
    assert len(np.unique(rows.architectures)) == 15, "the description is no part of the architecture"
    np.testing.assert_array_equal(rows.descriptions()["task 3"], rows.table.block("task")[3])
    blind = Data.of(rows.table.without("task"), rows.targets, rows.tasks)
    assert blind.descriptions() == {}

    def tau(data: Data) -> float:
        """On held-out tasks, the mean over these."""
        return first(retrain_by(data, data.table.block("costs"), 0, TREES)[1]).models["trees"]

    assert tau(rows) > 0.4
    assert tau(blind) < 0.1


def test_telling_tasks_apart_is_no_merit() -> None:
    """Tasks differ in level, which their descriptions tell; within a task nothing orders architectures."""
    rows, rng = by_task(0), np.random.default_rng(1)
    worth = 10 * rows.table.block("task")[:, 1] + rng.normal(size=len(rows))
    _, report = retrain_by(Data.of(rows.table, worth, rows.tasks), rows.table.block("costs"), 0, CHEAP)
    assert abs(first(report).taus["predictor"].tau) < 0.2
    assert first(report).taus["predictor"].low < 0 < first(report).taus["predictor"].high
    few = [row for row in range(len(rows)) if rows.tasks[row] in ("task 0", "task 11")]
    two = Data.of(rows.table.take(few), worth[few], [rows.tasks[row] for row in few])
    _, report = retrain_by(two, two.table.block("costs"), 0, TREES)
    assert [*report.held_out] == ["architectures"]
    assert abs(first(report).taus["predictor"].tau) < 0.4
    assert abs(first(report).models["trees"]) < 0.5


def test_a_fold_is_judged_by_the_model_that_was_best_on_the_others() -> None:
    folds = [np.array([0, 1]), np.array([2, 3]), np.array([4])]
    answers = {"a": np.arange(5.0), "b": -np.arange(5.0)}
    taus = {"a": np.array([1.0, 0.0, 0.0]), "b": np.array([0.0, 0.5, 0.1])}
    # On folds 1 and 2 b leads with .6, on 0 and 2 a with 1 against .1, on 0 and 1 a with 1 against .5.
    np.testing.assert_array_equal(chosen_elsewhere(answers, taus, folds), [0, -1, 2, 3, 4])


def test_coverage_is_that_of_all_folds() -> None:
    """Two of eight tasks are all noise, so their intervals, made by the others, hold little."""
    rows, rng = by_task(0, tasks=8), np.random.default_rng(1)
    loud = np.array([task in ("task 2", "task 5") for task in rows.tasks])
    worth = rows.table.block("architecture")[:, 0] + np.where(loud, 10.0, 0.05) * rng.normal(size=len(rows))
    blind = Data.of(rows.table.without("task"), worth, rows.tasks)
    found = {first(retrain(blind, seed, ("bayesian ridge",))[1]).coverage for seed in range(4)}
    assert min(found) > 0.7
    assert max(found) < 0.98


def test_costs_are_held_against_a_predictor_that_does_not_see_them() -> None:
    rows = data(0, 30)
    unseen = Data.of(rows.table.without("costs"), rows.targets, rows.tasks)
    _, report = retrain_by(unseen, rows.table.block("costs"), 0, TREES)
    assert first(report).taus["params"] == first(retrain(rows, 0)[1]).taus["params"]
