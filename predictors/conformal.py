"""Spreads that mean what they say: conformal calibration by cross-validation.

Every training row gets a prediction by a fit that did not see its group; the quantiles of |error| / spread then scale
the intervals (normalised scores: Papadopoulos et al. 2002; cross-conformal: Vovk 2015). Coverage holds for rows that
are exchangeable with the training rows; where tasks drift, it does not, and measured coverage says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Self

import numpy as np

from metanas.seeding import stream
from predictors.predictor import Predictor

FOLDS = 5
ONE_SIGMA = 0.6827
LEVEL = 0.9
SMALLEST = 0.05
"""Spreads count as at least this part of their mean: a spread of nothing would make a score of infinity."""


def group_folds(groups: Sequence[int] | np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """The rows (n,) of `count` folds, or of as many as there are groups; all rows of a group are in one."""
    numbers = np.asarray(groups)
    found = stream(seed, "folds").permutation(np.unique(numbers))
    return [np.flatnonzero(np.isin(numbers, part)) for part in np.array_split(found, min(count, len(found)))]


def held_out(
    make: Callable[[], Predictor], features: np.ndarray, targets: np.ndarray, *foldings: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """For every row, mean and spread (n,) of a fit that did not see its fold, of one folding or of any of several.

    NaN for a row whose folds leave nothing to learn from.
    """
    mean, spread = np.full(len(targets), np.nan), np.full(len(targets), np.nan)
    for folds in product(*foldings):
        asked = reduce(np.intersect1d, folds)
        kept = np.setdiff1d(np.arange(len(targets)), np.concatenate(folds))
        if len(asked) and len(kept):
            mean[asked], spread[asked] = make().fit(features[kept], targets[kept]).predict(features[asked])
    return mean, spread


@dataclass(frozen=True)
class Scale:
    """What spreads are worth, by held-out rows."""

    scores: np.ndarray  # (n,) in order: |error| / spread
    floor: float  # the smallest spread that counts

    @classmethod
    def of(cls, mean: np.ndarray, spread: np.ndarray, measured: np.ndarray) -> Self:
        """By what was predicted (n,), with spreads (n,), and what was measured (n,)."""
        floor = max(SMALLEST * float(spread.mean()), 1e-12)
        return cls(np.sort(np.abs(measured - mean) / np.maximum(spread, floor)), floor)

    def factor(self, level: float) -> float:
        """How many spreads make an interval that covers `level`; infinite where there were too few rows to tell."""
        rank = int(np.ceil(level * (len(self.scores) + 1)))
        return float(self.scores[rank - 1]) if rank <= len(self.scores) else float("inf")

    def half(self, spread: np.ndarray, level: float) -> np.ndarray:
        """The half widths (m,) of intervals that cover `level`, for spreads (m,)."""
        widths: np.ndarray = self.factor(level) * np.maximum(spread, self.floor)
        return widths


@dataclass
class Calibrated:
    """A predictor whose spread is a calibrated standard deviation, and whose intervals cover what they claim."""

    predictor: Predictor
    scale: Scale

    @classmethod
    def fit(
        cls,
        make: Callable[[], Predictor],
        features: np.ndarray,
        targets: np.ndarray,
        groupings: Sequence[np.ndarray],
        seed: int,
    ) -> Self:
        """Fits to all rows, features (n, d) and targets (n,), and calibrates on folds that are held out.

        Of one grouping (n,), such as by architectures, or of each of several at once: rows whose architecture and whose
        task are new.
        """
        mean, spread = held_out(make, features, targets, *(group_folds(groups, FOLDS, seed) for groups in groupings))
        told = np.flatnonzero(~np.isnan(mean))
        return cls(make().fit(features, targets), Scale.of(mean[told], spread[told], targets[told]))

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and the half width of the interval that covers one standard deviation's share, (n,) each."""
        mean, spread = self.predictor.predict(features)
        return mean, self.scale.half(spread, ONE_SIGMA)

    def interval(self, features: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends (n,) that cover `level` of measurements."""
        mean, spread = self.predictor.predict(features)
        half = self.scale.half(spread, level)
        return mean - half, mean + half


def coverage(low: np.ndarray, high: np.ndarray, measured: np.ndarray) -> float:
    """The part of measurements (n,) within their intervals."""
    return float(np.mean((low <= measured) & (measured <= high)))
