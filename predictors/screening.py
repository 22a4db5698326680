"""The predictor's life within a search: judged on what it has not seen, refitted, and trusted or set aside."""

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from metanas.seeding import stream
from predictors.acquisition import upper_confidence
from predictors.conformal import ONE_SIGMA, Scale
from predictors.forest import ForestPredictor
from predictors.ranking import kendall, nearest

ENOUGH = 8
"""Unseen evaluations below which a rank correlation says nothing."""
WINDOW = 32
"""The latest unseen evaluations that the rank correlation is taken over: one generation alone is too few."""
CHANCE = 0.01
"""The most that the p-value of a rank correlation may be: of eight numbers without any order, a quarter reach 0.2."""


class Screen:
    """Picks the offspring worth measuring, while it can tell.

    Every `update` first asks the previous fit about architectures that it has not seen; Kendall's tau of the latest
    such answers is the measure of trust, and their errors say what its spread is worth. Below `floor`, where tau may be
    chance, or before there are enough answers, the screen stands aside and lets candidates pass in their given order.
    While it prunes, `audit` of the places go to candidates drawn at random from those that it would have turned away:
    how they do estimates what pruning misses. A floor above 1 switches pruning off for good; one below 0 asks for no
    proof that tau is more than chance.
    """

    def __init__(self, floor: float, seed: int, audit: int = 0) -> None:
        self.floor, self.seed, self.audit = floor, seed, audit
        self.predictor: ForestPredictor | None = None  # None before the first update
        self.tau: float | None = None
        self.p: float | None = None  # that tau is no more than chance, one-sided
        self.features, self.targets = np.empty((0, 0)), np.empty(0)  # all that the predictor learned from
        self._answers = np.empty((0, 3))  # the latest (mean, spread, measured) of architectures then unseen
        self._updates = 0
        self._forget_choice()

    def _forget_choice(self) -> None:
        self.used, self.why = self.trusted, self._why()  # of the last choice
        self.pruned = 0  # candidates turned away by it, the audited among them
        self.audited = self.winners = 0  # of these, how many were measured, and how many of them measured best
        self._kept: set[bytes] = set()
        self._audited: set[bytes] = set()

    @property
    def trusted(self) -> bool:
        """Whether it prunes at present."""
        return self.tau is not None and self.tau >= self.floor and not self._by_chance

    @property
    def _by_chance(self) -> bool:
        return self.floor >= 0 and not (self.p is not None and self.p <= CHANCE)

    @property
    def unseen(self) -> int:
        """The evaluations behind `tau`."""
        return len(self._answers)

    def predict(self, features: np.ndarray) -> np.ndarray | None:
        """Mean predictions (n,), or None before the first fit."""
        return None if self.predictor is None else self.predictor.predict(features)[0]

    def nearest(self, features: np.ndarray) -> np.ndarray | None:
        """For each row what the nearest known one reached (n,): a baseline. None before the first fit."""
        return None if self.predictor is None else nearest(self.features, self.targets, features)

    def choose(self, features: np.ndarray, count: int) -> list[int]:
        """The rows of `features` (n, d) to measure, `count` at most; the audited ones come last."""
        self._forget_choice()
        if self.predictor is None or not self.trusted or len(features) <= count:
            return list(range(min(count, len(features))))
        rng = stream(self.seed, "audit", self._updates)
        mean, spread = self.predictor.predict(features)
        spread = Scale.of(*self._answers.T).half(spread, ONE_SIGMA)
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
                answers = np.column_stack([*self.predictor.predict(features[new]), targets[new]])
                self._answers = np.vstack([self._answers, answers])[-WINDOW:]
            if len(self._answers) >= ENOUGH:
                mean, _, measured = self._answers.T
                self.tau = kendall(mean, measured)
                self.p = float(kendalltau(mean, measured, alternative="greater").pvalue)  # NaN for a constant
            self.features = np.vstack([self.features, features])
            self.targets = np.concatenate([self.targets, targets])
        self.predictor = ForestPredictor(self.seed).fit(self.features, self.targets)

    def _judge_audit(self, features: np.ndarray, targets: np.ndarray) -> None:
        """A winner is an audited candidate that measured above all that the screen had kept."""
        rows = [row.tobytes() for row in features]
        kept = [target for row, target in zip(rows, targets, strict=True) if row in self._kept]
        audited = [target for row, target in zip(rows, targets, strict=True) if row in self._audited]
        if kept:
            self.audited, self.winners = len(audited), sum(bool(target > max(kept)) for target in audited)

    def report(self) -> dict[str, Any]:
        """For the log: the rank correlation by now, on how many unseen evaluations, and what the last choice was.

        Whether it was `used` for that, and `why` or why not; `pruned` candidates were turned away, `audited` of them
        were measured all the same, those that failed not counted, and `winners` of these measured above all that were
        kept.
        """
        return {
            "tau": self.tau,
            "unseen": self.unseen,
            "used": self.used,
            "pruned": self.pruned,
            "audited": self.audited,
            "winners": self.winners,
            "why": self.why,
        }

    def _why(self) -> str:
        if self.tau is None:
            return f"stands aside: {self.unseen} unseen evaluations so far, {ENOUGH} are needed to judge it"
        what = "prunes" if self.trusted else "stands aside"
        why = f"{what}: Kendall's tau {self.tau:.2f} on {self.unseen} unseen evaluations, floor {self.floor:g}"
        if self.tau >= self.floor and self._by_chance:
            why += f", which may be chance (p={self.p:.2g}, {CHANCE:g} is asked for)"
        return why
