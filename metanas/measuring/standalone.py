"""Training one network on one task, from scratch or from inherited weights.

No episodes and no shared weights: this is what the word "trained" means outside of meta-learning, and so what searches
and rankings are judged by in the end.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.learner import Precision
from metanas.learning.samples import Samples, batches_of, draw_batch
from metanas.learning.supernet import SuperNet, channels_last
from metanas.parsing import STRICT
from metanas.seeding import torch_stream
from metanas.spaces.norm import record_statistics
from metanas.spaces.ops import scheduled_drop_path
from metanas.spaces.space import Family, Features
from tasks.augment import augmentation

CLIP = 5.0
"""The longest gradient of a step, as in DARTS (Liu et al. 2019, appendix A.1)."""
MOMENTUM = 0.9
REFERENCE = 256
"""Training samples whose statistics a trained network normalises with."""
CHUNK = 256
"""Samples that are answered at a time."""


class Classifier(nn.Module):
    """Features and a linear layer: `forward(inputs, reference)` maps (N, C, H, W) to float32 logits (N, K).

    The first `reference` rows give the batch statistics, all of them by default; with 0 those last recorded do
    (`settle`). It computes in `precision`, which is that of its last training.
    """

    def __init__(self, features: Features, head: nn.Linear) -> None:
        super().__init__()
        self.features, self.head = features, head
        self.precision: Precision = "float32"

    def forward(self, inputs: Tensor, reference: int | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = self.features(channels_last(inputs), len(inputs) if reference is None else reference)
            logits: Tensor = self.head(features)
        return logits.to(torch.float32) if logits.dtype == torch.bfloat16 else logits


@dataclass(frozen=True)
class Training:
    """How a network is trained: AdamW, or SGD with momentum, for `epochs` in batches of at most `batch`.

    The rate rises over a tenth of the steps to `rate` and falls by a cosine to zero. `augment` names an augmentation of
    `tasks/augment.py`. The probability of dropping a path rises to `drop_path` (ScheduledDropPath, Zoph et al. 2018).
    With `patience`, training stops once that many epochs have brought no better validation accuracy. bfloat16 pays for
    wide convolutions; narrow cells are faster in float32.
    """

    __pydantic_config__: ClassVar = STRICT

    epochs: int = 20
    batch: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    rate: NonNegativeFloat = 4e-3
    weight_decay: NonNegativeFloat = 0.01
    augment: str | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patience: PositiveInt | None = None
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1:
            raise MetanasError(
                f"training.epochs and training.batch must be at least 1, but are {self.epochs} and {self.batch}."
            )
        if self.augment is not None:
            augmentation(self.augment)  # says which there are


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
    features = SuperNet(family, weights).extract(architecture)
    with torch.no_grad():
        dimensions = features(torch.zeros(1, family.channels, size, size), 1).shape[1]
    network = Classifier(features, make_head(dimensions, ways, generator))
    return network.to(memory_format=torch.channels_last)


def make_head(dimensions: int, ways: int, generator: torch.Generator) -> nn.Linear:
    """A freshly drawn linear layer whose outputs are as large as its inputs."""
    head = nn.Linear(dimensions, ways)
    nn.init.normal_(head.weight, 0, dimensions**-0.5, generator=generator)
    nn.init.zeros_(head.bias)
    return head


def train_alone(
    network: Classifier,
    train: Samples,
    validation: Samples,
    training: Training = Training(),
    seed: int = 0,
    parameters: Sequence[nn.Parameter] | None = None,
) -> list[float]:
    """Trains `parameters` of `network`, all by default, in place; the accuracy on `validation` after every epoch.

    Afterwards the network answers one image at a time with `network(inputs, 0)`, by recorded statistics of the training
    data. A function of its arguments on one machine with one number of threads. Raises ArithmeticError when the loss
    is no longer a number.
    """
    for name, part in (("training", train), ("validation", validation)):
        if len(part) == 0:
            raise MetanasError(f"there are no {name} samples to train alone with; give some of every class.")
    learned = list(network.parameters() if parameters is None else parameters)
    network.precision = training.precision
    batches = batches_of(len(train), training.batch)
    steps = training.epochs * batches
    optimizer = make_optimizer(learned, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, steps))
    augment = augmentation(training.augment) if training.augment else None
    generator = torch_stream(seed, "alone", "noise")
    accuracies: list[float] = []
    for epoch in range(training.epochs):
        network.train()
        for step in range(epoch * batches, (epoch + 1) * batches):
            batch = draw_batch(train, training.batch, step, seed, "alone batches")
            inputs = batch.inputs if augment is None else augment(batch.inputs, generator)
            network.features.drop_path = scheduled_drop_path(training.drop_path, step, steps)
            network.features.generator = generator
            loss = F.cross_entropy(network(inputs), batch.labels)
            if not loss.isfinite():
                raise ArithmeticError(f"the loss is {loss.item()} in epoch {epoch + 1}: the weights have diverged")
            optimizer.zero_grad()
            torch.autograd.backward(loss, inputs=learned)
            nn.utils.clip_grad_norm_(learned, CLIP)
            optimizer.step()
            schedule.step()
        network.features.drop_path, network.features.generator = 0.0, None
        settle(network, train)
        accuracies.append(accuracy(network, validation))
        best = max(range(len(accuracies)), key=accuracies.__getitem__)
        if training.patience is not None and epoch - best >= training.patience:
            break
    return accuracies


def make_optimizer(parameters: Sequence[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """As the training says, at its full rate."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.rate, momentum=MOMENTUM, weight_decay=training.weight_decay)
    return torch.optim.AdamW(parameters, training.rate, weight_decay=training.weight_decay)


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
    """The fraction of samples that are answered right, each by itself, with the statistics last recorded."""
    network.eval()
    right = 0
    for start in range(0, len(samples), CHUNK):
        part = slice(start, start + CHUNK)
        right += int((network(samples.inputs[part], 0).argmax(1) == samples.labels[part]).sum())
    return right / len(samples)
