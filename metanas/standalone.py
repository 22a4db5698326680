"""Training one network on one task, from scratch or from inherited weights: what search is judged by in the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.samples import Samples
from metanas.seeding import torch_stream
from metanas.spaces.norm import record_statistics
from metanas.spaces.ops import scheduled_drop_path
from metanas.spaces.space import Family, Features
from metanas.supernet import SuperNet, channels_last
from tasks.augment import augmentation

REFERENCE = 256
"""Training samples whose statistics a trained network normalises with."""
CHUNK = 256
"""Samples that are answered at a time."""


class Classifier(nn.Module):
    """Features and a linear layer: `forward(inputs, reference)` maps (N, C, H, W) to logits (N, K).

    The first `reference` rows give the batch statistics, all of them by default; with 0 those last recorded do.
    """

    def __init__(self, features: Features, dimensions: int, ways: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(dimensions, ways)

    def forward(self, inputs: Tensor, reference: int | None = None) -> Tensor:
        features = self.features(channels_last(inputs), len(inputs) if reference is None else reference)
        logits: Tensor = self.head(features)
        return logits


@dataclass(frozen=True)
class Training:
    """AdamW with a rate that rises over a tenth of the steps to `rate` and falls by a cosine to zero.

    `augment` names an augmentation of the training images. The probability of dropping a path rises to `drop_path`
    (ScheduledDropPath, Zoph et al. 2018). With `patience`, training stops once that many epochs have brought no better
    validation accuracy.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epochs: int = 20
    batch: int = 64
    rate: float = 4e-3
    weight_decay: float = 0.01
    augment: str | None = None
    drop_path: float = 0.0
    patience: int | None = None


def make_classifier(
    family: Family,
    architecture: Architecture,
    ways: int,
    size: int,
    seed: int,
    shared: Mapping[str, Tensor] | None = None,
) -> Classifier:
    """The network of an architecture for `size` x `size` images, with weights that are a function of the seed.

    With `shared`, the weights of a SuperNet of this family, the features start from those (warm start).
    """
    generator = torch_stream(seed, "alone")
    weights = family.initial_weights(generator) if shared is None else dict(shared)
    features = SuperNet(family, weights).extract(architecture).to(memory_format=torch.channels_last)
    with torch.no_grad():
        dimensions = features(torch.zeros(1, family.channels, size, size), 1).shape[1]
    classifier = Classifier(features, dimensions, ways)
    nn.init.normal_(classifier.head.weight, 0, dimensions**-0.5, generator=generator)
    nn.init.zeros_(classifier.head.bias)
    return classifier


def train_alone(
    network: Classifier, train: Samples, validation: Samples, training: Training = Training(), seed: int = 0
) -> list[float]:
    """Trains `network` in place; the accuracy on `validation` after every epoch.

    Afterwards the network answers one image at a time with `network(inputs, 0)`, by recorded statistics of the training
    data. A function of its arguments on one machine with one number of threads. Raises ArithmeticError when the loss
    is no longer a number.
    """
    for name, part in (("training", train), ("validation", validation)):
        if len(part) == 0:
            raise MetanasError(f"there are no {name} samples to train alone with; give some of every class.")
    generator = torch_stream(seed, "alone", "batches")
    augment = augmentation(training.augment) if training.augment else None
    batches = math.ceil(len(train) / training.batch)
    steps = training.epochs * batches
    optimizer = torch.optim.AdamW(network.parameters(), training.rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps))
    accuracies: list[float] = []
    for epoch in range(training.epochs):
        network.train()
        for batch, rows in enumerate(torch.randperm(len(train), generator=generator).tensor_split(batches)):
            inputs = train.inputs[rows] if augment is None else augment(train.inputs[rows], generator)
            network.features.drop_path = scheduled_drop_path(training.drop_path, epoch * batches + batch, steps)
            network.features.generator = generator
            loss = F.cross_entropy(network(inputs), train.labels[rows])
            if not loss.isfinite():
                raise ArithmeticError(f"the loss is {loss.item()} in epoch {epoch + 1}: the weights have diverged")
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        network.features.drop_path, network.features.generator = 0.0, None
        settle(network, train)
        accuracies.append(accuracy(network, validation))
        best = max(range(len(accuracies)), key=accuracies.__getitem__)
        if training.patience is not None and epoch - best >= training.patience:
            break
    return accuracies


def rate_share(step: int, steps: int) -> float:
    """The part of the full rate at a step, counted from 0."""
    rising = max(1, steps // 10)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@torch.no_grad()
def settle(network: Classifier, train: Samples) -> None:
    """Records the statistics of some training samples, for answers to single images."""
    network.eval()
    rows = torch.linspace(0, len(train) - 1, min(REFERENCE, len(train))).long()
    record_statistics(network, True)
    network(train.inputs[rows])
    record_statistics(network, False)


@torch.no_grad()
def accuracy(network: Classifier, samples: Samples) -> float:
    """The fraction of samples that are answered right, each by itself."""
    network.eval()
    right = 0
    for start in range(0, len(samples), CHUNK):
        part = slice(start, start + CHUNK)
        right += int((network(samples.inputs[part], 0).argmax(1) == samples.labels[part]).sum())
    return right / len(samples)
