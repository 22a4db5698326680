"""Fits a predictor to all that was measured, and says how far to trust it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metanas.errors import MetanasError
from metanas.seeding import stream
from predictors.features import COSTS
from predictors.forest import ForestPredictor
from predictors.ranking import kendall

FOLDS = 5
FEWEST = 10
"""Architectures below which held-out folds of two say nothing."""
RESAMPLES = 500


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau with its 95% interval, by bootstrap over architectures (Efron 1979, percentile method)."""

    tau: float
    low: float
    high: float


@dataclass(frozen=True)
class RetrainReport:
    """The predictor on architectures held out from it, beside what parameter count and operations alone would say."""

    rows: int
    architectures: int
    predictor: Correlation
    params: Correlation
    macs: Correlation


def retrain(
    features: np.ndarray, targets: np.ndarray, groups: Sequence[int], seed: int
) -> tuple[ForestPredictor, RetrainReport]:
    """A predictor fitted to rows (n, d) of `architecture_features` and targets (n,), and its held-out correlation.

    `groups` (n,) numbers the architecture of each row; all rows of one are held out together, in five folds. Raises
    MetanasError when there are fewer than ten architectures.
    """
    rows_of = [np.flatnonzero(np.asarray(groups) == group) for group in np.unique(groups)]
    if len(rows_of) < FEWEST:
        raise MetanasError(
            f"the store holds measurements of {len(rows_of)} architectures of this space and a predictor needs at "
            f"least {FEWEST}; search for more generations, or name more runs."
        )
    held_out = _held_out_predictions(features, targets, rows_of, seed)
    log_params, log_macs = features[:, -COSTS:].T

    def correlation(ranking: np.ndarray) -> Correlation:
        return _bootstrap(lambda rows: kendall(ranking[rows], targets[rows]), rows_of, seed)

    report = RetrainReport(
        rows=len(targets),
        architectures=len(rows_of),
        predictor=correlation(held_out),
        params=correlation(log_params),
        macs=correlation(log_macs),
    )
    return ForestPredictor(seed).fit(features, targets), report


def _held_out_predictions(
    features: np.ndarray, targets: np.ndarray, rows_of: Sequence[np.ndarray], seed: int
) -> np.ndarray:
    """For every row, the answer (n,) of a forest that saw no row of its architecture."""
    answers = np.empty(len(targets))
    for fold in np.array_split(stream(seed, "folds").permutation(len(rows_of)), FOLDS):
        held_out = np.concatenate([rows_of[group] for group in fold])
        kept = np.setdiff1d(np.arange(len(targets)), held_out)
        answers[held_out] = ForestPredictor(seed).fit(features[kept], targets[kept]).predict(features[held_out])[0]
    return answers


def _bootstrap(tau: Callable[[np.ndarray], float], rows_of: Sequence[np.ndarray], seed: int) -> Correlation:
    rng = stream(seed, "bootstrap")
    draws = rng.integers(len(rows_of), size=(RESAMPLES, len(rows_of)))
    found = [tau(np.concatenate([rows_of[group] for group in draw])) for draw in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return Correlation(tau(np.concatenate(rows_of)), float(low), float(high))
