"""What a predictor sees of an architecture."""

import numpy as np


def architecture_features(encodings: np.ndarray, log_costs: np.ndarray) -> np.ndarray:
    """One row an architecture: its encoding (n, E) beside the logarithms of parameters and operations (n, 2)."""
    return np.hstack([encodings, log_costs]).astype(np.float64)
