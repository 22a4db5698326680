"""Labelled samples as networks take them: a support set, or the parts of one ordinary task."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from metanas.errors import MetanasError
from metanas.learning.problems import EpisodeData
from metanas.seeding import stream
from tasks.episodes import as_tensor
from tasks.task import Task

FOLDS = 5
"""A fifth of a task is for testing, a fifth for validation."""


@dataclass(frozen=True)
class Samples:
    """Inputs (N, C, H, W) in [0, 1], labels (N,) below `ways`."""

    inputs: Tensor
    labels: Tensor
    ways: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Samples":
        """The samples at these positions."""
        index = torch.from_numpy(rows)
        return Samples(self.inputs[index], self.labels[index], self.ways)

    def split(self, fraction: float, rng: np.random.Generator) -> tuple["Samples", "Samples"]:
        """A stratified part, `fraction` of every class but one sample at least, and the rest; both in order."""
        labels = self.labels.numpy()
        shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        part = np.sort(np.concatenate([rows[: max(1, round(fraction * len(rows)))] for rows in shuffled]))
        return self.take(part), self.take(np.setdiff1d(np.arange(len(labels)), part))


@dataclass(frozen=True)
class Classification:
    """A task in three parts: to train on, to choose by, and to report."""

    train: Samples
    validation: Samples
    test: Samples


def samples_of(task: Task, rows: np.ndarray | None = None) -> Samples:
    """The samples of a task at `rows`, all by default, in memory."""
    rows = np.arange(len(task)) if rows is None else rows
    labels = torch.from_numpy(task.labels[rows].astype(np.int64))
    return Samples(as_tensor(task.read(rows)), labels, len(task.classes))


def support_of(episode: EpisodeData) -> Samples:
    """The labelled samples that an episode is learned from."""
    return Samples(episode.support_inputs, episode.support_labels, episode.ways)


def split_task(task: Task, seed: int) -> Classification:
    """Three, one and one fifths of a task, each with its share of every class.

    A group lies in one part alone. Raises MetanasError for a class of fewer samples, or groups, than there are fifths.
    """
    groups = np.arange(len(task)) if task.groups is None else task.groups
    for label, name in enumerate(task.classes):
        count = len(np.unique(groups[task.labels == label]))
        if count < FOLDS:
            kind = "samples" if task.groups is None else "groups"
            raise MetanasError(
                f"class '{name}' of the task '{task.name}' has {count} {kind}, and a split into training, validation "
                f"and test needs {FOLDS}; leave the class out, or add to it."
            )
    splitter = StratifiedKFold if task.groups is None else StratifiedGroupKFold
    folds = splitter(FOLDS, shuffle=True, random_state=int(stream(seed, "split").integers(2**31)))
    test, validation, *rest = [rows for _, rows in folds.split(groups, task.labels, task.groups)]
    train = np.sort(np.concatenate(rest))
    return Classification(samples_of(task, train), samples_of(task, validation), samples_of(task, test))


def batches_of(count: int, batch: int) -> int:
    """How many batches of at most `batch` samples an epoch has."""
    return math.ceil(count / batch)


def draw_batch(samples: Samples, batch: int, step: int, seed: int, name: str) -> Samples:
    """The batch of a step: a function of seed and name. Each epoch has every sample once, in batches of even size."""
    batches = batches_of(len(samples), batch)
    epoch, position = divmod(step, batches)
    order = stream(seed, name, epoch).permutation(len(samples))
    return samples.take(np.array_split(order, batches)[position])
