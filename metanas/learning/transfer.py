"""A new task: choose an architecture on its support set, adapt it in a few gradient steps, say what to expect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.adam import Moments, adam_step
from metanas.learning.inner import HEAD, Weights
from metanas.learning.learner import Learner
from metanas.learning.samples import Samples
from metanas.parsing import STRICT
from metanas.statistics import sign_test
from tasks.augment import augmentation

SIGNIFICANT = 0.05
COPIES = 4
"""Augmented copies of each sample that show how its class spreads."""
SCRATCH_STEPS = 20
"""Gradient steps from random weights, or as many as the inner loop and adaptation make where these are more."""

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Adaptation:
    """How a network is adapted to a new task.

    After the inner loop of meta-training, where it has steps, come `steps` of Adam over head and body, each on an
    augmented copy of the support set. The first of `candidates` architectures is adapted, unless another does
    significantly better on the support set; `folds` of that set tell what accuracy to expect. With `turns` an answer is
    the mean over a sample's quarter turns and mirror images: for what has no upright, at eight times the work of an
    answer. `with_scratch` sets beside the adapted network the same one trained from random weights, and an answer is
    the mean of the probabilities of both: for what may be unlike all that was learned from, at twice the work.
    """

    __pydantic_config__: ClassVar = STRICT

    steps: NonNegativeInt = 20
    body_rate: NonNegativeFloat = 1e-3
    head_rate: NonNegativeFloat = 1e-2
    augment: str | None = None
    candidates: PositiveInt = 4
    folds: NonNegativeInt = 5
    turns: bool = False
    with_scratch: bool = False

    def __post_init__(self) -> None:
        """Raises MetanasError for an augmentation that does not exist."""
        if self.augment is not None:
            augmentation(self.augment)


def folds(
    labels: np.ndarray, count: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Stratified folds of the sample positions: `count`, or as many as the smallest class has samples.

    With `groups` (S,) no group lies in two of them, and there are fewer where a class lies in few. Empty when a class
    has a single sample or group: nothing can be held out then.
    """
    if groups is not None:
        return _grouped_folds(labels, count, rng, groups)
    counts = np.bincount(labels)
    count = min(count, int(counts[counts > 0].min()))
    if count < 2:
        return []
    fold = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = (np.arange(len(rows)) + rng.integers(count)) % count
    return [np.flatnonzero(fold == i) for i in range(count)]


def _grouped_folds(labels: np.ndarray, count: int, rng: np.random.Generator, groups: np.ndarray) -> list[np.ndarray]:
    seed = int(rng.integers(2**31))
    most = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    for parts in range(min(count, most), 1, -1):
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        found = list(splitter.split(labels, labels, groups))
        if all(set(labels[held]) <= set(labels[kept]) for kept, held in found):
            return [held for _, held in found]
    return []


def choose(
    learner: Learner, architectures: Sequence[Architecture], support: Samples, groups: np.ndarray | None = None
) -> Architecture:
    """The first architecture, unless another answers significantly more of the support set: then the best of those.

    An answer is that of the nearest prototype, which for a sample's own class is made without it and the others of its
    group (`groups` (S,), each sample its own by default): no gradient step is taken, so a candidate costs one forward
    pass. With a single sample or group in some class nothing can be left out, and the first stays.
    """
    own = F.one_hot(support.labels, support.ways).float()  # (S, K)
    found = np.arange(len(support.labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    group = torch.from_numpy(found)
    others = (own @ own.T) * (group[:, None] != group).float()  # (S, S): of the same class and another group
    if len(architectures) == 1 or not others.any(1).all():
        return architectures[0]
    right = [_leave_one_out(learner, architecture, support, own, others) for architecture in architectures]
    better = [i for i in range(1, len(right)) if _significantly_more(right[i], right[0])]
    return architectures[max(better, key=lambda i: float(right[i].sum()), default=0)]


def _leave_one_out(
    learner: Learner, architecture: Architecture, support: Samples, own: Tensor, others: Tensor
) -> Tensor:
    """Which samples (S,) are answered rightly, 1 or 0.

    Prototypes are the means of `own` (S, K), one-hot; that of a sample's own class is the mean of `others` (S, S).
    """
    features = learner.embed(architecture, support.inputs)  # (S, D)
    own, others = own.to(features), others.to(features)
    distances = torch.cdist(features, own.T @ features / own.sum(0)[:, None]).square()  # (S, K)
    without = others @ features / others.sum(1, keepdim=True)  # (S, D)
    left_out = torch.where(own.bool(), (features - without).square().sum(1, keepdim=True), distances)
    return (left_out.argmin(1) == support.labels.to(features.device)).float()


def _significantly_more(a: Tensor, b: Tensor) -> bool:
    return sign_test(int((a > b).sum()), int((b > a).sum())) < SIGNIFICANT


def fine_tune(
    learner: Learner,
    architecture: Architecture,
    support: Samples,
    adaptation: Adaptation,
    generator: torch.Generator,
) -> Weights:
    """Weights of body and head for `Learner.logits`, after the learner's inner loop and `adaptation.steps` of Adam.

    The head that is returned is the discriminant of the adapted features: on meta-validation episodes the head that
    Adam trained did worse, having learned its few samples by heart. Without such steps it is that of the inner loop,
    and without these that of the prototypes.
    """
    start = learner.adapt(architecture, support.inputs, support.labels, support.ways, learner.inner.steps)
    if not adaptation.steps:
        return start
    leaves = {name: weight.clone().requires_grad_() for name, weight in start.items()}
    moments = {name: Moments.of(weight) for name, weight in start.items()}
    labels = support.labels.to(learner.device)
    augment = None if adaptation.augment is None else augmentation(adaptation.augment)
    for _ in range(adaptation.steps):
        inputs = support.inputs if augment is None else augment(support.inputs, generator)
        loss = F.cross_entropy(learner.support_logits(architecture, leaves, inputs), labels)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (name, weight), gradient in zip(leaves.items(), gradients, strict=True):
            adam_step(weight, moments[name], gradient, adaptation.head_rate if name in HEAD else adaptation.body_rate)
    adapted = {name: weight.detach() for name, weight in leaves.items()}
    copies = [] if augment is None else [augment(support.inputs, generator) for _ in range(COPIES)]
    return adapted | learner.discriminant(architecture, adapted, support.inputs, copies, support.labels, support.ways)


def from_scratch(learner: Learner, adaptation: Adaptation, generator: torch.Generator) -> tuple[Learner, Adaptation]:
    """Random weights in place of the learned ones, and how a support set alone teaches them."""
    inner = replace(learner.inner, steps=0)  # random weights have learned to be adapted by none
    fresh = Learner.drawn(learner.supernet.space, inner, learner.precision, generator, learner.device)
    steps = max(SCRATCH_STEPS, learner.inner.steps + adaptation.steps)
    return fresh, replace(adaptation, steps=steps, body_rate=3e-3, head_rate=1e-2)


def answers(
    learner: Learner, architecture: Architecture, weights: Weights, support: Tensor, queries: Tensor, how: Adaptation
) -> Tensor:
    """Logits (Q, K) of queries by adapted weights."""
    return over_turns(lambda images: learner.logits(architecture, weights, support, images), queries, how.turns)


def mixture(logits: Sequence[Tensor]) -> Tensor:
    """Probabilities (Q, K): the mean of those of several networks, each by its logits (Q, K)."""
    return torch.stack([torch.softmax(each, 1) for each in logits]).mean(0)


def over_turns(score: Score, images: Tensor, turns: bool) -> Tensor:
    """The scores (N, K) of square images (N, C, H, W); with `turns`, their mean over the symmetries of the square."""
    if not turns:
        return score(images)
    quarters = [images.rot90(count, (2, 3)) for count in range(4)]
    views = torch.stack([*quarters, *(quarter.flip(3) for quarter in quarters)])  # (8, N, C, H, W)
    return score(views.flatten(0, 1)).reshape(len(views), len(images), -1).mean(0)
