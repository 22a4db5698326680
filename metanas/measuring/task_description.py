"""What a predictor sees of a task: numbers read off a support set, some of them by the meta-network."""

from collections.abc import Iterable

import numpy as np
import torch

from metanas.learning.learner import Learner
from metanas.learning.samples import Samples
from metanas.seeding import stream

DIMENSIONS = 4
"""Of the embedding as a predictor sees it: it learns from tens of tasks, and networks give hundreds of features."""
COLUMNS = (
    "ways",
    "shots",
    "mean",
    "spread",
    "edges",
    "channels",
    *(f"embedding {dimension}" for dimension in range(DIMENSIONS)),
    "nearest",
    "similarity",
)
"""Logarithms of ways and of shots (mean over classes); `statistics`; the embedding, projected; its largest and its mean
cosine to the embeddings of the pool's training tasks."""
SAME = 1 / 255
"""Channels that differ by no more are one and the same."""


class TaskDescriber:
    """Support sets -> `COLUMNS` of their tasks, by a meta-network and the embeddings (T, D) of its training tasks."""

    def __init__(self, learner: Learner, pool: np.ndarray) -> None:
        self.learner, self.pool = learner, pool
        # The same for every describer of embeddings of this length (Johnson and Lindenstrauss 1984).
        directions = stream(0, "task description").normal(size=(pool.shape[1], DIMENSIONS))
        self._directions = directions / DIMENSIONS**0.5

    def __call__(self, support: Samples) -> np.ndarray:
        """(d,) of one support set."""
        found = embedding(self.learner, support)
        cosines = self.pool @ found
        shots = len(support) / support.ways
        return np.array(
            [
                np.log(support.ways),
                np.log(shots),
                *statistics(support),
                *(found @ self._directions),
                cosines.max(),
                cosines.mean(),
            ]
        )

    def mean(self, supports: Iterable[Samples]) -> np.ndarray:
        """(d,) of a task that several support sets were drawn from."""
        described: np.ndarray = np.mean([self(support) for support in supports], axis=0)
        return described


def embedding(learner: Learner, support: Samples) -> np.ndarray:
    """The mean features (D,) of a support set by the space's default network, of length 1; in float32."""
    exact = Learner(learner.supernet, learner.meta, learner.inner, "float32")
    features = exact.embed(learner.supernet.space.default, support.inputs)
    mean = features.mean(0).cpu().numpy().astype(np.float64)
    return unit(mean)


def unit(vector: np.ndarray) -> np.ndarray:
    """At length 1; a vector of zeros stays one."""
    scaled: np.ndarray = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return scaled


def statistics(support: Samples) -> tuple[float, float, float, float]:
    """Of images (N, C, H, W): mean and standard deviation over all pixels; edges, the mean over them of the distance
    between neighbours (down and right); how many channels differ from the one before.
    """
    images = support.inputs
    down, right = images.diff(dim=2)[..., :-1], images.diff(dim=3)[..., :-1, :]
    edges = torch.sqrt(down.square() + right.square()).mean()
    apart = images.diff(dim=1).abs().amax((0, 2, 3)) > SAME
    return float(images.mean()), float(images.std(correction=0)), float(edges), 1.0 + int(apart.sum())
