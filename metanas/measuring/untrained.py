"""What zero-cost scores tell a predictor: architectures to rows of numbers, each computed once."""

from collections.abc import Sequence

import numpy as np

from metanas.api import Architecture
from metanas.learning.samples import Samples
from metanas.measuring.measures import Estimator, ZeroCost
from metanas.spaces.space import Space


class UntrainedScores:
    """The scores of those names, of the network at random weights on one batch; fixed by `seed` and `batch`.

    They spread over orders of magnitude, so what is told is log(1 + score); a score below 0 counts as 0.
    """

    def __init__(self, space: Space, batch: Samples, names: Sequence[str], seed: int) -> None:
        self._measures = [ZeroCost(Estimator(name, batch=len(batch)), space, batch, seed) for name in names]
        self._known: dict[Architecture, np.ndarray] = {}

    def __call__(self, architecture: Architecture) -> np.ndarray:
        """(k,), in the order of the names."""
        if architecture not in self._known:
            scores = [measure(architecture) for measure in self._measures]
            self._known[architecture] = np.log1p(np.maximum(scores, 0.0))
        return self._known[architecture]
