"""Whether new evaluations are still like those that a predictor learned from."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from predictors.conformal import LEVEL, Calibrated
from predictors.data import Data
from predictors.ranking import kendall
from predictors.saved import Saved

SIGNIFICANT = 0.01
FEWEST = 8
"""New evaluations below which nothing is concluded."""


@dataclass(frozen=True)
class Drift:
    """New evaluations against what a predictor expects; `advice` says why to retrain, and is empty where all is well.

    `inside` is the part of them within 90% intervals; `targets_p` and `inside_p` are the p-values that targets (by
    Kolmogorov and Smirnov) and errors (by a binomial test) are as before.
    """

    rows: int
    new_tasks: tuple[str, ...]
    tau: float
    inside: float
    inside_p: float
    targets_p: float
    advice: tuple[str, ...]


def drift(saved: Saved, incoming: Data) -> Drift:
    """Judges new evaluations, which the predictor has not learned from, with the same features."""
    old = saved.data
    calibrated = Calibrated.fit(saved.make, old.table.values, old.targets, old.architectures, saved.seed)
    low, high = calibrated.interval(incoming.table.values, LEVEL)
    inside = int(np.sum((low <= incoming.targets) & (incoming.targets <= high)))
    inside_p = float(stats.binomtest(inside, len(incoming), LEVEL, alternative="less").pvalue)
    targets_p = float(stats.ks_2samp(old.targets, incoming.targets, method="asymp").pvalue)
    tau = kendall(calibrated.predict(incoming.table.values)[0], incoming.targets)
    new = tuple(sorted(set(incoming.task_names) - set(old.task_names)))
    advice = []
    if len(incoming) >= FEWEST:
        if inside_p < SIGNIFICANT:
            advice.append(f"its errors have grown: {inside} of {len(incoming)} are within their 90% intervals")
        if targets_p < SIGNIFICANT:
            advice.append(f"what is measured is distributed otherwise than what it learned from (p={targets_p:.2g})")
        if len(new) > len(old.task_names):
            advice.append(f"{len(new)} tasks are new to it, more than the {len(old.task_names)} that it knows")
    return Drift(len(incoming), new, tau, inside / len(incoming), inside_p, targets_p, tuple(advice))
