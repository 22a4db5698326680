"""A new task asks the predictors of the pool's tasks, and believes each as far as it orders the task's own evaluations.

The ranking-weighted ensemble of Feurer et al. 2018 ("Scalable meta-learning for Bayesian optimization", section 4): a
member's weight is how often it orders best when the own evaluations are drawn again. The new task's own model, which
has to order evaluations that it has not seen, is one of the members, so a pool that misleads loses its say.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from metanas.seeding import stream
from predictors.conformal import FOLDS, group_folds, held_out
from predictors.predictor import Predictor

ENOUGH = 5
"""Own evaluations below which all pool tasks are believed alike."""
DRAWS = 500


class PoolPredictor:
    """A predictor of a new task that asks `sources`, the fitted predictors of T pool tasks, too.

    `weights` (T + 1,) sum to 1: those of the sources, then that of the model which `make` gives, fitted to the new
    task's own evaluations. Before the first `fit` the sources alone answer. Everybody's targets are on one scale, that
    of `ranking.normal_scores`.
    """

    def __init__(self, make: Callable[[], Predictor], sources: Sequence[Predictor], seed: int) -> None:
        self._make, self._seed, self._sources = make, seed, tuple(sources)
        self._members = self._sources
        self.weights = _evenly(len(self._sources))

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        """Learns from the new task's own evaluations: features (n, d), targets (n,)."""
        self._members = (*self._sources, self._make().fit(features, targets))
        self.weights = _evenly(len(self._sources))
        if len(targets) >= ENOUGH:
            folds = group_folds(np.arange(len(targets)), FOLDS, self._seed)
            own, _ = held_out(self._make, features, targets, folds)
            said = np.stack([*(source.predict(features)[0] for source in self._sources), own])
            self.weights = ranking_weights(said, targets, stream(self._seed, "pool"))
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread (n,) of the mixture: what members are unsure of, and what they disagree about."""
        heard = [(weight, member) for weight, member in zip(self.weights, self._members, strict=False) if weight > 0]
        weights = np.array([weight for weight, _ in heard])
        means, spreads = np.stack([member.predict(features) for _, member in heard], axis=1)  # (T', n) each
        mean = weights @ means
        return mean, np.sqrt(weights @ (spreads**2 + (means - mean) ** 2))


def _evenly(sources: int) -> np.ndarray:
    return np.append(np.full(sources, 1 / sources), 0.0)


def ranking_weights(said: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often (M,) each of the members, who said (M, n), puts the fewest pairs of targets (n,) in the wrong order.

    Over bootstrap draws of the n rows; members that do equally well share.
    """
    rows = len(targets)
    wrong = (said[:, :, None] < said[:, None, :]) != (targets[:, None] < targets[None])  # (M, n, n)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=DRAWS).astype(np.float64)
    losses = np.einsum("di,mij,dj->dm", counts, wrong.astype(np.float64), counts, optimize=True)
    best = losses == losses.min(1, keepdims=True)
    weights: np.ndarray = (best / best.sum(1, keepdims=True)).mean(0)
    return weights
