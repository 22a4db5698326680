"""Which of the candidates to measure next, by what a predictor says of them. Larger is better."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy.stats import norm

OPTIMISM = 1.0

Acquisition = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]
"""Mean (n,), spread (n,), the best measured so far and a generator -> scores (n,)."""


def upper_confidence(mean: np.ndarray, spread: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """Mean and `OPTIMISM` spreads (Srinivas et al. 2010)."""
    scores: np.ndarray = mean + OPTIMISM * spread
    return scores


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """The expected amount above `best` under a normal distribution (Jones et al. 1998)."""
    gain = mean - best
    z = np.divide(gain, spread, out=np.zeros_like(gain), where=spread > 0)
    scores: np.ndarray = np.where(spread > 0, gain * norm.cdf(z) + spread * norm.pdf(z), np.maximum(gain, 0.0))
    return scores


def thompson(mean: np.ndarray, spread: np.ndarray, best: float, rng: np.random.Generator) -> np.ndarray:
    """One draw an architecture, independent of each other (Thompson 1933; so in White et al. 2021)."""
    return rng.normal(mean, spread)


ACQUISITIONS: dict[str, Acquisition] = {
    "upper confidence": upper_confidence,
    "expected improvement": expected_improvement,
    "thompson": thompson,
}


def best_different(scores: np.ndarray, keys: Sequence[Hashable], count: int) -> list[int]:
    """The rows with the highest scores (n,), `count` at most, no two with the same key; ties in the given order."""
    chosen: dict[Hashable, int] = {}
    for row in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == count:
            break
        chosen.setdefault(keys[row], row)
    return list(chosen.values())
