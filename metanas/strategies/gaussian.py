"""A Gaussian process with its length scale and noise chosen by marginal likelihood."""

from itertools import product
from typing import Self

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Length scales tried, in units of the distance between encodings that differ in one gene."""
NOISES = (0.03, 0.1, 0.3)
"""Variances of a measurement tried, for targets of variance 1."""


class GaussianProcess:
    """Regression with a squared-exponential kernel (Rasmussen and Williams 2006, algorithm 2.1 and section 5.4.1).

    Targets are expected to be standardised. Of a small grid of length scales and noises the most likely is taken: no
    gradient ascent, so a fit takes milliseconds and cannot fail to converge.
    """

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1."""
        fits = [
            GaussianProcessRegressor(RBF(scale * np.sqrt(2), "fixed"), alpha=noise, optimizer=None).fit(
                features, targets
            )
            for scale, noise in product(SCALES, NOISES)
        ]
        self._process = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noiseless function, (n,) each."""
        mean, spread = self._process.predict(features, return_std=True)
        return mean, spread
