"""Which model to use and how far to trust it, by what is held out: tasks, or architectures where tasks are few."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from metanas.errors import MetanasError
from predictors.conformal import LEVEL, Calibrated, coverage, group_folds, held_out
from predictors.data import FOLDS, Data
from predictors.models import make_model
from predictors.predictor import Predictor
from predictors.ranking import Correlation, Quality, correlation, kendall, quality

FEWEST = 10
"""Architectures below which held-out folds of two say nothing."""
QUICK = ("trees", "forest", "boosting", "gaussian process", "bayesian ridge")
"""Models that are tried unless others are named: the rest take many times as long."""


@dataclass(frozen=True)
class RetrainReport:
    """A predictor on what was held out from it, beside what costs and the nearest architecture alone would say."""

    rows: int
    architectures: int
    tasks: int
    held_out_by: str
    model: str
    models: dict[str, float]  # mean tau over the folds of every model that was tried
    predictor: Correlation
    params: Correlation
    macs: Correlation
    nearest: Correlation
    quality: Quality  # of the predictor, mean over folds
    coverage: float  # of its 90% intervals


def retrain(data: Data, costs: np.ndarray, seed: int, models: Sequence[str] = QUICK) -> tuple[Predictor, RetrainReport]:
    """The best of `models` by cross-validation, fitted to all rows, and its report on held-out ones.

    `costs` (n, 2) are the parameters and multiply-accumulates that it is held against, whether it sees them or not.

    Raises MetanasError when there are fewer than ten architectures.
    """
    architectures = len(np.unique(data.architectures))
    if architectures < FEWEST:
        raise MetanasError(
            f"the store holds measurements of {architectures} architectures of this space and a predictor needs at "
            f"least {FEWEST}; search for more generations, or name more runs."
        )
    folds = group_folds(data.groups(), FOLDS, seed)
    answers = {name: _held_out(name, data, folds, seed) for name in models}
    scores = {name: float(np.mean(fold_taus(answer, data, folds))) for name, answer in answers.items()}
    best = max(scores, key=lambda name: scores[name])
    predicted = answers[best]

    def judge(ranking: np.ndarray) -> Correlation:
        return correlation(ranking, data.targets, data.groups(), seed)

    params, macs = costs.T
    report = RetrainReport(
        rows=len(data),
        architectures=architectures,
        tasks=len(data.task_names),
        held_out_by=data.held_out_by,
        model=best,
        models=scores,
        predictor=judge(predicted),
        params=judge(params),
        macs=judge(macs),
        nearest=judge(_nearest(data, folds)),
        quality=_mean_quality(predicted, data, folds),
        coverage=_coverage(best, data, folds, seed),
    )
    return _make(best, data, seed).fit(data.table.values, data.targets), report


def fold_taus(predicted: np.ndarray, data: Data, folds: Sequence[np.ndarray]) -> np.ndarray:
    """Kendall's tau (F,) of every fold; where tasks are held out, of every fold the mean over its tasks."""

    def tau(fold: np.ndarray) -> float:
        return float(np.mean([kendall(predicted[rows], data.targets[rows]) for rows in _units(data, fold)]))

    return np.array([tau(fold) for fold in folds])


def _mean_quality(predicted: np.ndarray, data: Data, folds: Sequence[np.ndarray]) -> Quality:
    found = [quality(predicted[rows], data.targets[rows]) for fold in folds for rows in _units(data, fold)]
    return Quality(*np.mean([astuple(one) for one in found], axis=0).tolist())


def _units(data: Data, fold: np.ndarray) -> list[np.ndarray]:
    if data.held_out_by == "architectures":
        return [fold]
    tasks = np.array([data.tasks[row] for row in fold])
    return [fold[tasks == task] for task in np.unique(tasks)]


def _make(model: str, data: Data, seed: int) -> Predictor:
    return make_model(model, seed, data.table.layout)


def _held_out(model: str, data: Data, folds: Sequence[np.ndarray], seed: int) -> np.ndarray:
    return held_out(lambda: _make(model, data, seed), data.table.values, data.targets, folds)[0]


def _nearest(data: Data, folds: Sequence[np.ndarray]) -> np.ndarray:
    """For every row, the target (n,) of the nearest row outside its fold, by standardised features."""
    values = data.table.values
    standard = (values - values.mean(0)) / np.maximum(values.std(0), 1e-12)
    found = np.empty(len(data))
    for fold in folds:
        kept = np.setdiff1d(np.arange(len(data)), fold)
        # |a - b|^2 less |a|^2, which does not change the order
        distances = (standard[kept] ** 2).sum(1) - 2 * standard[fold] @ standard[kept].T
        found[fold] = data.targets[kept][distances.argmin(1)]
    return found


def _coverage(model: str, data: Data, folds: Sequence[np.ndarray], seed: int) -> float:
    """The part of the first fold's measurements in the intervals calibrated on all others."""
    fold = folds[0]
    kept = data.take(np.setdiff1d(np.arange(len(data)), fold))
    calibrated = Calibrated.fit(lambda: _make(model, data, seed), kept.table.values, kept.targets, kept.groups(), seed)
    return coverage(*calibrated.interval(data.table.values[fold], LEVEL), data.targets[fold])
