"""How well predictions order what was measured."""

import numpy as np
from scipy.stats import kendalltau


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Kendall's tau-b of two rankings (n,), in [-1, 1]; 0 where either is constant and so orders nothing."""
    tau = float(kendalltau(predicted, measured).statistic)
    return 0.0 if np.isnan(tau) else tau
