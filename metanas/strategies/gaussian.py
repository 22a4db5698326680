"""A Gaussian process with its length scale and noise chosen by marginal likelihood."""

from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Length scales tried, in units of the distance between one-hot encodings that differ in one gene."""
NOISES = (0.05, 0.2)
"""Variances of a measurement tried, for targets of variance 1."""


class GaussianProcess:
    """Regression with a squared-exponential kernel (Rasmussen and Williams 2006, algorithm 2.1 and section 5.4.1).

    Targets are expected to be standardised. Of a small grid of length scales and noises the most likely is taken, all
    from one matrix of distances: no gradient ascent, so a fit takes milliseconds and cannot fail to converge.
    """

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1."""
        self._features = features
        distances = cdist(features, features, "sqeuclidean")  # (n, n)
        best = -np.inf
        for scale in SCALES:
            covariance = _kernel(distances, scale)
            for noise in NOISES:
                factor = cho_factor(covariance + noise * np.eye(len(targets)), lower=True, check_finite=False)
                weights = cho_solve(factor, targets, check_finite=False)
                likelihood = -0.5 * targets @ weights - np.log(np.diag(factor[0])).sum()
                if likelihood > best:
                    best = likelihood
                    self._scale, self._factor, self._weights = scale, factor, weights
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noiseless function, (m,) each."""
        across = _kernel(cdist(features, self._features, "sqeuclidean"), self._scale)  # (m, n)
        explained = (across * cho_solve(self._factor, across.T, check_finite=False).T).sum(1)
        return across @ self._weights, np.sqrt(np.maximum(0.0, 1 - explained))


def _kernel(squared_distances: np.ndarray, scale: float) -> np.ndarray:
    # One gene of a one-hot encoding is a squared distance of 2.
    return np.asarray(np.exp(-squared_distances / (4 * scale**2)))
