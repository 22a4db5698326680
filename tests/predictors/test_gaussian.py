"""The Gaussian process against scikit-learn's."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from predictors.gaussian import NOISES, SCALES, GaussianProcess


@pytest.mark.parametrize("noise", [0.05, 2.0])
def test_it_is_the_most_likely_of_its_grid_as_scikit_learn_has_it(noise: float) -> None:
    rng = np.random.default_rng(0)
    features, others = 7 * rng.random((40, 5)), 7 * rng.random((15, 5))
    targets = 3 + features @ rng.standard_normal(5) + noise * rng.standard_normal(40)
    unit = np.sqrt(np.median(pdist(features, "sqeuclidean")))
    standard = (targets - targets.mean()) / targets.std()
    fits = [
        GaussianProcessRegressor(ConstantKernel(1 - part) * RBF(scale * unit), alpha=part, optimizer=None).fit(
            features, standard
        )
        for scale in SCALES
        for part in NOISES
    ]
    reference = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    mean, spread = GaussianProcess().fit(features, targets).predict(others)
    expected_mean, expected_spread = reference.predict(others, return_std=True)
    np.testing.assert_allclose(mean, targets.mean() + targets.std() * expected_mean, atol=1e-9)
    np.testing.assert_allclose(spread, targets.std() * expected_spread, atol=1e-7)


def test_the_scale_of_the_features_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    features, targets = rng.random((30, 4)), rng.random(30)
    ours, other = (GaussianProcess().fit(f * features, targets).predict(f * features) for f in (1.0, 1e3))
    np.testing.assert_allclose(ours, other, rtol=1e-6)


def test_one_row_and_equal_rows_are_enough() -> None:
    mean, spread = GaussianProcess().fit(np.ones((1, 3)), np.array([0.7])).predict(np.array([[1.0] * 3, [9.0] * 3]))
    np.testing.assert_allclose(mean, 0.7)
    assert spread[0] < spread[1]
    mean, _ = GaussianProcess().fit(np.ones((4, 3)), np.array([1.0, 2.0, 3.0, 4.0])).predict(np.ones((1, 3)))
    assert mean[0] == pytest.approx(2.5)
