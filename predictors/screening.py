"""The predictor's life within a search: judged on what it has not seen, refitted, and trusted or set aside."""

from typing import Any

import numpy as np

from metanas.seeding import stream
from predictors.acquisition import upper_confidence
from predictors.forest import ForestPredictor
from predictors.ranking import kendall

ENOUGH = 8
"""Unseen evaluations below which a rank correlation says nothing."""
WINDOW = 32
"""The latest unseen evaluations that the rank correlation is taken over: one generation alone is too few."""


class Screen:
    """Picks the offspring worth measuring, while it can tell.

    Every `update` first asks the previous fit about architectures that it has not seen; Kendall's tau of the latest
    such answers is the measure of trust. Below `floor`, or before there are enough answers, the screen stands aside
    and lets candidates pass in their given order. While it prunes, `audit` of the places go to candidates drawn at
    random from those that it would have turned away: how they do estimates what pruning misses. A floor above 1
    switches pruning off for good.
    """

    def __init__(self, floor: float, seed: int, audit: int = 0) -> None:
        self.floor, self.seed, self.audit = floor, seed, audit
        self.predictor: ForestPredictor | None = None  # None before the first update
        self.tau: float | None = None
        self.features, self.targets = np.empty((0, 0)), np.empty(0)  # all that the predictor learned from
        self._answers = np.empty((0, 2))  # the latest (predicted, measured) of architectures then unseen
        self._updates = 0
        self._forget_choice()

    def _forget_choice(self) -> None:
        self.pruned = 0  # candidates turned away by the last choice, the audited among them
        self.winners: int | None = None  # audited candidates that measured best; None without an audit
        self._kept: set[bytes] = set()
        self._audited: set[bytes] = set()

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
        """The rows of `features` (n, d) to measure, `count` at most; the audited ones come last."""
        self._forget_choice()
        if self.predictor is None or not self.trusted or len(features) <= count:
            return list(range(min(count, len(features))))
        rng = stream(self.seed, "audit", self._updates)
        mean, spread = self.predictor.predict(features)
        audit = min(self.audit, count - 1)
        ranked = np.argsort(-upper_confidence(mean, spread), kind="stable")
        best, rest = ranked[: count - audit].tolist(), np.sort(ranked[count - audit :])
        audited = rng.choice(rest, audit, replace=False).tolist()
        self.pruned = len(rest)
        self._kept = {features[row].tobytes() for row in best}
        self._audited = {features[row].tobytes() for row in audited} - self._kept
        return [*best, *audited]

    def update(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Judges the present fit on those rows (n, d) with targets (n,) that are new to it, then learns from all."""
        if len(features) == 0:
            return
        self._updates += 1
        self._judge_audit(features, targets)
        if self.predictor is None:
            self.features, self.targets = features, targets
        else:
            seen = {row.tobytes() for row in self.features}
            new = np.array([row.tobytes() not in seen for row in features])
            if new.any():
                answers = np.column_stack([self.predictor.predict(features[new])[0], targets[new]])
                self._answers = np.vstack([self._answers, answers])[-WINDOW:]
            if len(self._answers) >= ENOUGH:
                self.tau = kendall(self._answers[:, 0], self._answers[:, 1])
            self.features = np.vstack([self.features, features])
            self.targets = np.concatenate([self.targets, targets])
        self.predictor = ForestPredictor(self.seed).fit(self.features, self.targets)

    def _judge_audit(self, features: np.ndarray, targets: np.ndarray) -> None:
        """A winner is an audited candidate that measured above all that the screen had kept."""
        rows = [row.tobytes() for row in features]
        kept = [target for row, target in zip(rows, targets, strict=True) if row in self._kept]
        audited = [target for row, target in zip(rows, targets, strict=True) if row in self._audited]
        if kept and audited:
            self.winners = sum(bool(target > max(kept)) for target in audited)

    def report(self) -> dict[str, Any]:
        """For the log: the rank correlation and on how many unseen evaluations, whether it prunes and why not.

        `pruned` candidates were turned away by the last choice; `audited` of them were measured all the same, and
        `winners` of these measured above all that were kept.
        """
        return {
            "tau": self.tau,
            "unseen": self.unseen,
            "used": self.trusted,
            "pruned": self.pruned,
            "audited": len(self._audited) if self.winners is not None else 0,
            "winners": self.winners or 0,
            "why": self._why(),
        }

    def _why(self) -> str:
        if self.tau is None:
            return f"stands aside: {self.unseen} unseen evaluations so far, {ENOUGH} are needed to judge it"
        if self.trusted:
            return f"prunes: Kendall's tau {self.tau:.2f} on {self.unseen} unseen evaluations, floor {self.floor:g}"
        return f"stands aside: Kendall's tau {self.tau:.2f} on {self.unseen} unseen evaluations, floor {self.floor:g}"
