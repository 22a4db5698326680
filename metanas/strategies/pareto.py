"""Non-dominated sorting and crowding (NSGA-II; Deb et al. 2002). All objectives are maximised."""

import numpy as np


def dominates(objectives: np.ndarray) -> np.ndarray:
    """For objectives (n, m), a boolean (n, n): row i is no worse than column j anywhere and better somewhere."""
    if np.isnan(objectives).any():
        raise ValueError("objectives must be numbers: nothing dominates a NaN, so it would survive for ever")
    a, b = objectives[:, None, :], objectives[None, :, :]
    return np.asarray((a >= b).all(2) & (a > b).any(2))


def non_dominated_sort(objectives: np.ndarray) -> list[list[int]]:
    """The fronts of objectives (n, m), best first, each in ascending order of index (section III-A)."""
    if len(objectives) == 0:
        return []
    matrix = dominates(objectives)
    left = np.ones(len(objectives), dtype=bool)
    fronts = []
    while left.any():
        front = np.flatnonzero(left & ~matrix[left].any(0))
        fronts.append(front.tolist())
        left[front] = False
    return fronts


def pareto_front(objectives: np.ndarray) -> list[int]:
    """The points of (n, m) that none dominates, in ascending order of index."""
    return non_dominated_sort(objectives)[0] if len(objectives) else []


def crowding_distance(objectives: np.ndarray) -> np.ndarray:
    """How far apart the neighbours of each point of one front (n, m) lie; infinite at the ends (section III-B)."""
    count, dimensions = objectives.shape
    distance = np.zeros(count)
    if count == 0:
        return distance
    for column in range(dimensions):
        order = np.argsort(objectives[:, column], kind="stable")
        values = objectives[order, column]
        span = values[-1] - values[0]
        distance[order[[0, -1]]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (values[2:] - values[:-2]) / span
    return distance


def select(objectives: np.ndarray, count: int) -> list[int]:
    """The `count` survivors: whole fronts, and of the last one the least crowded. Ties go to the lower index."""
    chosen: list[int] = []
    for front in non_dominated_sort(objectives):
        if len(chosen) + len(front) > count:
            distance = crowding_distance(objectives[front])
            order = np.argsort(-distance, kind="stable")[: count - len(chosen)]
            return chosen + [front[i] for i in order]
        chosen += front
    return chosen
