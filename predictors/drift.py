"""Whether new evaluations are still like those that a predictor learned from."""

from collections.abc import Iterable
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

    It is asked about the `unseen` ones, whose features it did not learn from: `tau` is how it orders them, `inside` the
    part of them within 90% intervals, None where there are none. `targets_p` and `inside_p` are the p-values that
    targets (by Kolmogorov and Smirnov) and errors (by a binomial test) are as before.
    """

    rows: int
    unseen: int
    new_tasks: tuple[str, ...]
    tau: float | None
    inside: float | None
    inside_p: float
    targets_p: float
    advice: tuple[str, ...]


def drift(saved: Saved, incoming: Data, tasks: Iterable[str] = ()) -> Drift:
    """Judges new evaluations with the same features.

    `tasks` are those that came in, where they are more than the ones of `incoming`, such as some without a description.
    """
    old = saved.data
    seen = {row.tobytes() for row in old.table.values}
    unseen = incoming.take(np.flatnonzero([row.tobytes() not in seen for row in incoming.table.values]))
    tau, within, inside_p = None, 0, 1.0
    if len(unseen):
        # What comes in is mostly of new architectures: of known ones, forests have hardly a spread to calibrate.
        calibrated = Calibrated.fit(saved.make, old.table.values, old.targets, old.architectures, saved.seed)
        low, high = calibrated.interval(unseen.table.values, LEVEL)
        within = int(np.sum((low <= unseen.targets) & (unseen.targets <= high)))
        inside_p = float(stats.binomtest(within, len(unseen), LEVEL, alternative="less").pvalue)
        tau = kendall(calibrated.predict(unseen.table.values)[0], unseen.targets)
    targets_p = float(stats.ks_2samp(old.targets, incoming.targets, method="asymp").pvalue)
    new = tuple(sorted({*incoming.task_names, *tasks} - set(old.task_names)))
    advice = []
    if len(unseen) >= FEWEST and inside_p < SIGNIFICANT:
        advice.append(f"its errors have grown: {within} of {len(unseen)} are within their 90% intervals")
    if len(incoming) >= FEWEST and targets_p < SIGNIFICANT:
        advice.append(f"what is measured is distributed otherwise than what it learned from (p={targets_p:.2g})")
    if len(incoming) >= FEWEST and len(new) > len(old.task_names):
        advice.append(f"{len(new)} tasks are new to it, more than the {len(old.task_names)} that it knows")
    inside = within / len(unseen) if len(unseen) else None
    return Drift(len(incoming), len(unseen), new, tau, inside, inside_p, targets_p, tuple(advice))
