"""Pool tasks help a new task that is like them, and are left out by one that is not."""

from functools import partial

import numpy as np

from predictors.forest import ForestPredictor
from predictors.pool import ALIKE, ENOUGH, PoolPredictor, pool_block
from predictors.ranking import kendall

WEIGHTS = np.array([3.0, -2.0, 1.0, 0.5, 0.0, -1.0])


def task(seed: int, count: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.integers(3, size=(count, 6)).astype(float)
    return features, features @ weights + 0.1 * rng.normal(size=count)


def pool(features: np.ndarray, *signs: float) -> np.ndarray:
    fitted = [ForestPredictor(i, 30).fit(*task(10 + i, 150, sign * WEIGHTS)) for i, sign in enumerate(signs)]
    return np.hstack([features, pool_block(fitted, features)])


def test_without_own_evaluations_the_pool_speaks() -> None:
    features, worth = task(0, 200, WEIGHTS)
    rows = pool(features, 1.0, 1.0, 0.8)
    predictor = PoolPredictor(partial(ForestPredictor, 0, 30), (("architecture", 6), ("pool", 3)))
    mean, spread = predictor.predict(rows)
    np.testing.assert_allclose(mean, rows[:, 6:].mean(1))
    np.testing.assert_allclose(spread, rows[:, 6:].std(1))
    assert kendall(mean, worth) > 0.6


def test_ten_own_evaluations_with_the_pool_beat_ten_alone() -> None:
    features, worth = task(0, 200, WEIGHTS)
    rows = pool(features, 1.0, 1.0, -1.0)
    predictor = PoolPredictor(partial(ForestPredictor, 0, 30), (("architecture", 6), ("pool", 3)))
    with_pool = predictor.fit(rows[:10], worth[:10]).predict(rows[10:])[0]
    alone = ForestPredictor(0, 30).fit(features[:10], worth[:10]).predict(features[10:])[0]
    assert kendall(with_pool, worth[10:]) > kendall(alone, worth[10:]) + 0.1
    assert predictor.believed.tolist() == [True, True, False]
    np.testing.assert_allclose(predictor.similarity, [kendall(column, worth[:10]) for column in rows[:10, 6:].T])


def test_a_misleading_pool_is_noticed_and_does_no_harm() -> None:
    features, worth = task(0, 200, WEIGHTS)
    rows = pool(features, -1.0, -0.9)
    predictor = PoolPredictor(partial(ForestPredictor, 0, 30), (("architecture", 6), ("pool", 2)))
    predictor.fit(rows[:20], worth[:20])
    assert (predictor.similarity < ALIKE).all()
    assert not predictor.believed.any()
    alone = ForestPredictor(0, 30).fit(features[:20], worth[:20]).predict(features)
    np.testing.assert_array_equal(predictor.predict(rows), alone)
    assert predictor.fit(rows[: ENOUGH - 1], worth[: ENOUGH - 1]).believed.all(), "too few to judge by"
