"""Whether new evaluations are still like those that a predictor learned from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

from predictors.conformal import LEVEL, Calibrated
from predictors.data import FEWEST_TASKS, Data
from predictors.ranking import kendall, nearest
from predictors.saved import Saved

SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Drift:
    """New evaluations against what a predictor expects; `advice` says why to retrain, and is empty where all is well.

    It is asked about the `unseen` ones, whose features it did not learn from: `tau` is how it orders them, `baselines`
    how the nearest known row and, where it sees them, the costs do, `inside` the part of them within 90% intervals,
    None where there are none. `targets_p`, `inside_p` and `tasks_p` are the p-values that targets (by Kolmogorov and
    Smirnov) and errors (by a binomial test) are as before, and that new tasks are no further from those that it knows
    than these from each other (by Mann and Whitney). Architectures count once, however many tasks they were measured
    on, and of new tasks each counts once, however many architectures were measured on it, for these measurements depend
    on each other.
    """

    rows: int
    unseen: int
    new_tasks: tuple[str, ...]
    tau: float | None
    baselines: dict[str, float]
    inside: float | None
    inside_p: float
    targets_p: float
    tasks_p: float
    advice: tuple[str, ...]


def drift(
    saved: Saved, incoming: Data | None, tasks: Collection[str] = (), known: Collection[str] | None = None
) -> Drift:
    """Judges new evaluations with the same features, if there are any that the predictor can be asked about.

    `tasks` are those that came in, where they are more than the ones of `incoming`, such as some without a description,
    and `known` those that it learned from, where its rows are means over tasks.
    """
    old = saved.data
    came = {*tasks} or set(() if incoming is None else incoming.task_names)
    names = {*old.task_names} if known is None else {*known}
    new = tuple(sorted(came - names))
    advice = []
    if len(new) > len(names):
        advice.append(f"{len(new)} tasks are new to it, more than the {len(names)} that it knows")
    if incoming is None:
        return Drift(0, 0, new, None, {}, None, 1.0, 1.0, 1.0, tuple(advice))
    seen = {row.tobytes() for row in old.table.values}
    unseen = incoming.take(np.flatnonzero([row.tobytes() not in seen for row in incoming.table.values]))
    tau, baselines, within, inside_p = None, dict[str, float](), 0, 1.0
    if len(unseen):
        mean, within, inside_p = _asked(saved, unseen, new)
        tau = kendall(mean, unseen.targets)
        baselines = {name: kendall(ranking, unseen.targets) for name, ranking in _rankings(old, unseen).items()}
    targets_p = float(stats.ks_2samp(_means(old), _means(incoming)).pvalue)
    described = incoming.descriptions()
    tasks_p = _as_near(old.descriptions(), {name: described[name] for name in new if name in described})
    if inside_p < SIGNIFICANT:
        advice.append(f"its errors have grown: {within} of {len(unseen)} are within their 90% intervals")
    if targets_p < SIGNIFICANT:
        advice.append(f"what is measured is distributed otherwise than what it learned from (p={targets_p:.2g})")
    if tasks_p < SIGNIFICANT:
        advice.append(f"the new tasks are unlike those that it knows (p={tasks_p:.2g})")
    inside = within / len(unseen) if len(unseen) else None
    return Drift(len(incoming), len(unseen), new, tau, baselines, inside, inside_p, targets_p, tasks_p, tuple(advice))


def _asked(saved: Saved, unseen: Data, new: Collection[str]) -> tuple[np.ndarray, int, float]:
    """Predictions (n,), how many rows lie within 90% intervals, and the p-value that these cover what they claim.

    Rows of known tasks in intervals for new architectures, those of `new` tasks in intervals for these on new tasks.
    """
    old, is_new = saved.data, np.isin(unseen.tasks, [*new])
    mean, within, found = np.empty(len(unseen)), 0, list[float]()
    for rows, groupings, counted in (
        (np.flatnonzero(~is_new), [old.architectures], unseen.architectures),
        (np.flatnonzero(is_new), [*old.groupings().values()], np.array(unseen.tasks)),
    ):
        if len(rows):
            calibrated = Calibrated.fit(saved.make, old.table.values, old.targets, groupings, saved.seed)
            low, high = calibrated.interval(unseen.table.values[rows], LEVEL)
            mean[rows], _ = calibrated.predict(unseen.table.values[rows])
            inside = int(np.sum((low <= unseen.targets[rows]) & (unseen.targets[rows] <= high)))
            count = len(np.unique(counted[rows]))
            held = round(count * inside / len(rows))
            found.append(float(stats.binomtest(held, count, LEVEL, alternative="less").pvalue))
            within += inside
    return mean, within, min(1.0, len(found) * min(found))


def _rankings(old: Data, unseen: Data) -> dict[str, np.ndarray]:
    """What else would order the unseen ones (n,)."""
    found = {"nearest": nearest(old.table.values, old.targets, unseen.table.values)}
    if "costs" in unseen.table.names:
        found |= dict(zip(("params", "macs"), unseen.table.block("costs").T, strict=True))
    return found


def _means(data: Data) -> np.ndarray:
    """The mean target of each architecture."""
    means: np.ndarray = np.bincount(data.architectures, data.targets) / np.bincount(data.architectures)
    return means


def _as_near(known: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> float:
    """The p-value that `new` tasks lie as near to a known one as these do to each other, by their descriptions (d,)."""
    if len(known) < FEWEST_TASKS or not new:
        return 1.0
    old, came = np.stack(list(known.values())), np.stack(list(new.values()))
    scale = np.where((spread := old.std(0)) > 0, spread, 1.0)
    among = cdist(old / scale, old / scale)
    np.fill_diagonal(among, np.inf)
    return float(
        stats.mannwhitneyu(cdist(came / scale, old / scale).min(1), among.min(1), alternative="greater").pvalue
    )
