"""What every model promises."""

from typing import Protocol, Self

import numpy as np


class Predictor(Protocol):
    """Learns from features (n, d) and targets (n,), and answers with means and spreads (m,) for features (m, d)."""

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Forgets what it learned before; n is at least 1."""

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what is to be expected."""
