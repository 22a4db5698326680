"""Pool tasks help a new task that is like them, and lose their say in one that is not."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest

from predictors.forest import ForestPredictor
from predictors.gaussian import GaussianProcess
from predictors.pool import ENOUGH, PoolPredictor, ranking_weights
from predictors.predictor import Predictor
from predictors.ranking import kendall

WEIGHTS = np.array([3.0, -2.0, 1.0, 0.5, 0.0, -1.0])


def task(seed: int, count: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.integers(3, size=(count, 6)).astype(float)
    return features, features @ weights + 0.1 * rng.normal(size=count)


def pool(*signs: float) -> list[Predictor]:
    return [ForestPredictor(i, 30).fit(*task(10 + i, 150, sign * WEIGHTS)) for i, sign in enumerate(signs)]


def test_without_own_evaluations_the_pool_speaks() -> None:
    features, worth = task(0, 200, WEIGHTS)
    sources = pool(1.0, 1.0, 0.8)
    predictor = PoolPredictor(partial(ForestPredictor, 0, 30), sources, 0)
    means, spreads = np.stack([source.predict(features) for source in sources], 1)
    mean, spread = predictor.predict(features)
    np.testing.assert_allclose(mean, means.mean(0))
    # The variance of a mixture is the mean variance and the variance of the means.
    np.testing.assert_allclose(spread**2, (spreads**2).mean(0) + means.var(0))
    assert kendall(mean, worth) > 0.6
    few = predictor.fit(features[: ENOUGH - 1], worth[: ENOUGH - 1])
    np.testing.assert_allclose(few.predict(features)[0], mean, err_msg="too few to judge by")


def test_ten_own_evaluations_with_the_pool_beat_ten_alone() -> None:
    ours, alone, weights = [], [], []
    sources = pool(1.0, 1.0, -1.0)
    for seed in range(4):
        features, worth = task(seed, 200, WEIGHTS)
        predictor = PoolPredictor(GaussianProcess, sources, seed).fit(features[:10], worth[:10])
        ours.append(kendall(predictor.predict(features[10:])[0], worth[10:]))
        alone.append(kendall(GaussianProcess().fit(features[:10], worth[:10]).predict(features[10:])[0], worth[10:]))
        weights.append(predictor.weights)
    assert np.mean(ours) > np.mean(alone) + 0.1
    assert np.min(np.array(ours) - alone) > 0
    np.testing.assert_allclose(np.sum(weights, axis=1), 1.0)
    assert np.max(np.array(weights)[:, 2]) == 0.0, "the task that is the opposite is not heard"


def test_a_misleading_pool_is_noticed_and_does_no_harm() -> None:
    features, worth = task(0, 200, WEIGHTS)
    predictor = PoolPredictor(GaussianProcess, pool(-1.0, -0.9), 0).fit(features[:20], worth[:20])
    np.testing.assert_array_equal(predictor.weights, [0.0, 0.0, 1.0])
    alone = GaussianProcess().fit(features[:20], worth[:20]).predict(features)
    np.testing.assert_allclose(predictor.predict(features), alone, rtol=1e-12)


def test_own_evaluations_outgrow_a_pool_of_noise() -> None:
    features, worth = task(0, 200, WEIGHTS)
    noise = [ForestPredictor(i, 30).fit(features, np.random.default_rng(i).normal(size=200)) for i in range(6)]
    own = [PoolPredictor(GaussianProcess, noise, 0).fit(features[:n], worth[:n]).weights[-1] for n in (10, 40, 100)]
    assert own[0] < own[-1]
    assert own[-1] > 0.99


@pytest.mark.parametrize("seed", range(3))
def test_weights_count_who_orders_the_drawn_rows_best(seed: int) -> None:
    """Against drawing rows and counting pairs one after the other."""
    rng = np.random.default_rng(seed)
    said, targets = rng.normal(size=(3, 7)), rng.normal(size=7)
    said[2] = said[0]  # members that say the same share
    said[0, :2] = said[2, :2] = 0.0  # and one that orders nothing is wrong about it
    expected = np.zeros(3)
    for _ in range(3000):
        rows = rng.integers(7, size=7)
        wrong = [
            sum(
                (said[member, i] < said[member, j]) != (targets[i] < targets[j])
                for a, b in combinations(rows, 2)
                for i, j in ((a, b), (b, a))
            )
            for member in range(3)
        ]
        best = np.array(wrong) == min(wrong)
        expected += best / best.sum() / 3000
    np.testing.assert_allclose(ranking_weights(said, targets, np.random.default_rng(9)), expected, atol=0.08)
