"""Which model to use and how far to trust it, by what is held out: tasks, or architectures where tasks are few."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from metanas.errors import MetanasError
from predictors.conformal import FOLDS, LEVEL, Scale, group_folds, held_out
from predictors.data import Data
from predictors.models import GRAPH_MODELS, make_model
from predictors.predictor import Predictor
from predictors.ranking import Correlation, Quality, correlation, kendall, nearest, quality

FEWEST = 10
"""Architectures below which held-out folds of two say nothing."""
QUICK = ("trees", "forest", "boosting", "gaussian process", "bayesian ridge")
"""Models that are tried unless others are named: the rest take many times as long."""
MOST_ROWS = 2000
"""Rows up to which the Gaussian process, whose time grows with their cube, is one of them."""


@dataclass(frozen=True)
class HeldOut:
    """A predictor on what was held out from it, beside what costs and the nearest architecture alone would say.

    Everything is taken within tasks; each fold is judged by the model that was best on the others.
    """

    models: dict[str, float]  # mean tau over the folds of every model that was tried; that of the best is flattering
    taus: dict[str, Correlation]  # of "predictor" and the baselines "params", "macs" and "nearest"
    qualities: dict[str, Quality]  # of the same four, mean over folds
    coverage: float  # of its 90% intervals
    verdict: str  # whether it was seen to order better than the best baseline does


@dataclass(frozen=True)
class RetrainReport:
    """A new predictor, judged on held-out "tasks" where there are enough of them, and on held-out "architectures".

    Its model is the best by the first of these.
    """

    rows: int
    architectures: int
    tasks: int
    model: str
    held_out: dict[str, HeldOut]


def retrain(data: Data, costs: np.ndarray, seed: int, models: Sequence[str] = ()) -> tuple[Predictor, RetrainReport]:
    """The best of `models` (the quick ones) by cross-validation, fitted to all rows, and its report on held-out ones.

    `costs` (n, 2) are the parameters and multiply-accumulates that it is held against, whether it sees them or not.

    Raises MetanasError when there are fewer than ten architectures.
    """
    architectures = len(np.unique(data.architectures))
    if architectures < FEWEST:
        raise MetanasError(
            f"the store holds measurements of {architectures} architectures of this space and a predictor needs at "
            f"least {FEWEST}; search for more generations, or name more runs."
        )
    models = models or [name for name in QUICK if name != "gaussian process" or len(data) <= MOST_ROWS]
    judged = {by: _judged(data, costs, groups, seed, models) for by, groups in data.groupings().items()}
    scores = next(iter(judged.values())).models
    best = max(scores, key=lambda name: scores[name])
    own = seen_by(best, data)
    report = RetrainReport(len(data), architectures, len(data.task_names), best, judged)
    return _make(best, own, seed).fit(own.table.values, own.targets), report


def _judged(data: Data, costs: np.ndarray, groups: np.ndarray, seed: int, models: Sequence[str]) -> HeldOut:
    """All models on folds of `groups` (n,)."""
    folds = group_folds(groups, FOLDS, seed)
    answers = {name: _held_out(name, data, folds, seed) for name in models}
    taus = {name: fold_taus(answer[0], data, folds) for name, answer in answers.items()}
    mean, spread = (
        chosen_elsewhere({name: answer[part] for name, answer in answers.items()}, taus, folds) for part in (0, 1)
    )
    rankings = {
        "predictor": mean,
        "params": costs[:, 0],
        "macs": costs[:, 1],
        "nearest": _nearest(data, folds),
    }
    tasks = np.array([data.task_names.index(task) for task in data.tasks])
    correlations = {name: correlation(own, data.targets, groups, seed, tasks) for name, own in rankings.items()}
    return HeldOut(
        models={name: float(own.mean()) for name, own in taus.items()},
        taus=correlations,
        qualities={name: _mean_quality(own, data, folds) for name, own in rankings.items()},
        coverage=_coverage(mean, spread, data.targets, folds),
        verdict=_verdict(correlations),
    )


def _verdict(taus: Mapping[str, Correlation]) -> str:
    own = taus["predictor"]
    name, best = max(((n, c.tau) for n, c in taus.items() if n != "predictor"), key=lambda pair: pair[1])
    if own.low > best:
        return f"orders better than {name} alone"
    return f"was not seen to order better than {name} alone: tau {own.tau:.2f} (from {own.low:.2f}) to {best:.2f}"


def seen_by(model: str, data: Data) -> Data:
    """What a model learns from: all of it, but the adjacency of those that do not read it as a graph."""
    return data if model in GRAPH_MODELS else replace(data, table=data.table.without("adjacency"))


def chosen_elsewhere(
    answers: Mapping[str, np.ndarray], taus: Mapping[str, np.ndarray], folds: Sequence[np.ndarray]
) -> np.ndarray:
    """For every fold the held-out answers (n,) of the model with the best `taus` (F,) on the other folds.

    So no model is judged by what it was chosen by.
    """
    names = list(answers)
    own = np.array([taus[name] for name in names])
    others = own.sum(1, keepdims=True) - own
    found = np.empty_like(answers[names[0]])
    for fold, best in zip(folds, others.argmax(0), strict=True):
        found[fold] = answers[names[best]][fold]
    return found


def fold_taus(predicted: np.ndarray, data: Data, folds: Sequence[np.ndarray]) -> np.ndarray:
    """Kendall's tau (F,) of every fold, the mean over its tasks; 0 where no task has two rows of it."""
    return np.array(
        [
            float(np.mean([kendall(predicted[rows], data.targets[rows]) for rows in _units(data, fold)] or [0.0]))
            for fold in folds
        ]
    )


def _mean_quality(predicted: np.ndarray, data: Data, folds: Sequence[np.ndarray]) -> Quality:
    found = [quality(predicted[rows], data.targets[rows]) for fold in folds for rows in _units(data, fold)]
    return Quality(*np.mean([astuple(one) for one in found] or [(0.0, 0.0, 0.0)], axis=0).tolist())


def _units(data: Data, fold: np.ndarray) -> list[np.ndarray]:
    """The rows of each task in a fold, where there are two at least, which have an order."""
    tasks = np.array([data.tasks[row] for row in fold])
    found = [fold[tasks == task] for task in np.unique(tasks)]
    return [rows for rows in found if len(rows) > 1]


def _make(model: str, data: Data, seed: int) -> Predictor:
    return make_model(model, seed, data.table.layout)


def _held_out(model: str, data: Data, folds: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    own = seen_by(model, data)
    return held_out(lambda: _make(model, own, seed), own.table.values, own.targets, folds)


def _nearest(data: Data, folds: Sequence[np.ndarray]) -> np.ndarray:
    """For every row, the target (n,) of the nearest row outside its fold."""
    values, found = data.table.without("adjacency").values, np.empty(len(data))
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(data)), fold)
        found[fold] = nearest(values[kept], data.targets[kept], values[fold])
    return found


def _coverage(mean: np.ndarray, spread: np.ndarray, targets: np.ndarray, folds: Sequence[np.ndarray]) -> float:
    """The part of held-out measurements (n,) in the intervals that the errors on all other folds make."""
    inside = np.empty(len(targets), dtype=bool)
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(targets)), fold)
        half = Scale.of(mean[kept], spread[kept], targets[kept]).half(spread[fold], LEVEL)
        inside[fold] = np.abs(targets[fold] - mean[fold]) <= half
    return float(inside.mean())
