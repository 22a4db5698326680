"""Intervals and paired tests."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95% interval by Student's t, for values (n,); the half width is NaN for one value."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return float(np.mean(values)), float(half)


@dataclass(frozen=True)
class Paired:
    """A mean difference on common episodes, with its 95% interval and the p-value of the paired t-test."""

    difference: float
    low: float
    high: float
    p: float


def paired(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """Compares two methods episode by episode, accuracies (n,) each."""
    differences = np.asarray(ours) - np.asarray(theirs)
    mean, half = mean_interval(differences)
    if np.ptp(differences) == 0:
        return Paired(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    return Paired(mean, mean - half, mean + half, float(stats.ttest_rel(ours, theirs).pvalue))
