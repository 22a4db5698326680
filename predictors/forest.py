"""The predictor: extremely randomised trees, with the spread of their answers."""

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

TREES = 200


class ForestPredictor:
    """Mean and spread of extremely randomised trees (Geurts et al. 2006); the same seed gives the same forest."""

    def __init__(self, seed: int) -> None:
        self._forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=seed, n_jobs=1)

    def fit(self, features: np.ndarray, targets: np.ndarray) -> "ForestPredictor":
        """Learns from features (n, d) and targets (n,)."""
        self._forest.fit(features, targets)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation over the trees, (n,) each."""
        answers = np.stack([tree.predict(features.astype(np.float32)) for tree in self._forest.estimators_])
        return answers.mean(0), answers.std(0)
