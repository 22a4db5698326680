"""Forests of trees with the spread of their answers; the extremely randomised ones are the search's predictor."""

from typing import Any, Self

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

TREES = 100
SHARE = 0.5
"""Of the columns that a split may choose from: among graph statistics and paths, half did as well as all."""


class ForestPredictor:
    """Mean and spread over `trees`: extremely randomised (Geurts et al. 2006), or `kind` RandomForestRegressor."""

    def __init__(self, seed: int, trees: int = TREES, kind: Any = ExtraTreesRegressor) -> None:
        self.seed = seed
        self._forest = kind(trees, max_features=SHARE, random_state=seed, n_jobs=1)

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1, and forgets what it learned before."""
        self._forest.fit(features, targets)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the trees, (n,) each."""
        single = features.astype(np.float32)  # the trees' own precision
        answers = np.stack([tree.predict(single) for tree in self._forest.estimators_])
        return answers.mean(0), answers.std(0)
