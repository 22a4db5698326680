"""Intervals cover what they claim; acquisition weighs mean and spread."""

from functools import partial
from typing import get_args

import numpy as np
import pytest

from predictors.acquisition import (
    ACQUISITIONS,
    OPTIMISM,
    Acquisition,
    expected_improvement,
    thompson,
    upper_confidence,
)
from predictors.conformal import Calibrated, coverage, group_folds, held_out
from predictors.forest import ForestPredictor


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.random((count, 4))
    return features, features @ np.array([2.0, -1.0, 0.5, 0.0]) + 0.3 * rng.normal(size=count)


@pytest.mark.parametrize("level", [0.6827, 0.9])
def test_intervals_cover_what_they_claim_on_held_out_rows(level: float) -> None:
    covered = []
    for seed in range(4):
        features, targets = rows(seed, 80)
        fitted = Calibrated.fit(partial(ForestPredictor, seed, 30), features, targets, [np.arange(80)], seed)
        fresh, measured = rows(100 + seed, 300)
        covered.append(coverage(*fitted.interval(fresh, level), measured))
        mean, spread = fitted.predict(fresh)
        low, high = fitted.interval(fresh, 0.6827)
        np.testing.assert_allclose((low, high), (mean - spread, mean + spread))
    assert np.mean(covered) == pytest.approx(level, abs=0.06)


def test_too_few_rows_make_no_promise() -> None:
    features, targets = rows(0, 5)
    fitted = Calibrated.fit(partial(ForestPredictor, 0, 10), features, targets, [np.arange(5)], 0)
    assert fitted.scale.factor(0.9) == np.inf
    assert np.isfinite(fitted.scale.factor(0.5))


def test_folds_keep_groups_whole_and_held_out_rows_unseen() -> None:
    groups = np.random.default_rng(0).integers(12, size=60)
    folds = group_folds(groups, 5, seed=1)
    assert sorted(np.concatenate(folds)) == list(range(60))
    for fold in folds:
        assert not set(groups[fold]) & set(np.delete(groups, fold))
    features, targets = np.eye(12)[groups], np.random.default_rng(1).normal(size=12)[groups]
    mean, _ = held_out(partial(ForestPredictor, 0, 20), features, targets, folds)
    assert abs(np.corrcoef(mean, targets)[0, 1]) < 0.9, "a row's twin was in training"


def test_acquisitions_by_hand() -> None:
    mean, spread = np.array([0.0, 1.0, 0.5]), np.array([2.0, 0.1, 0.0])
    np.testing.assert_allclose(upper_confidence(mean, spread), mean + OPTIMISM * spread)
    gains = np.maximum(np.random.default_rng(1).normal(mean, spread, size=(200_000, 3)) - 0.8, 0).mean(0)
    np.testing.assert_allclose(expected_improvement(mean, spread, 0.8), gains, atol=0.01)
    assert expected_improvement(mean, np.zeros(3), 0.8).tolist() == [0.0, pytest.approx(0.2), 0.0]
    rng = np.random.default_rng(0)
    drawn = np.stack([thompson(mean, spread, rng) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(0), spread, atol=0.1)


def test_acquisitions_by_name() -> None:
    mean, spread, rng = np.array([0.0, 1.0]), np.array([2.0, 0.1]), np.random.default_rng(0)
    found = {name: ACQUISITIONS[name](mean, spread, 0.8, rng) for name in get_args(Acquisition)}
    np.testing.assert_array_equal(found["ei"], expected_improvement(mean, spread, 0.8))
    np.testing.assert_array_equal(found["ucb"], upper_confidence(mean, spread))
    np.testing.assert_array_equal(found["thompson"], thompson(mean, spread, np.random.default_rng(0)))
