"""scikit-learn's Gaussian process with its length scale and noise taken from a grid."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

SCALES = (0.5, 1.0, 2.0, 4.0)
"""Length scales tried, in units of the median distance between training rows."""
NOISES = (0.01, 0.05, 0.2, 0.5)
"""Parts of the targets' variance tried as noise."""


class GaussianProcess:
    """Regression with a squared-exponential kernel (Rasmussen and Williams 2006, algorithm 2.1 and section 5.4.1).

    Of a small grid of length scales and noises the most likely is taken, in place of the usual gradient ascent: a fit
    is quick and cannot fail to converge. Columns count as they are: those that vary more matter more.
    """

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1."""
        between = pdist(features)
        unit = (float(np.median(between)) if len(between) else 0.0) or 1.0
        grid = [np.log([1 - noise, scale * unit, noise]) for scale in SCALES for noise in NOISES]

        def likeliest(loss: Callable[..., Any], start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
            losses = [loss(point, eval_gradient=False) for point in grid]
            return grid[int(np.argmin(losses))], min(losses)

        kernel = ConstantKernel() * RBF() + WhiteKernel()
        self._process = GaussianProcessRegressor(kernel, alpha=0, optimizer=likeliest, normalize_y=True)
        self._process.fit(features, targets)
        self._noise = self._process.kernel_.k2.noise_level * float(targets.var() or 1.0)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the noiseless function, (m,) each."""
        mean, spread = self._process.predict(features, return_std=True)
        return mean, np.sqrt(np.maximum(0.0, spread**2 - self._noise))
