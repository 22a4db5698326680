"""One episode, or several of one shape, as the problem that a meta-update solves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.inner import HEAD, Weights, apply_head, prototype_head
from metanas.learning.supernet import channels_last

if TYPE_CHECKING:
    from metanas.learning.learner import Learner

SCALE = "scale"  # the meta-learned logarithm of the head's scale


class EpisodeData(Protocol):
    """What the learner needs of an episode: inputs (N, C, H, W) in [0, 1] and labels (N,) below `ways`."""

    @property
    def support_inputs(self) -> Tensor: ...
    @property
    def support_labels(self) -> Tensor: ...
    @property
    def query_inputs(self) -> Tensor: ...
    @property
    def query_labels(self) -> Tensor: ...
    @property
    def ways(self) -> int: ...


class SupportProblem:
    """The support half of an episode, on the learner's device."""

    def __init__(
        self, learner: Learner, architecture: Architecture, inputs: Tensor, labels: Tensor, ways: int, meta: Weights
    ) -> None:
        self.learner, self.architecture, self.meta, self.ways = learner, architecture, meta, ways
        self.inputs, self.labels = inputs, labels

    def head(self, features: Tensor, labels: Tensor) -> Weights:
        return prototype_head(features, labels, self.ways, self.meta[SCALE].exp())

    def with_head(self, weights: Mapping[str, Tensor]) -> Weights:
        return {**weights, **self.head(self._features(weights), self.labels)}

    def support_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(apply_head(weights, self._features(weights)), self.labels)

    def _features(self, weights: Mapping[str, Tensor]) -> Tensor:
        return self.learner.features(self.architecture, weights, self.inputs, len(self.inputs))


class EpisodeProblem(SupportProblem):
    """A whole episode; remembers the accuracy that the query loss saw last."""

    accuracy: Tensor

    def __init__(
        self,
        learner: Learner,
        architecture: Architecture,
        tensors: Sequence[Tensor],
        ways: int,
        meta: Weights,
        generator: torch.Generator | None = None,
    ) -> None:
        self.everything, support_labels, self.query_labels = tensors
        # The same paths are dropped in each look at the support set, so that differences are of one network.
        self.draw_again = None if generator is None else partial(generator.set_state, generator.get_state())
        reference = len(support_labels)
        super().__init__(learner, architecture, self.everything[:reference], support_labels, ways, meta)

    def prepare(self, weights: Mapping[str, Tensor]) -> Weights:
        """Adds the head, unless no inner step needs it before the query loss computes it anyway."""
        return self.with_head(weights) if self.learner.inner.steps else dict(weights)

    def support_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        if self.draw_again is not None:
            self.draw_again()
        return super().support_loss(weights)

    def query_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        reference = len(self.labels)
        if HEAD[0] in weights:
            queries = self.learner.query_features(self.architecture, weights, self.everything, reference)
            return self._loss(weights, queries)
        features = self.learner.features(self.architecture, weights, self.everything, reference)
        support, queries = features[:reference], features[reference:]
        loss = self._loss(self.head(support, self.labels), queries)
        # Without an inner loop the sides are alike: the features that are there answer the reverse question as well.
        return (loss + F.cross_entropy(apply_head(self.head(queries, self.query_labels), support), self.labels)) / 2

    def _loss(self, head: Mapping[str, Tensor], queries: Tensor) -> Tensor:
        logits = apply_head(head, queries)
        self.accuracy = accuracy(logits.detach(), self.query_labels)
        return F.cross_entropy(logits, self.query_labels)


class EpisodesProblem:
    """Episodes of one shape as one problem: losses are summed, and every weight gets a dimension of tasks (T) in front.

    So one gradient of the sum holds those of all tasks, as no task's loss depends on another's weights.
    """

    losses: Tensor  # (T,) of the last query loss
    accuracies: Tensor

    def __init__(
        self, learner: Learner, architecture: Architecture, episodes: Sequence[EpisodeData], meta: Weights
    ) -> None:
        learner.supernet.network(architecture)  # built here: it draws weights, which vmap refuses
        ways = episodes[0].ways
        self.one: Callable[..., EpisodeProblem] = lambda *t: EpisodeProblem(learner, architecture, t, ways, meta)
        of_tasks = zip(*(tensors_of(episode, learner.device) for episode in episodes), strict=True)
        self.tensors = [torch.stack(tensors) for tensors in of_tasks]
        self.count = len(episodes)

    def prepare(self, weights: Mapping[str, Tensor]) -> Weights:
        return self._each(EpisodeProblem.prepare, weights)

    def with_head(self, weights: Mapping[str, Tensor]) -> Weights:
        return self._each(EpisodeProblem.with_head, weights)

    def _each(
        self, begin: Callable[[EpisodeProblem, Mapping[str, Tensor]], Weights], weights: Mapping[str, Tensor]
    ) -> Weights:
        """Every task's own copy of the weights, and its head."""
        copies = {name: weight.expand(self.count, *weight.shape) for name, weight in weights.items()}
        begun: Weights = torch.vmap(lambda w, *t: begin(self.one(*t), w))(copies, *self.tensors)
        return begun

    def support_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        losses: Tensor = torch.vmap(lambda w, *t: self.one(*t).support_loss(w))(dict(weights), *self.tensors)
        return losses.sum()

    def query_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        def one(weights: Weights, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            episode = self.one(*tensors)
            loss = episode.query_loss(weights)
            return loss, episode.accuracy

        losses, self.accuracies = torch.vmap(one)(dict(weights), *self.tensors)
        self.losses = losses.detach()
        return losses.sum()


def tensors_of(episode: EpisodeData, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """All inputs, laid out as convolutions are fastest with, support first; then the labels of both sides."""
    inputs = torch.cat([episode.support_inputs, episode.query_inputs]).to(device)
    return channels_last(inputs), episode.support_labels.to(device), episode.query_labels.to(device)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The fraction of right answers, from logits (N, K) and labels (N,)."""
    return (logits.argmax(1) == labels).float().mean()
