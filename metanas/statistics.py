"""Intervals and paired tests over episodes."""

from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from scipy import stats


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95% interval by Student's t, for values (n,); the half width is NaN for one value."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), nan
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / sqrt(count)
    return float(np.mean(values)), float(half)


@dataclass(frozen=True)
class Paired:
    """A mean difference on common episodes, its 95% interval and the two-sided p-value of the paired t-test.

    Interval and p are NaN for one episode.
    """

    difference: float
    low: float
    high: float
    p: float


def paired(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """Compares two methods episode by episode, accuracies (n,) each. Raises ValueError when the counts differ."""
    if len(ours) != len(theirs):
        raise ValueError(f"a paired test needs common episodes, but got {len(ours)} and {len(theirs)}")
    differences = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    mean, half = mean_interval(differences)
    count = len(differences)
    if count < 2:
        return Paired(mean, nan, nan, nan)
    error = float(np.std(differences, ddof=1)) / sqrt(count)
    if error > 0:
        statistic = abs(mean) / error
    else:
        statistic = inf if mean else 0.0
    return Paired(mean, mean - half, mean + half, float(2 * stats.t.sf(statistic, count - 1)))


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a fraction `right` of `count` (Wilson 1927)."""
    interval = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def sign_test(better: int, worse: int) -> float:
    """How probable it is that at least so many pairs go one's way if neither is better (McNemar 1947, exact)."""
    return float(stats.binom.sf(better - 1, better + worse, 0.5))
