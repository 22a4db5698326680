"""Which samples may serve as support and which as query, so that the two sides share no sample and no group."""

import numpy as np

from metanas.errors import MetanasError
from metanas.seeding import stream
from tasks.task import Task

TRIES = 50  # random divisions of the groups; the first nearly always does where a class has more than a few

Sides = dict[int, tuple[np.ndarray, np.ndarray]]
"""Label -> positions on the support side, positions on the query side."""


class Divider:
    """Divides the samples of one task anew for each episode."""

    def __init__(self, task: Task) -> None:
        self.task = task
        if task.groups is not None:
            names, self._group = np.unique(task.groups, return_inverse=True)  # (N,)
            cells = task.labels.astype(np.int64) * len(names) + self._group
            shape = len(task.classes), len(names)
            self._counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)  # (classes, groups)

    def groups_of(self, label: int) -> int | None:
        """In how many groups a class lies; None where the task has no groups."""
        return None if self.task.groups is None else int(np.count_nonzero(self._counts[label]))

    def check(self, labels: np.ndarray, shots: int, queries: int) -> None:
        """Raises MetanasError where the groups of these classes (ways,) cannot give so many to both sides at once."""
        self.sides(labels, np.full(len(labels), shots), np.full(len(labels), queries), stream(0, "division"))

    def sides(self, labels: np.ndarray, shots: np.ndarray, queries: np.ndarray, rng: np.random.Generator) -> Sides:
        """For each of `labels` (ways,) at least so many `shots` and `queries` (ways,) on the two sides.

        A label that occurs more than once (turned) gets room for its largest demand, not for the sum. Raises
        MetanasError when no division of the groups is found, naming the class that the best one left shortest.
        """
        demand: dict[int, tuple[int, int]] = {}
        for label, shot, query in zip(labels.tolist(), shots.tolist(), queries.tolist(), strict=True):
            before = demand.get(label, (0, 0))
            demand[label] = max(before[0], shot), max(before[1], query)
        if self.task.groups is not None:
            return self._by_group(demand, rng)
        return {label: _by_sample(self.task.by_class[label], *needed, rng) for label, needed in demand.items()}

    def _by_group(self, demand: dict[int, tuple[int, int]], rng: np.random.Generator) -> Sides:
        counts, needed = self._counts[list(demand)], np.array(list(demand.values()))
        best = needed
        for _ in range(TRIES):
            on_query, missing = _divide(counts, needed, rng)
            if not missing.any():
                members = {label: self.task.by_class[label] for label in demand}
                masks = {label: on_query[self._group[ids]] for label, ids in members.items()}
                return {label: (ids[~masks[label]], ids[masks[label]]) for label, ids in members.items()}
            if missing.sum() < best.sum():
                best = missing
        row, side = divmod(int(best.argmax()), 2)
        name, short = self.task.classes[list(demand)[row]], f"{best[row, side]} {('support', 'query')[side]} samples"
        raise MetanasError(
            f"Class '{name}' of task '{self.task.name}' is {short} short of {needed[row, 0]} support and "
            f"{needed[row, 1]} query samples that share no group: add samples of further groups, or ask for fewer."
        )


def _by_sample(
    members: np.ndarray, shots: int, queries: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Both sides in proportion to their demand."""
    order = rng.permutation(members)
    cut = shots + (len(members) - shots - queries) * shots // (shots + queries)
    return order[:cut], order[cut:]


def _divide(counts: np.ndarray, needed: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random division: which groups lie on the query side (groups,), and what each class then lacks (classes, 2).

    Groups come in random order, each to the side on which it meets the larger share of what is still needed; by
    chance where that is equal, and once nothing is needed any more.
    """
    missing, total = needed.copy(), needed.sum(0)
    on_query = np.less(rng.random(counts.shape[1]), 0.5)
    for group in rng.permutation(np.flatnonzero(counts.any(0))):
        met = np.minimum(missing, counts[:, group, None])
        support, query = met.sum(0) / total
        if support != query:
            on_query[group] = query > support
        missing[:, int(on_query[group])] -= met[:, int(on_query[group])]
        if not missing.any():
            break
    return on_query, missing
