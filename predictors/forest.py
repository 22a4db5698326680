"""The predictor: extremely randomised trees, with the spread of their answers."""

from typing import Self

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

TREES = 200
LEAF = 2


class ForestPredictor:
    """Mean and spread of extremely randomised trees (Geurts et al. 2006).

    Keeps the table that it learned from, `features` (n, d) and `targets` (n,): with `seed`, `trees` and the smallest
    `leaf` they make the same forest again.
    """

    def __init__(self, seed: int, trees: int = TREES, leaf: int = LEAF) -> None:
        self.seed, self.trees, self.leaf = seed, trees, leaf
        self.features = np.empty((0, 0))
        self.targets = np.empty(0)
        self._forest = ExtraTreesRegressor(trees, min_samples_leaf=leaf, random_state=seed, n_jobs=1)

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from features (n, d) and targets (n,), n at least 1, and forgets what it learned before."""
        self.features, self.targets = features, targets
        self._forest.fit(features, targets)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the trees, (n,) each."""
        single = features.astype(np.float32)  # the trees' own precision
        answers = np.stack([tree.predict(single) for tree in self._forest.estimators_])
        return answers.mean(0), answers.std(0)
