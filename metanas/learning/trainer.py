"""Meta-training: outer steps on shared weights from the gradients of several tasks."""

from collections.abc import Sequence

import numpy as np

from metanas.api import Architecture
from metanas.learning.executor import Executor
from metanas.learning.state import State
from metanas.learning.worker import TRAINING, GradientJob, OuterStep


class MetaTrainer:
    """Trains one network where the executor's workers hold it, from the weights that they have."""

    def __init__(self, network: str, executor: Executor) -> None:
        self.network = network
        self.executor = executor
        self.version = 0  # outer steps made
        self.drop_path = 0.0  # probability with which training drops a path
        self.split = TRAINING  # whose episodes it trains on

    def train(
        self, steps: Sequence[Sequence[Architecture]], first_episode: int, rate: float
    ) -> list[tuple[float, float]]:
        """Outer steps with a task for each architecture of a step, on the episodes of `split` from `first_episode` on.

        Returns the mean query loss and accuracy of every step. `rate` is Adam's learning rate.
        """
        planned, episode = [], first_episode
        for architectures in steps:
            jobs = [
                GradientJob(self.network, architecture, episode + task, self.drop_path, self.split)
                for task, architecture in enumerate(architectures)
            ]
            planned.append(OuterStep(tuple(jobs), rate))
            episode += len(jobs)
        results = self.executor.train(self.network, planned)
        self.version += len(planned)
        return [_mean(scores) for scores in results]

    def state(self) -> State:
        """Weights, meta-parameters, the optimiser's moments and the version."""
        return self.executor.state(self.network) | {"version": np.array(self.version)}

    def restore(self, state: State) -> None:
        """Continues where `state` was taken."""
        self.version = int(state["version"])
        self.executor.load(self.network, state)


def _mean(scores: Sequence[tuple[float, float]]) -> tuple[float, float]:
    losses, accuracies = zip(*scores, strict=True)
    return sum(losses) / len(scores), sum(accuracies) / len(scores)
