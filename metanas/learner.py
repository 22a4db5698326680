"""A SuperNet that learns from episodes: head, inner loop and meta-gradient of one architecture on one episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.inner import HEAD, Weights, apply_head, inner_loop, prototype_head
from metanas.meta import MetaGradient, Method, Problem, meta_gradient
from metanas.supernet import SuperNet, channels_last

SCALE = "scale"  # the meta-learned logarithm of the head's scale
RATE = "rate."  # prefix of the meta-learned inner rates of a weight, one a step


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


@dataclass(frozen=True)
class Inner:
    """How the inner loop learns.

    `body_rate` and `head_rate` are where the learned per-layer per-step rates start (MAML++, Antoniou et al. 2019,
    section 4); with `learned_rates` off they stay there. The head's gradient is small beside its weights, hence a
    rate of its own.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    steps: int = 1
    body_rate: float = 0.05
    head_rate: float = 0.5
    learned_rates: bool = True
    method: Method = "fomaml"


Precision = Literal["float32", "bfloat16"]


class Learner:
    """Adapts and differentiates. Holds no data and no optimiser.

    `meta` are the meta-learned numbers that belong to no architecture: the head's scale and the inner rates.
    """

    def __init__(self, supernet: SuperNet, meta: Weights, inner: Inner, precision: Precision = "float32") -> None:
        self.supernet = supernet
        self.meta = meta
        self.inner = inner
        self.precision = precision

    @staticmethod
    def initial_meta(shared: Mapping[str, Tensor], inner: Inner) -> Weights:
        """The scale, and where rates are learned one for every weight and step."""
        meta = {SCALE: torch.zeros(())}
        if inner.learned_rates and inner.steps:
            meta |= {RATE + name: torch.full((inner.steps,), inner.body_rate) for name in shared}
            meta |= {RATE + name: torch.full((inner.steps,), inner.head_rate) for name in HEAD}
        return meta

    def fresh(self, generator: torch.Generator) -> "Learner":
        """The same network with newly drawn weights."""
        family = self.supernet.space
        shared = family.initial_weights(generator)
        return Learner(SuperNet(family, shared), self.initial_meta(shared, self.inner), self.inner, self.precision)

    def gradient(
        self,
        architecture: Architecture,
        episode: EpisodeData,
        drop_path: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[MetaGradient, float]:
        """The meta-gradient of one episode, of the weights the architecture uses and of `meta`, with query accuracy.

        Paths are dropped with probability `drop_path`, drawn from `generator`.
        """
        network = self.supernet.network(architecture)
        network.drop_path, network.generator = drop_path, generator
        try:
            return self._gradient(architecture, episode)
        finally:
            network.drop_path, network.generator = 0.0, None

    def _gradient(self, architecture: Architecture, episode: EpisodeData) -> tuple[MetaGradient, float]:
        weights = self._weights(architecture)
        meta = {
            name: value.detach().requires_grad_()
            for name, value in self.meta.items()
            if not name.startswith(RATE) or name[len(RATE) :] in weights or name[len(RATE) :] in HEAD
        }
        problem = _Episode(self, architecture, episode, meta)
        head = HEAD if self.inner.steps else ()
        found = meta_gradient(
            self.inner.method,
            Problem(problem.prepare, problem.support_loss, problem.query_loss, tuple(weights), head),
            weights,
            lambda name, step: self._rate(meta, name, step),
            self.inner.steps,
            meta,
        )
        return found, problem.accuracy

    def adapt(self, architecture: Architecture, inputs: Tensor, labels: Tensor, ways: int, steps: int) -> Weights:
        """Weights of body and head after `steps` gradient steps on the support set, ready for `logits`."""
        meta = {name: value.detach() for name, value in self.meta.items()}
        support = _Support(self, architecture, channels_last(inputs), labels, ways, meta)
        with torch.no_grad():
            start = support.prepare(self._weights(architecture), steps=1)
        adapted = HEAD if self.inner.method == "anil" else tuple(start)
        leaves = {name: weight.requires_grad_() for name, weight in start.items()}
        fast = inner_loop(
            support.support_loss, leaves, adapted, lambda n, s: self._rate(meta, n, s), steps, second_order=False
        )
        return {name: weight.detach() for name, weight in fast.items()}

    @torch.no_grad()
    def logits(self, architecture: Architecture, weights: Weights, support: Tensor, queries: Tensor) -> Tensor:
        """Logits (Q, K) of queries; the support set gives the statistics of normalisation."""
        features = self.features(architecture, weights, torch.cat([support, queries]), len(support))
        return apply_head(weights, features[len(support) :])

    @torch.no_grad()
    def prototypes(
        self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, ways: int
    ) -> Weights:
        """The head of the class means of features by `weights`."""
        return prototype_head(
            self.features(architecture, weights, inputs, len(inputs)), labels, ways, self.meta[SCALE].exp()
        )

    @torch.no_grad()
    def embed(self, architecture: Architecture, support: Tensor) -> Tensor:
        """Features (S, D) of a support set by the shared weights."""
        return self.features(architecture, self._weights(architecture), support, len(support))

    def evaluate(self, architecture: Architecture, episode: EpisodeData, steps: int) -> tuple[float, float]:
        """Accuracy and loss on the query set after `steps` inner steps on the support set."""
        weights = self.adapt(architecture, episode.support_inputs, episode.support_labels, episode.ways, steps)
        logits = self.logits(architecture, weights, episode.support_inputs, episode.query_inputs)
        accuracy = (logits.argmax(1) == episode.query_labels).float().mean()
        return float(accuracy), float(F.cross_entropy(logits, episode.query_labels))

    def support_logits(self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Differentiable logits (S, K) of the support set itself."""
        return apply_head(weights, self.features(architecture, weights, inputs, len(inputs)))

    def features(
        self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor, reference: int
    ) -> Tensor:
        """Features (N, D) in float32, computed in the learner's precision."""
        body = {name: weight for name, weight in weights.items() if name not in HEAD}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = self.supernet.features(architecture, body, channels_last(inputs), reference)
        return features.to(torch.float32) if features.dtype == torch.bfloat16 else features

    def _weights(self, architecture: Architecture) -> Weights:
        """The shared weights that an architecture uses, dense in the layout that convolutions are fastest in."""
        return {name: channels_last(weight.detach()) for name, weight in self.supernet.weights(architecture).items()}

    def _rate(self, meta: Mapping[str, Tensor], name: str, step: int) -> Tensor | float:
        rates = meta.get(RATE + name)
        if rates is not None:
            return rates[min(step, len(rates) - 1)]
        return self.inner.head_rate if name in HEAD else self.inner.body_rate


class _Support:
    """The support half of an episode."""

    def __init__(
        self, learner: Learner, architecture: Architecture, inputs: Tensor, labels: Tensor, ways: int, meta: Weights
    ) -> None:
        self.learner, self.architecture, self.meta, self.ways = learner, architecture, meta, ways
        self.inputs, self.labels = inputs, labels

    def head(self, features: Tensor, labels: Tensor) -> Weights:
        return prototype_head(features, labels, self.ways, self.meta[SCALE].exp())

    def prepare(self, weights: Mapping[str, Tensor], steps: int | None = None) -> Weights:
        """Adds the head, unless no inner step needs it before the query loss computes it anyway."""
        if (self.learner.inner.steps if steps is None else steps) == 0:
            return dict(weights)
        return {**weights, **self.head(self._features(weights), self.labels)}

    def support_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        return F.cross_entropy(apply_head(weights, self._features(weights)), self.labels)

    def _features(self, weights: Mapping[str, Tensor]) -> Tensor:
        return self.learner.features(self.architecture, weights, self.inputs, len(self.inputs))


class _Episode(_Support):
    """A whole episode; remembers the accuracy that the query loss saw last."""

    def __init__(self, learner: Learner, architecture: Architecture, episode: EpisodeData, meta: Weights) -> None:
        super().__init__(learner, architecture, episode.support_inputs, episode.support_labels, episode.ways, meta)
        self.everything = torch.cat([episode.support_inputs, episode.query_inputs])
        self.query_labels = episode.query_labels
        self.accuracy = 0.0

    def query_loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        reference = len(self.inputs)
        features = self.learner.features(self.architecture, weights, self.everything, reference)
        support, queries = features[:reference], features[reference:]
        adapted = HEAD[0] in weights
        logits = apply_head(weights if adapted else self.head(support, self.labels), queries)
        self.accuracy = float((logits.detach().argmax(1) == self.query_labels).float().mean())
        loss = F.cross_entropy(logits, self.query_labels)
        if adapted:
            return loss
        # Without an inner loop the sides are alike: the features that are there answer the reverse question as well.
        return (loss + F.cross_entropy(apply_head(self.head(queries, self.query_labels), support), self.labels)) / 2
