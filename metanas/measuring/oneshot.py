"""Shared weights on an ordinary classification task: one SuperNet and one head, trained path by path.

The accuracy of an architecture with its part of the shared weights estimates what it would reach alone (Bender et al.
2018; single paths as in Guo et al. 2020). Uniformly random paths alone train badly on a small budget, so the default
network goes first and stays among the paths (`draw_paths`).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.inner import HEAD, apply_head
from metanas.learning.learner import Inner, Learner
from metanas.learning.outer import OuterOptimizer, Part
from metanas.learning.samples import Classification, Samples, draw_batch
from metanas.learning.state import State
from metanas.learning.supernet import SuperNet
from metanas.measuring.standalone import Classifier, Training, accuracy, make_head, settle, train_alone
from metanas.seeding import stream, torch_stream
from metanas.spaces.norm import SampleNorm, SupportNorm
from metanas.spaces.space import Space

WARM_UP = 0.4
"""The part of the training that the default network has for itself; after it, every third step is its."""
RECALIBRATION = Training(epochs=1, batch=64, optimizer="sgd", rate=0.05, weight_decay=3e-4)
RECALIBRATION_STEPS = 20

Paths = Callable[[float, np.random.Generator], Sequence[Architecture]]
"""From the used part of the budget to the architectures of a step."""


def draw_paths(space: Space) -> Paths:
    """The default network alone at first, then a third of the time, and else a uniformly random path."""

    def draw(part: float, rng: np.random.Generator) -> Sequence[Architecture]:
        leads = rng.random() < 1 / 3
        return [space.default if part < WARM_UP or leads else space.sample(rng)]

    return draw


class OneShot:
    """The shared weights of `space` in training. All its architectures must give as many features as the default one.

    `run` continues; what it draws is a function of the seed and the step.
    """

    def __init__(self, space: Space, task: Classification, seed: int, batch: int = 64, rate: float = 5e-3) -> None:
        self.space, self.task, self.seed, self.batch, self.rate = space, task, seed, batch, rate
        supernet = SuperNet(space, space.initial_weights(torch_stream(seed, "shared weights")))
        dimensions = supernet.extract(space.default)(task.train.inputs[:1], 1).shape[1]
        head = make_head(dimensions, task.train.ways, torch_stream(seed, "shared head"))
        meta = dict(zip(HEAD, (head.weight.detach(), head.bias.detach()), strict=True))
        self.learner = Learner(supernet, meta, Inner(steps=0, learned_rates=False))
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
        named = {f"net.{name}": weight for name, weight in weights.items()}
        named |= {f"meta.{name}": weight for name, weight in self.learner.meta.items()}
        leaves = {name: weight.detach().requires_grad_() for name, weight in named.items()}
        body = {name: leaves[f"net.{name}"] for name in weights}
        features = self.learner.features(architecture, body, batch.inputs, len(batch))
        logits = apply_head({name: leaves[f"meta.{name}"] for name in HEAD}, features)
        found = torch.autograd.grad(F.cross_entropy(logits, batch.labels), list(leaves.values()))
        return Part(architecture, {name: g.numpy() for name, g in zip(leaves, found, strict=True)})

    def classifier(self, architecture: Architecture) -> Classifier:
        """The architecture with its own copy of the shared weights and of the head, settled on the training samples."""
        weight, bias = (nn.Parameter(self.learner.meta[name].clone()) for name in HEAD)
        head = nn.Linear(weight.shape[1], weight.shape[0])
        head.weight, head.bias = weight, bias
        network = Classifier(self.learner.supernet.extract(architecture), head)
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
        self.optimizer.load(state)
        self.steps = int(state["shared.steps"])


def recalibrate(network: Classifier, task: Classification, seed: int) -> float:
    """Fits scales and shifts of the normalisations, and the head, to this architecture by a few steps, in place.

    Returns the validation accuracy. What others recalibrate, the running statistics of batch normalisation, we do not
    have: statistics always come from reference images that the architecture itself has seen. What other paths have
    pulled away from it are the weights; these are the few that set each channel's level.
    """
    norms = [module for module in network.modules() if isinstance(module, SupportNorm | SampleNorm)]
    learned = [parameter for module in (*norms, network.head) for parameter in module.parameters()]
    rows = stream(seed, "recalibration").permutation(len(task.train))[: RECALIBRATION_STEPS * RECALIBRATION.batch]
    return train_alone(network, task.train.take(rows), task.validation, RECALIBRATION, seed, learned)[-1]
