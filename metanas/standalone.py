"""One network on one ordinary classification task: split, train, answer.

No episodes and no shared weights: this is what the word "trained" means outside of meta-learning, and so what searches
and rankings are checked against.
"""

import math
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.errors import MetanasError
from metanas.learner import Precision
from metanas.seeding import stream, torch_stream
from metanas.spaces.norm import record_statistics
from metanas.spaces.space import Features
from metanas.supernet import channels_last
from tasks.augment import augmentation
from tasks.task import Task

FOLDS = 5
"""A fifth of a task is for testing, a fifth for validation."""
CLIP = 5.0
"""The longest gradient of a step, as in DARTS (Liu et al. 2019, appendix A.1)."""
REFERENCE = 256
"""Training images whose statistics normalise the answers."""
CHUNK = 256
"""Images answered at once."""


@dataclass(frozen=True)
class Samples:
    """Labelled images: inputs (N, C, H, W) in [0, 1], labels (N,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Samples":
        """The samples at these positions."""
        index = torch.from_numpy(rows)
        return Samples(self.inputs[index], self.labels[index])


@dataclass(frozen=True)
class Classification:
    """A task of `classes` classes in three parts: to train on, to choose by, and to report."""

    train: Samples
    validation: Samples
    test: Samples
    classes: int


def split(task: Task, seed: int) -> Classification:
    """Three, one and one fifths of an image task, each with its share of every class.

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
    kind = StratifiedKFold if task.groups is None else StratifiedGroupKFold
    folds = kind(FOLDS, shuffle=True, random_state=int(stream(seed, "split").integers(2**31)))
    fifths = [rows for _, rows in folds.split(groups, task.labels, task.groups)]

    def part(*chosen: np.ndarray) -> Samples:
        rows = np.sort(np.concatenate(chosen))
        inputs = torch.from_numpy(task.read(rows).astype(np.float32) / 255)
        return Samples(inputs, torch.from_numpy(task.labels[rows].astype(np.int64)))

    return Classification(part(*fifths[2:]), part(fifths[1]), part(fifths[0]), len(task.classes))


class Classifier(nn.Module):
    """Features and a linear head: `forward(inputs, reference)` maps (N, C, H, W) to logits (N, classes)."""

    def __init__(self, features: Features, head: nn.Linear) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        logits: Tensor = self.head(self.features(inputs, reference))
        return logits


@dataclass(frozen=True)
class Training:
    """How a network is trained: SGD with momentum or AdamW, the rate falling to zero by a cosine.

    `augment` names an augmentation of `tasks/augment.py`. bfloat16 pays for wide convolutions; narrow cells are faster
    in float32.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epochs: int = 20
    batch: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.05
    decay: float = 3e-4
    augment: str | None = None
    precision: Precision = "float32"


@dataclass(frozen=True)
class Trained:
    """A trained network with its accuracies and the seconds that its training took."""

    network: Classifier
    validation: float
    test: float
    seconds: float


def train_alone(network: Features, task: Classification, training: Training, seed: int) -> Trained:
    """Trains `network`, in place and from the weights it has, and a fresh head; a function of the seed."""
    started = time.perf_counter()
    classifier = with_head(network, task, seed)
    fit(classifier, task.train, training, seed)
    seconds = time.perf_counter() - started
    reference = reference_images(task.train, seed)
    validation, test = (
        accuracy(classifier, part, reference, training.precision) for part in (task.validation, task.test)
    )
    return Trained(classifier, validation, test, seconds)


def with_head(network: Features, task: Classification, seed: int) -> Classifier:
    """The network with a freshly drawn head for the classes of the task."""
    with torch.no_grad():
        width = network(task.train.inputs[:1], 1).shape[1]
    head = nn.Linear(width, task.classes)
    with torch.no_grad():
        head.weight.normal_(0, 1 / math.sqrt(width), generator=torch_stream(seed, "head"))
        head.bias.zero_()
    return Classifier(network, head)


def fit(
    classifier: Classifier,
    samples: Samples,
    training: Training,
    seed: int,
    parameters: list[nn.Parameter] | None = None,
) -> None:
    """Trains `parameters` (None for all), the others stay as they are. Each batch is its own reference."""
    learned = list(classifier.parameters()) if parameters is None else parameters
    classifier.requires_grad_(False).to(memory_format=torch.channels_last)
    for parameter in learned:
        parameter.requires_grad_()
    if training.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            learned, training.rate, momentum=0.9, weight_decay=training.decay
        )
    else:
        optimizer = torch.optim.AdamW(learned, training.rate, weight_decay=training.decay)
    steps = training.epochs * batches_of(len(samples), training.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    augment = augmentation(training.augment) if training.augment else None
    generator = torch_stream(seed, "augmentation")
    for step in range(steps):
        batch = draw_batch(samples, training.batch, step, seed, "batches")
        inputs = batch.inputs if augment is None else augment(batch.inputs, generator)
        loss = F.cross_entropy(_logits(classifier, inputs, len(inputs), training.precision), batch.labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(learned, CLIP)
        optimizer.step()
        schedule.step()


def batches_of(count: int, batch: int) -> int:
    """How many batches an epoch has: whole ones, or a single smaller one."""
    return max(1, count // batch)


def draw_batch(samples: Samples, batch: int, step: int, seed: int, name: str) -> Samples:
    """The batch of a step: a function of seed and name; within an epoch no sample comes twice."""
    epoch, position = divmod(step, batches_of(len(samples), batch))
    order = stream(seed, name, epoch).permutation(len(samples))
    return samples.take(order[position * batch : (position + 1) * batch])


def reference_images(samples: Samples, seed: int) -> Tensor:
    """Some of the training images (R, C, H, W), to normalise answers by."""
    return draw_batch(samples, REFERENCE, 0, seed, "reference").inputs


@torch.no_grad()
def accuracy(classifier: Classifier, samples: Samples, reference: Tensor, precision: Precision = "float32") -> float:
    """The fraction answered rightly, each sample on its own: statistics come from the reference images alone."""
    record_statistics(classifier, True)
    _logits(classifier, reference, len(reference), precision)
    record_statistics(classifier, False)
    answers = [_logits(classifier, inputs, 0, precision).argmax(1) for inputs in torch.split(samples.inputs, CHUNK)]
    return float((torch.cat(answers) == samples.labels).float().mean())


def _logits(classifier: Classifier, inputs: Tensor, reference: int, precision: Precision) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits: Tensor = classifier(channels_last(inputs), reference)
    return logits.to(torch.float32) if logits.dtype == torch.bfloat16 else logits
