"""Intervals cover what they claim; acquisition weighs mean and spread; batches hold nothing twice."""

from functools import partial

import numpy as np
import pytest

from predictors.acquisition import (
    ACQUISITIONS,
    OPTIMISM,
    best_different,
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
        fitted = Calibrated.fit(partial(ForestPredictor, seed, 30), features, targets, np.arange(80), seed)
        fresh, measured = rows(100 + seed, 300)
        covered.append(coverage(*fitted.interval(fresh, level), measured))
        mean, spread = fitted.predict(fresh)
        low, high = fitted.interval(fresh, 0.6827)
        np.testing.assert_allclose((low, high), (mean - spread, mean + spread))
    assert np.mean(covered) == pytest.approx(level, abs=0.06)


def test_too_few_rows_make_no_promise() -> None:
    features, targets = rows(0, 5)
    fitted = Calibrated.fit(partial(ForestPredictor, 0, 10), features, targets, np.arange(5), 0)
    assert fitted.factor(0.9) == np.inf
    assert np.isfinite(fitted.factor(0.5))


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
    rng = np.random.default_rng(0)
    mean, spread = np.array([0.0, 1.0, 0.5]), np.array([2.0, 0.1, 0.0])
    np.testing.assert_allclose(upper_confidence(mean, spread, 0.0, rng), mean + OPTIMISM * spread)
    draws = 0.8 + np.zeros(1)
    gains = np.maximum(np.random.default_rng(1).normal(mean, spread, size=(200_000, 3)) - draws, 0).mean(0)
    np.testing.assert_allclose(expected_improvement(mean, spread, 0.8, rng), gains, atol=0.01)
    drawn = np.stack([thompson(mean, spread, 0.0, rng) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(0), spread, atol=0.1)
    assert set(ACQUISITIONS) == {"upper confidence", "expected improvement", "thompson"}


def test_a_batch_holds_the_best_and_nothing_twice() -> None:
    scores = np.array([0.9, 0.8, 0.95, 0.1, 0.8])
    assert best_different(scores, ["a", "b", "a", "c", "d"], 3) == [2, 1, 4]
    assert best_different(scores, ["a", "b", "a", "c", "d"], 9) == [2, 1, 4, 3]
    assert best_different(scores, range(5), 0) == []
