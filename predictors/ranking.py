"""How well predictions order what was measured. Larger is better throughout."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import bootstrap, kendalltau, norm, rankdata

from metanas.seeding import stream

RESAMPLES = 500
TOP = 0.1
"""The share of architectures that counts as the top."""


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's tau-b of two rankings (n,), in [-1, 1]; 0 where either is constant, or a single value: no order."""
    if len(predicted) < 2:
        return 0.0
    tau = float(kendalltau(predicted, measured).statistic)
    return 0.0 if np.isnan(tau) else tau


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau with its 95% interval."""

    tau: float
    low: float
    high: float


def correlation(
    predicted: np.ndarray, measured: np.ndarray, groups: np.ndarray, seed: int, tasks: np.ndarray | None = None
) -> Correlation:
    """Of two rankings (n,), with an interval by bootstrap over `groups` (n,) (Efron 1979, percentile method).

    With `tasks` (n,) tau is the mean of those within each task that has an order: telling tasks apart orders nothing.
    """
    tasks = np.zeros(len(predicted), dtype=int) if tasks is None else tasks

    def taus(rows: np.ndarray) -> list[float]:
        own = [rows[tasks[rows] == task] for task in np.unique(tasks[rows])]
        return [kendall(predicted[one], measured[one]) for one in own if len(one) > 1]

    every = np.arange(len(predicted))
    rows_of = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if all(len(np.unique(tasks[rows])) == 1 for rows in rows_of) and len(rows_of) == len(np.unique(tasks)):
        whole = np.array(taus(every) or [0.0])  # one a task, drawn as they are
        return Correlation(float(whole.mean()), *_interval(len(whole), lambda drawn: float(whole[drawn].mean()), seed))

    def tau(drawn: np.ndarray) -> float:
        return float(np.mean(taus(np.concatenate([rows_of[group] for group in drawn])) or [0.0]))

    return Correlation(float(np.mean(taus(every) or [0.0])), *_interval(len(rows_of), tau, seed))


def _interval(count: int, statistic: Callable[[np.ndarray], float], seed: int) -> tuple[float, float]:
    """The 95% interval of a statistic of drawn numbers below `count`."""
    found = bootstrap(
        (np.arange(count),),
        statistic,
        n_resamples=RESAMPLES,
        vectorized=False,
        method="percentile",
        random_state=stream(seed, "bootstrap"),
    ).confidence_interval
    return float(found.low), float(found.high)


def top_recall(predicted: np.ndarray, measured: np.ndarray, share: float = TOP) -> float:
    """The part of the best `share` of n (one at least) by measurement that are so by prediction, too."""
    count = max(1, round(share * len(measured)))
    best = np.argsort(-measured, kind="stable")[:count]
    return len(np.intersect1d(best, np.argsort(-predicted, kind="stable")[:count])) / count


def regret(predicted: np.ndarray, measured: np.ndarray) -> float:
    """What the architecture predicted best measures below the best there is, in the units of `measured`."""
    return float(measured.max() - measured[int(np.argmax(predicted))])


@dataclass(frozen=True)
class Quality:
    """Rank correlation, the share of the top that was found, and the regret of the first choice."""

    tau: float
    recall: float
    regret: float


def quality(predicted: np.ndarray, measured: np.ndarray) -> Quality:
    """All three, of predictions (n,) for measurements (n,)."""
    return Quality(kendall(predicted, measured), top_recall(predicted, measured), regret(predicted, measured))


def nearest(known: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The target (m,) of the nearest of the `known` rows (n, d), for `asked` rows (m, d), by standardised columns."""
    spread = known.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    return np.asarray(targets[cdist(asked / scale, known / scale).argmin(1)])


def normal_scores(targets: np.ndarray) -> np.ndarray:
    """Targets (n,) by rank, as quantiles of the normal distribution (Blom 1958): for skewed targets."""
    scores: np.ndarray = norm.ppf((rankdata(targets) - 0.5) / max(1, len(targets)))
    return scores
