"""The tasks of one step, several at once: what pays on a GPU, which one small network leaves idle."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from metanas.api import Architecture
from metanas.learning.learner import Learner
from metanas.learning.meta import MetaGradient
from metanas.learning.outer import Part
from metanas.learning.problems import EpisodeData

ROOM = 0.7
"""The share of the free memory that a batch of tasks may take."""

Scores = tuple[float, float]
R = TypeVar("R")


class TaskBatches:
    """Gradients of tasks of one architecture and shape together, as many at once as the device's memory holds."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._at_once: dict[Hashable, int] = {}  # by architecture and shape

    def gradients(
        self, architectures: Sequence[Architecture], episodes: Sequence[EpisodeData]
    ) -> tuple[list[Part], list[Scores]]:
        """A part for every batch; loss and accuracy of every task, in the order that they were given in."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for number, (architecture, episode) in enumerate(zip(architectures, episodes, strict=True)):
            groups[architecture, episode.support_inputs.shape, episode.query_inputs.shape, episode.ways].append(number)
        parts: list[Part] = []
        scores: dict[int, Scores] = {}
        for key, left in groups.items():
            while left:
                batch = left[: self._at_once.get(key, 1)]
                try:
                    part, own = self._batch(key, architectures[batch[0]], [episodes[number] for number in batch])
                except torch.cuda.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    self._at_once[key] = len(batch) // 2
                    continue
                left = left[len(batch) :]
                parts.append(part)
                scores.update(zip(batch, own, strict=True))
        return parts, [scores[number] for number in range(len(episodes))]

    def _batch(
        self, key: Hashable, architecture: Architecture, episodes: Sequence[EpisodeData]
    ) -> tuple[Part, list[Scores]]:
        def together() -> tuple[MetaGradient, list[Scores]]:
            return self.learner.gradients(architecture, episodes)

        if key in self._at_once:
            found, scores = together()
        else:
            (found, scores), self._at_once[key] = with_room(self.learner.device, together)
        return Part.of(architecture, found, len(episodes)), scores


def with_room(device: torch.device, one: Callable[[], R]) -> tuple[R, int]:
    """The result of work for one task, and how many tasks like it fit into the memory that was free before it."""
    torch.cuda.reset_peak_memory_stats(device)
    before, (free, _) = torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)
    # What PyTorch keeps of freed tensors is free to its next ones.
    room = ROOM * (free + torch.cuda.memory_reserved(device) - before)
    result = one()
    taken = torch.cuda.max_memory_allocated(device) - before
    return result, max(1, int(room / max(1, taken)))
