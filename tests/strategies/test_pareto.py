"""Sorting, crowding and selection against slow and obvious versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metanas.strategies.pareto import crowding_distance, non_dominated_sort, pareto_front, select

# Small integers, so that ties and duplicates are common.
POINTS = st.tuples(st.integers(0, 14), st.integers(1, 3)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-4, 4).map(float))
)


def beats(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def peel(points: np.ndarray) -> list[list[int]]:
    fronts, left = [], list(range(len(points)))
    while left:
        fronts.append([i for i in left if not any(beats(points[j], points[i]) for j in left)])
        left = [i for i in left if i not in fronts[-1]]
    return fronts


@given(POINTS)
def test_fronts_equal_those_peeled_off_one_by_one(points: np.ndarray) -> None:
    assert non_dominated_sort(points) == peel(points)
    assert pareto_front(points) == (peel(points) or [[]])[0]


@given(POINTS, st.integers(0, 16))
def test_selection_takes_better_fronts_first_and_the_least_crowded_of_the_last(points: np.ndarray, count: int) -> None:
    chosen = select(points, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(points))
    room = count
    for front in peel(points):
        taken = [i for i in front if i in chosen]
        assert len(taken) == min(len(front), room)
        room -= len(taken)
        distance = dict(zip(front, crowding_distance(points[front]), strict=True))
        passed_over = [distance[i] for i in front if i not in chosen]
        assert min((distance[i] for i in taken), default=np.inf) >= max(passed_over, default=0)


@given(POINTS, st.integers(0, 16))
def test_selection_keeps_the_extremes_of_every_objective(points: np.ndarray, count: int) -> None:
    if count < 2 * points.shape[1] or len(points) == 0:
        return
    kept = points[select(points, count)]
    assert (kept.max(0) == points.max(0)).all()


def test_crowding_of_a_worked_example() -> None:
    front = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    # Neighbours' spans over the whole: (4 - 0) / 10 + (10 - 5) / 10 and (10 - 1) / 10 + (6 - 0) / 10.
    np.testing.assert_allclose(crowding_distance(front), [np.inf, 0.9, 1.5, np.inf])


def test_one_objective_ranks_by_value() -> None:
    assert select(np.array([[1.0], [3.0], [2.0], [3.0]]), 3) == [1, 3, 2]


def test_identical_points_go_by_index() -> None:
    assert set(select(np.ones((5, 2)), 2)) == {0, 4}, "the two ends of the front in stable order"
    assert select(np.ones((5, 2)), 5) == [0, 1, 2, 3, 4]


def test_nothing_to_sort() -> None:
    empty = np.empty((0, 2))
    assert non_dominated_sort(empty) == [] == select(empty, 3)
    assert len(crowding_distance(empty)) == 0


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="objectives must be numbers"):
        select(np.array([[0.5, -1.0], [np.nan, -2.0]]), 1)
