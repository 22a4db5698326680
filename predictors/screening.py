"""The predictor's life within a search: judged on what it has not seen, refitted, and trusted or set aside."""

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from predictors.forest import ForestPredictor

OPTIMISM = 1.0
"""Spreads added to the mean when candidates are ranked (upper confidence bound)."""
ENOUGH = 8
"""Unseen evaluations below which a rank correlation says nothing."""


class Screen:
    """Picks the offspring worth measuring, while it can tell.

    Every `update` first asks the previous fit about evaluations it has not seen; Kendall's tau of the answers is the
    measure of trust. Below `floor`, or before there is a measure, the screen stands aside and lets candidates pass
    in their given order.
    """

    def __init__(self, floor: float, seed: int) -> None:
        self.floor, self.seed = floor, seed
        self.tau: float | None = None
        self.unseen = 0  # evaluations behind `tau`
        self.pruned = 0  # candidates turned away by the last choice
        self._features: np.ndarray | None = None
        self._targets: np.ndarray | None = None
        self._forest: ForestPredictor | None = None

    @property
    def trusted(self) -> bool:
        """Whether it prunes at present."""
        return self._forest is not None and self.tau is not None and self.tau >= self.floor

    def predict(self, features: np.ndarray) -> np.ndarray | None:
        """Mean predictions (n,), or None before the first fit."""
        return None if self._forest is None else self._forest.predict(features)[0]

    def choose(self, features: np.ndarray, count: int) -> list[int]:
        """The rows of `features` (n, d) to measure, `count` at most."""
        self.pruned = max(0, len(features) - count) if self.trusted else 0
        if not self.trusted or self._forest is None:
            return list(range(min(count, len(features))))
        mean, spread = self._forest.predict(features)
        best: list[int] = np.argsort(-(mean + OPTIMISM * spread), kind="stable")[:count].tolist()
        return best

    def update(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Judges the present fit on rows (n, d) and targets (n,) whose architectures are new to it, then refits."""
        if self._features is None or self._targets is None:
            self._features, self._targets = features, targets
        else:
            known = {row.tobytes() for row in self._features}
            new = np.array([row.tobytes() not in known for row in features])
            if self._forest is not None and new.sum() >= ENOUGH:
                tau = float(kendalltau(self._forest.predict(features[new])[0], targets[new]).statistic)
                self.tau, self.unseen = (0.0 if np.isnan(tau) else tau), int(new.sum())
            self._features = np.vstack([self._features, features])
            self._targets = np.concatenate([self._targets, targets])
        self._forest = ForestPredictor(self.seed).fit(self._features, self._targets)

    def report(self) -> dict[str, Any]:
        """For the log: the rank correlation, on how many unseen evaluations, and whether the predictor prunes."""
        return {"tau": self.tau, "unseen": self.unseen, "used": self.trusted, "pruned": self.pruned}
