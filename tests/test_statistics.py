"""Intervals and tests against SciPy's and against worked examples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metanas.statistics import Paired, mean_interval, paired

VALUES = st.lists(st.integers(0, 75).map(lambda right: right / 75), min_size=2, max_size=40)


@given(VALUES)
def test_the_interval_is_students(values: list[float]) -> None:
    array = np.array(values)
    mean, half = mean_interval(array)
    assert mean == pytest.approx(array.mean())
    spread = array.std(ddof=1) / math.sqrt(len(array))
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(array) - 1, loc=array.mean(), scale=spread)
        assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    else:
        assert half == pytest.approx(0, abs=1e-9)


def test_a_worked_interval() -> None:
    # Deviations -1, 0, 1: standard error 1 / sqrt(3), and t is 4.30265 with two degrees of freedom.
    mean, half = mean_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2.0
    assert half == pytest.approx(4.302652730 / math.sqrt(3))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.7, 0.1, size=(2000, 12))
    covered = np.mean([abs(mean - 0.7) <= half for mean, half in map(mean_interval, draws)])
    assert abs(covered - 0.95) < 0.015, "three standard errors of 2,000 draws"


def test_one_value_has_no_interval() -> None:
    mean, half = mean_interval(np.array([0.5]))
    assert mean == 0.5
    assert math.isnan(half)
    alone = paired(np.array([0.75]), np.array([0.5]))
    assert alone.difference == 0.25
    assert all(math.isnan(value) for value in (alone.low, alone.high, alone.p))


@given(st.lists(st.tuples(st.integers(0, 75), st.integers(0, 75)), min_size=3, max_size=40))
def test_the_paired_test_is_scipys(pairs: list[tuple[int, int]]) -> None:
    ours, theirs = np.array(pairs, dtype=float).T / 75
    found = paired(ours, theirs)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    differences = {a - b for a, b in pairs}
    if len(differences) > 1:
        expected = stats.ttest_rel(ours, theirs)
        interval = expected.confidence_interval(0.95)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_constant_differences_are_certain() -> None:
    ours = np.array([0.5, 0.75, 1.0])
    assert paired(ours, ours - 0.25) == Paired(0.25, 0.25, 0.25, 0.0)
    assert paired(ours, ours) == Paired(0.0, 0.0, 0.0, 1.0)


def test_episodes_must_be_common() -> None:
    with pytest.raises(ValueError, match="common episodes, but got 3 and 1"):
        paired(np.ones(3), np.ones(1))
