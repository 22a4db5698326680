"""The Gaussian process against a reference, and what the guided strategy makes of a model."""

from typing import Self

import numpy as np
from scipy.stats import ttest_ind
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from metanas.strategies.gaussian import NOISES, SCALES, GaussianProcess
from metanas.strategies.guided import Guided
from predictors.forest import ForestPredictor
from tests.strategies.digits import Digits, measure


def test_the_process_is_the_most_likely_of_its_grid_as_scikit_learn_has_it() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([Digits(5).encode(Digits(5).sample(rng)) for _ in range(40)])
    targets = features @ rng.standard_normal(features.shape[1]) / 3 + 0.2 * rng.standard_normal(40)
    others = np.stack([Digits(5).encode(Digits(5).sample(rng)) for _ in range(15)])
    fits = [
        GaussianProcessRegressor(RBF(scale * np.sqrt(2)), alpha=noise, optimizer=None).fit(features, targets)
        for scale in SCALES
        for noise in NOISES
    ]
    reference = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    mean, spread = GaussianProcess().fit(features, targets).predict(others)
    expected_mean, expected_spread = reference.predict(others, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, atol=1e-9)
    np.testing.assert_allclose(spread, expected_spread, atol=1e-7)


class Fixed:
    """A model that says of every row its first feature, with a spread of `spread` times its second."""

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features[:, 0], self.spread * (1 + features[:, 1])


def test_expected_improvement_is_the_mean_of_improvements() -> None:
    strategy = Guided(Digits(3), 4, model=lambda: Fixed(0.5))
    strategy.tell([measure((1, 1, 1)), measure((2, 1, 1))])
    candidates = [(0, 0, 1), (1, 2, 2), (3, 1, 1)]
    rows = np.stack([Digits(3).encode(a) for a in candidates])
    draws = rows[:, 0] + 0.5 * (1 + rows[:, 1]) * np.random.default_rng(0).standard_normal((400_000, 1))
    # No measured one begins with 0, so the model's best of them is 0.
    expected = np.maximum(draws - 0.0, 0).mean(0)
    np.testing.assert_allclose(strategy._promise(candidates), expected, atol=0.005)


def test_a_forest_can_be_asked_too() -> None:
    late, uniform = list[float](), list[float]()
    for seed in range(4):
        strategy = Guided(Digits(4), 4, model=lambda: ForestPredictor(0, trees=20), pool=60)
        rng = np.random.default_rng(seed)
        for _ in range(8):
            asked = strategy.ask(8, rng)
            strategy.tell([measure(a) for a in asked])
            uniform += [measure(Digits(4).sample(rng)).accuracy for _ in asked]
        late += [c.accuracy for c in list(strategy.archive.measured.values())[-24:]]
    assert ttest_ind(late, uniform, alternative="greater").pvalue < 0.01
