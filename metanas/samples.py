"""Labelled samples as networks take them: a support set, or the training or validation data of one task."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tasks.episodes import as_tensor
from tasks.task import Task


@dataclass(frozen=True)
class Samples:
    """Inputs (N, C, H, W) in [0, 1], labels (N,) below `ways`."""

    inputs: Tensor
    labels: Tensor
    ways: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Samples":
        index = torch.from_numpy(rows)
        return Samples(self.inputs[index], self.labels[index], self.ways)

    def split(self, fraction: float, rng: np.random.Generator) -> tuple["Samples", "Samples"]:
        """A stratified part, `fraction` of every class but one sample at least, and the rest; both in order."""
        labels = self.labels.numpy()
        shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        part = np.sort(np.concatenate([rows[: max(1, round(fraction * len(rows)))] for rows in shuffled]))
        return self.take(part), self.take(np.setdiff1d(np.arange(len(labels)), part))


def samples_of(task: Task) -> Samples:
    """All of a task, in memory."""
    labels = torch.from_numpy(task.labels.astype(np.int64))
    return Samples(as_tensor(task.read(np.arange(len(task)))), labels, len(task.classes))
