"""What a predictor sees of an architecture."""

import numpy as np

COSTS = 2
"""The last columns of a row: the logarithms of parameters and of multiply-accumulates."""


def architecture_features(encodings: np.ndarray, log_costs: np.ndarray) -> np.ndarray:
    """One row an architecture, (n, E + 2): its encoding (n, E), then log parameters and log operations (n, 2)."""
    return np.hstack([encodings, log_costs]).astype(np.float64)
