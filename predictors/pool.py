"""A new task asks what was learned on the pool's tasks, and notices where that misleads.

What predictors of pool tasks say of an architecture is one more block of its features ("pool"), so the new task's own
evaluations decide how far to follow whom (stacking, Wolpert 1992). Pool tasks that order those evaluations badly are
left out.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from predictors.features import Layout, columns
from predictors.models import Predictor
from predictors.ranking import kendall

ENOUGH = 8
"""Own evaluations below which every pool task is believed."""
ALIKE = 0.2
"""Kendall's tau with the own evaluations from which on a pool task is believed."""


def pool_block(predictors: Sequence[Predictor], features: np.ndarray) -> np.ndarray:
    """What fitted predictors of pool tasks say of architectures (n, d): the block "pool", (n, T), standardised."""
    said = np.stack([predictor.predict(features)[0] for predictor in predictors], 1)
    standard: np.ndarray = (said - said.mean(0)) / np.maximum(said.std(0), 1e-12)
    return standard


class PoolPredictor:
    """A predictor of a new task whose features hold the block "pool".

    Before the first `fit` it answers with the mean and the spread of what the pool says. After it, `similarity` (T,) is
    Kendall's tau of every pool task with the own evaluations, and `believed` (T,) marks those that are followed; where
    none is, negative transfer was noticed and the own evaluations stand alone.
    """

    def __init__(self, make: Callable[[], Predictor], layout: Layout) -> None:
        self._make, self._pool = make, columns(layout, "pool")
        self.similarity = np.zeros(dict(layout)["pool"])
        self.believed = np.ones(dict(layout)["pool"], dtype=bool)
        self._own: Predictor | None = None

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from the new task's own evaluations: features (n, d), targets (n,)."""
        said = features[:, self._pool]
        self.similarity = np.array([kendall(task, targets) for task in said.T])
        self.believed = (self.similarity >= ALIKE) | (len(targets) < ENOUGH)
        self._own = self._make().fit(self._seen(features), targets)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread (n,)."""
        if self._own is None:
            said = features[:, self._pool]
            return said.mean(1), said.std(1)
        return self._own.predict(self._seen(features))

    def _seen(self, features: np.ndarray) -> np.ndarray:
        """The features with the believed pool tasks and their mean in place of the block, (n, d')."""
        others = np.delete(features, np.r_[self._pool], axis=1)
        said = features[:, self._pool][:, self.believed]
        return np.hstack([others, said, said.mean(1, keepdims=True)]) if self.believed.any() else others
