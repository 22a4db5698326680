"""A Gaussian process with its length scale and noise chosen by marginal likelihood."""

from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist, pdist

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Length scales tried, in units of the median distance between training rows."""
NOISES = (0.01, 0.05, 0.2, 0.5)
"""Parts of the targets' variance tried as noise."""


class GaussianProcess:
    """Regression with a squared-exponential kernel (Rasmussen and Williams 2006, algorithm 2.1 and section 5.4.1).

    Of a small grid of length scales and noises the most likely is taken, all from one matrix of distances: no gradient
    ascent, so a fit takes milliseconds and cannot fail to converge. Columns count as they are: those that vary more
    matter more.
    """

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1."""
        self._features = features
        self._centre, self._spread = float(targets.mean()), float(targets.std()) or 1.0
        scaled = (targets - self._centre) / self._spread
        between = pdist(features, "sqeuclidean")
        self._unit = (float(np.median(between)) if len(between) else 0.0) or 1.0
        distances = self._distances(features)  # (n, n)
        best = -np.inf
        for scale in SCALES:
            kernel = _kernel(distances, scale)
            for noise in NOISES:
                covariance = (1 - noise) * kernel + noise * np.eye(len(targets))
                factor = cho_factor(covariance, lower=True, check_finite=False)
                weights = cho_solve(factor, scaled, check_finite=False)
                likelihood = -0.5 * scaled @ weights - np.log(np.diag(factor[0])).sum()
                if likelihood > best:
                    best = likelihood
                    self._scale, self._noise, self._factor, self._weights = scale, noise, factor, weights
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noiseless function, (m,) each."""
        across = (1 - self._noise) * _kernel(self._distances(features), self._scale)  # (m, n)
        explained = (across * cho_solve(self._factor, across.T, check_finite=False).T).sum(1)
        spread = np.sqrt(np.maximum(0.0, 1 - self._noise - explained))
        return self._centre + self._spread * (across @ self._weights), self._spread * spread

    def _distances(self, features: np.ndarray) -> np.ndarray:
        """Squared, of rows (m, d) from the training rows, (m, n)."""
        return np.asarray(cdist(features, self._features, "sqeuclidean")) / self._unit


def _kernel(squared_distances: np.ndarray, scale: float) -> np.ndarray:
    return np.asarray(np.exp(-squared_distances / (2 * scale**2)))
