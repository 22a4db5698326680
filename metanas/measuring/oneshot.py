"""Shared weights on an ordinary classification task: one SuperNet with a head, trained path by path.

The accuracy of an architecture with its part of the shared weights estimates what it would reach alone (Bender et al.
2018; single paths as in Guo et al. 2020). Uniformly random paths alone train badly on a small budget, so the default
network goes first and stays among the paths (`draw_paths`).

Architectures that give the same number of features share one head. Where a space has several numbers, each has a head
of its own, for the same column need not mean the same (of a map that is flattened, and of one that is averaged).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.inner import HEAD, Weights, apply_head
from metanas.learning.learner import Inner, Learner
from metanas.learning.outer import OuterOptimizer, Part
from metanas.learning.samples import Classification, Samples, draw_batch
from metanas.learning.state import State
from metanas.learning.supernet import SuperNet
from metanas.measuring.standalone import Classifier, accuracy, make_head, settle
from metanas.seeding import stream, torch_stream
from metanas.spaces.space import Space

WARM_UP = 0.4
"""The part of the training that the default network has for itself; after it, every third step is its."""

Paths = Callable[[float, np.random.Generator], Sequence[Architecture]]
"""From the used part of the budget to the architectures of a step."""


def draw_paths(space: Space) -> Paths:
    """The default network alone at first, then a third of the time, and else a uniformly random path."""

    def draw(part: float, rng: np.random.Generator) -> Sequence[Architecture]:
        leads = rng.random() < 1 / 3
        return [space.default if part < WARM_UP or leads else space.sample(rng)]

    return draw


class OneShot:
    """The shared weights of `space` in training.

    `run` continues; what it draws is a function of the seed and the step. Heads come with the first step that needs
    them, as meta-parameters of the learner that are named after their number of features.
    """

    def __init__(self, space: Space, task: Classification, seed: int, batch: int = 64, rate: float = 5e-3) -> None:
        self.space, self.task, self.seed, self.batch, self.rate = space, task, seed, batch, rate
        supernet = SuperNet(space, space.initial_weights(torch_stream(seed, "shared weights")))
        self.learner = Learner(supernet, {}, Inner(steps=0, learned_rates=False))
        self.default_features = supernet.extract(space.default)(task.train.inputs[:1], 1).shape[1]
        self.learner.meta |= self._drawn_head(self.default_features)
        self.optimizer = OuterOptimizer(self.learner)
        self.steps = 0

    def run(self, done: Callable[[int], float], paths: Paths) -> None:
        """Steps of Adam while `done`, from the steps made to the used part of the budget, is below 1."""
        while (part := done(self.steps)) < 1:
            batch = draw_batch(self.task.train, self.batch, self.steps, self.seed, "shared batches")
            drawn = paths(part, stream(self.seed, "paths", self.steps))
            rate = self.rate * (1 + math.cos(math.pi * part)) / 2
            self.optimizer.step([self._gradient(architecture, batch) for architecture in drawn], rate)
            self.steps += 1

    def _gradient(self, architecture: Architecture, batch: Samples) -> Part:
        weights = self.learner.supernet.weights(architecture)
        body = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        features = self.learner.features(architecture, body, batch.inputs, len(batch))
        head = self.head(features.shape[1])
        self.learner.meta |= head
        learned = [weight.detach().requires_grad_() for weight in head.values()]
        logits = apply_head(dict(zip(HEAD, learned, strict=True)), features)
        found = torch.autograd.grad(F.cross_entropy(logits, batch.labels), [*body.values(), *learned])
        names = [*(f"net.{name}" for name in body), *(f"meta.{name}" for name in head)]
        return Part(architecture, {name: gradient.numpy() for name, gradient in zip(names, found, strict=True)})

    def head(self, features: int) -> Weights:
        """Weight and bias for so many features, by their names among the meta-parameters.

        One that was never trained starts with the first columns of the default network's: widths nest.
        """
        meta, names = self.learner.meta, _names(features)
        if names[0] in meta:
            return {name: meta[name] for name in names}
        weight, bias = (meta[name] for name in _names(self.default_features))
        columns = min(features, self.default_features)
        fresh = self._drawn_head(features)[names[0]]
        fresh[:, :columns] = weight[:, :columns]
        return dict(zip(names, (fresh, bias.clone()), strict=True))

    def _drawn_head(self, features: int) -> Weights:
        head = make_head(features, self.task.train.ways, torch_stream(self.seed, "shared head"))
        return dict(zip(_names(features), (head.weight.detach(), head.bias.detach()), strict=True))

    def classifier(self, architecture: Architecture) -> Classifier:
        """The architecture with its own copy of the shared weights and of the head, settled on the training samples."""
        features = self.learner.supernet.extract(architecture)
        with torch.no_grad():
            dimensions = features(self.task.train.inputs[:1], 1).shape[1]
        weight, bias = (nn.Parameter(value.clone()) for value in self.head(dimensions).values())
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.weight, head.bias = weight, bias
        network = Classifier(features, head)
        settle(network, self.task.train)
        return network

    def measure(self, architecture: Architecture, share: float = 1.0) -> float:
        """Its accuracy with its part of the shared weights, on a share of the validation samples of every class."""
        samples = self.task.validation
        if share < 1:
            samples = samples.split(share, stream(self.seed, "share"))[0]
        return accuracy(self.classifier(architecture), samples)

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        return {**self.optimizer.state(), "shared.steps": np.array(self.steps)}

    def restore(self, state: State) -> None:
        """Goes on where `state` was taken."""
        self.learner.meta.clear()  # of heads that came later
        self.optimizer.load(state)
        self.steps = int(state["shared.steps"])


def _names(features: int) -> tuple[str, ...]:
    return tuple(f"{name}.{features}" for name in HEAD)
