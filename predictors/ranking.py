"""How well predictions order what was measured. Larger is better throughout."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, norm, rankdata

TOP = 0.1
"""The share of architectures that counts as the top."""


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's tau-b of two rankings (n,), in [-1, 1]; 0 where either is constant and so orders nothing."""
    tau = float(kendalltau(predicted, measured).statistic)
    return 0.0 if np.isnan(tau) else tau


def top_recall(predicted: np.ndarray, measured: np.ndarray, share: float = TOP) -> float:
    """The part of the best `share` of n (one at least) by measurement that are so by prediction, too."""
    count = max(1, round(share * len(measured)))
    best = np.argsort(-measured, kind="stable")[:count]
    return len(np.intersect1d(best, np.argsort(-predicted, kind="stable")[:count])) / count


def regret(predicted: np.ndarray, measured: np.ndarray) -> float:
    """What the architecture predicted best measures below the best there is, in the units of `measured`."""
    return float(measured.max() - measured[int(np.argmax(predicted))])


@dataclass(frozen=True)
class Quality:
    """Rank correlation, the share of the top that was found, and the regret of the first choice."""

    tau: float
    recall: float
    regret: float


def quality(predicted: np.ndarray, measured: np.ndarray) -> Quality:
    """All three, of predictions (n,) for measurements (n,)."""
    return Quality(kendall(predicted, measured), top_recall(predicted, measured), regret(predicted, measured))


def normal_scores(targets: np.ndarray) -> np.ndarray:
    """Targets (n,) by rank, as quantiles of the normal distribution (Blom 1958): for skewed targets."""
    scores: np.ndarray = norm.ppf((rankdata(targets) - 0.5) / max(1, len(targets)))
    return scores
