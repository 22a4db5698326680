"""How promising candidates are, by what a predictor says of them. Larger is better."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.stats import norm

OPTIMISM = 1.0

Acquisition = Literal["ei", "ucb", "thompson"]
"""Names of acquisition functions."""


def upper_confidence(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Mean and `OPTIMISM` spreads (Srinivas et al. 2010)."""
    scores: np.ndarray = mean + OPTIMISM * spread
    return scores


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """The expected amount above `best` under a normal distribution (Jones et al. 1998)."""
    gain = mean - best
    z = np.divide(gain, spread, out=np.zeros_like(gain), where=spread > 0)
    scores: np.ndarray = np.where(spread > 0, gain * norm.cdf(z) + spread * norm.pdf(z), np.maximum(gain, 0.0))
    return scores


def thompson(mean: np.ndarray, spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw an architecture, independent of each other (Thompson 1933; so in White et al. 2021)."""
    return rng.normal(mean, spread)


ACQUISITIONS: dict[Acquisition, Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "ei": lambda mean, spread, best, rng: expected_improvement(mean, spread, best),
    "ucb": lambda mean, spread, best, rng: upper_confidence(mean, spread),
    "thompson": lambda mean, spread, best, rng: thompson(mean, spread, rng),
}
"""Mean (n,), spread (n,), the best measured so far and a generator -> scores (n,)."""
