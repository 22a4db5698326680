"""The predictor's life within a search: judged on what it has not seen, refitted, and trusted or set aside."""

from typing import Any

import numpy as np

from predictors.forest import ForestPredictor
from predictors.ranking import kendall

OPTIMISM = 1.0
"""Spreads added to the mean when candidates are ranked (upper confidence bound)."""
ENOUGH = 8
"""Unseen evaluations below which a rank correlation says nothing."""
WINDOW = 32
"""The latest unseen evaluations that the rank correlation is taken over: one generation alone is too few."""


class Screen:
    """Picks the offspring worth measuring, while it can tell.

    Every `update` first asks the previous fit about architectures that it has not seen; Kendall's tau of the latest
    such answers is the measure of trust. Below `floor`, or before there are enough answers, the screen stands aside
    and lets candidates pass in their given order.
    """

    def __init__(self, floor: float, seed: int) -> None:
        self.floor, self.seed = floor, seed
        self.predictor: ForestPredictor | None = None  # None before the first update
        self.tau: float | None = None
        self.pruned = 0  # candidates turned away by the last choice
        self._answers = np.empty((0, 2))  # the latest (predicted, measured) of architectures then unseen

    @property
    def trusted(self) -> bool:
        """Whether it prunes at present."""
        return self.tau is not None and self.tau >= self.floor

    @property
    def unseen(self) -> int:
        """The evaluations behind `tau`."""
        return len(self._answers)

    def predict(self, features: np.ndarray) -> np.ndarray | None:
        """Mean predictions (n,), or None before the first fit."""
        return None if self.predictor is None else self.predictor.predict(features)[0]

    def choose(self, features: np.ndarray, count: int) -> list[int]:
        """The rows of `features` (n, d) to measure, `count` at most."""
        self.pruned = 0
        if self.predictor is None or not self.trusted:
            return list(range(min(count, len(features))))
        self.pruned = max(0, len(features) - count)
        mean, spread = self.predictor.predict(features)
        best: list[int] = np.argsort(-(mean + OPTIMISM * spread), kind="stable")[:count].tolist()
        return best

    def update(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Judges the present fit on those rows (n, d) with targets (n,) that are new to it, then learns from all."""
        if len(features) == 0:
            return
        if self.predictor is None:
            self.predictor = ForestPredictor(self.seed).fit(features, targets)
            return
        seen = {row.tobytes() for row in self.predictor.features}
        new = np.array([row.tobytes() not in seen for row in features])
        if new.any():
            answers = np.column_stack([self.predictor.predict(features[new])[0], targets[new]])
            self._answers = np.vstack([self._answers, answers])[-WINDOW:]
        if len(self._answers) >= ENOUGH:
            self.tau = kendall(self._answers[:, 0], self._answers[:, 1])
        self.predictor = ForestPredictor(self.seed).fit(
            np.vstack([self.predictor.features, features]), np.concatenate([self.predictor.targets, targets])
        )

    def report(self) -> dict[str, Any]:
        """For the log: the rank correlation, on how many unseen evaluations, and whether the predictor prunes."""
        return {"tau": self.tau, "unseen": self.unseen, "used": self.trusted, "pruned": self.pruned}
