"""The tasks of one step, several at once: what pays on a GPU, which one small network leaves idle."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from metanas.api import Architecture
from metanas.learning.learner import Learner
from metanas.learning.outer import Part
from metanas.learning.problems import EpisodeData

ROOM = 0.7
"""The share of the free memory that a batch of tasks may take."""

Scores = tuple[float, float]
"""Of a task: loss and accuracy beside a gradient, accuracy and loss of an evaluation."""
Work = Callable[[Architecture, Sequence[EpisodeData]], list[Scores]]
R = TypeVar("R")


class TaskBatches:
    """Tasks of one architecture and shape together, as many at once as the device's memory holds."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._at_once: dict[Hashable, int] = {}  # by kind of work, architecture and shape

    def gradients(
        self, architectures: Sequence[Architecture], episodes: Sequence[EpisodeData]
    ) -> tuple[list[Part], list[Scores]]:
        """A part for every batch; loss and accuracy of every task, in the order that they were given in."""
        parts: list[Part] = []

        def gradients(architecture: Architecture, some: Sequence[EpisodeData]) -> list[Scores]:
            found, scores = self.learner.gradients(architecture, some)
            parts.append(Part.of(architecture, found, len(some)))
            return scores

        scores = self._in_batches("gradients", gradients, architectures, episodes)
        return parts, scores

    def evaluations(self, architecture: Architecture, episodes: Sequence[EpisodeData], steps: int) -> list[Scores]:
        """Accuracy and loss on every query set after `steps` inner steps."""
        return self._in_batches(
            ("evaluations", steps),
            lambda architecture, some: self.learner.evaluations(architecture, some, steps),
            [architecture] * len(episodes),
            episodes,
        )

    def _in_batches(
        self, kind: Hashable, work: Work, architectures: Sequence[Architecture], episodes: Sequence[EpisodeData]
    ) -> list[Scores]:
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for number, (architecture, episode) in enumerate(zip(architectures, episodes, strict=True)):
            shapes = episode.support_inputs.shape, episode.query_inputs.shape
            groups[kind, architecture, shapes, episode.ways].append(number)
        scores: dict[int, Scores] = {}
        for key, left in groups.items():
            while left:
                batch = left[: self._at_once.get(key, 1)]
                try:
                    own = self._batch(key, work, architectures[batch[0]], [episodes[number] for number in batch])
                except torch.cuda.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    self._at_once[key] = len(batch) // 2
                    continue
                left = left[len(batch) :]
                scores.update(zip(batch, own, strict=True))
        return [scores[number] for number in range(len(episodes))]

    def _batch(
        self, key: Hashable, work: Work, architecture: Architecture, episodes: Sequence[EpisodeData]
    ) -> list[Scores]:
        if key in self._at_once:
            return work(architecture, episodes)
        scores, self._at_once[key] = with_room(self.learner.device, lambda: work(architecture, episodes))
        return scores


def with_room(device: torch.device, one: Callable[[], R]) -> tuple[R, int]:
    """The result of work for one task, and how many tasks like it fit into the memory that was free before it."""
    torch.cuda.reset_peak_memory_stats(device)
    before, (free, _) = torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)
    # What PyTorch keeps of freed tensors is free to its next ones.
    room = ROOM * (free + torch.cuda.memory_reserved(device) - before)
    result = one()
    taken = torch.cuda.max_memory_allocated(device) - before
    return result, max(1, int(room / max(1, taken)))
