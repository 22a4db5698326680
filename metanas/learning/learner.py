"""A SuperNet that learns from episodes: head, inner loop and meta-gradient of one architecture on one episode."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.inner import HEAD, Weights, apply_head, discriminant_head, inner_loop, prototype_head
from metanas.learning.meta import MetaGradient, Method, Problem, meta_gradient
from metanas.learning.problems import (
    SCALE,
    EpisodeData,
    EpisodeProblem,
    EpisodesProblem,
    SupportProblem,
    accuracy,
    tensors_of,
)
from metanas.learning.supernet import SuperNet, channels_last
from metanas.parsing import STRICT
from metanas.spaces.norm import asks_support
from metanas.spaces.space import Family
from metanas.spaces.winograd import keeping_points

DIFFERENCE = 1e-1
"""How far the method "difference" moves the weights, as a length of all together.

Of 1e-4 to 1 the nearest to exact MAML on networks with ReLU and max pooling (docs/learning.md): in a shorter step the
few units that switch outweigh the curvature.
"""
RATE = "rate."  # prefix of the meta-learned inner rates of a weight, one a step


@dataclass(frozen=True)
class Inner:
    """How the inner loop learns.

    `body_rate` and `head_rate` are where the learned per-layer per-step rates start (MAML++, Antoniou et al. 2019,
    section 4); with `learned_rates` off they stay there. The head's gradient is small beside its weights, hence a
    rate of its own.
    """

    __pydantic_config__: ClassVar = STRICT

    steps: NonNegativeInt = 1
    body_rate: NonNegativeFloat = 0.05
    head_rate: NonNegativeFloat = 0.5
    learned_rates: bool = True
    method: Method = "fomaml"

    def __post_init__(self) -> None:
        """Raises MetanasError for a method that could learn nothing."""
        if self.method == "reptile" and not self.steps:
            raise MetanasError(
                "inner.method: reptile learns from what inner steps change, and inner.steps is 0: set inner.steps to 1 "
                "or more, or take another method."
            )


Precision = Literal["float32", "bfloat16"]


def native_precision(device: str) -> Precision:
    """bfloat16 where the processor (AVX-512 BF16, which AMX comes with) or the GPU has instructions for it.

    Elsewhere it is emulated and float32 is faster.
    """
    if device == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if has else "float32"


class Learner:
    """Adapts and differentiates. Holds no data and no optimiser.

    `meta` are the meta-learned numbers that belong to no architecture: the head's scale and the inner rates.
    """

    def __init__(self, supernet: SuperNet, meta: Weights, inner: Inner, precision: Precision = "float32") -> None:
        self.supernet = supernet
        self.meta = meta
        self.inner = inner
        self.precision = precision
        self._held: dict[Architecture, Weights] = {}

    @staticmethod
    def initial_meta(shared: Mapping[str, Tensor], inner: Inner) -> Weights:
        """The scale, and where rates are learned one for every weight and step."""
        meta = {SCALE: torch.zeros(())}
        if inner.learned_rates and inner.steps:
            meta |= {RATE + name: torch.full((inner.steps,), inner.body_rate) for name in shared}
            meta |= {RATE + name: torch.full((inner.steps,), inner.head_rate) for name in HEAD}
        return meta

    @staticmethod
    def drawn(
        family: Family,
        inner: Inner,
        precision: Precision,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> "Learner":
        """With newly drawn weights, on a device."""
        shared = {name: weight.to(device) for name, weight in family.initial_weights(generator).items()}
        meta = {name: value.to(device) for name, value in Learner.initial_meta(shared, inner).items()}
        return Learner(SuperNet(family, shared), meta, inner, precision)

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs may be anywhere."""
        return next(iter(self.supernet.shared.values())).device

    @contextmanager
    def holding(self, architecture: Architecture) -> Iterator[None]:
        """While entered nobody changes the shared weights, so what tasks need of an architecture's is made once."""
        self._held[architecture] = self._weights(architecture)
        try:
            with keeping_points(self._held[architecture].values()):
                yield
        finally:
            del self._held[architecture]

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
            meta = self._meta_leaves(architecture)
            tensors = tensors_of(episode, self.device)
            problem = EpisodeProblem(self, architecture, tensors, episode.ways, meta, generator)
            found = self._gradient(architecture, problem, meta)
        finally:
            network.drop_path, network.generator = 0.0, None
        return found, float(problem.accuracy)

    def gradients(
        self, architecture: Architecture, episodes: Sequence[EpisodeData]
    ) -> tuple[MetaGradient, list[tuple[float, float]]]:
        """The sum of the meta-gradients of episodes of one shape, with the query loss and accuracy of each.

        All at once, which pays on a GPU; on a CPU one after the other is faster.
        """
        meta = self._meta_leaves(architecture)
        problem = EpisodesProblem(self, architecture, episodes, meta)
        found = self._gradient(architecture, problem, meta)
        return found, list(zip(problem.losses.tolist(), problem.accuracies.tolist(), strict=True))

    def _meta_leaves(self, architecture: Architecture) -> Weights:
        used = {*self.supernet.space.slices(architecture), *HEAD}
        return {
            name: value.detach().requires_grad_()
            for name, value in self.meta.items()
            if not name.startswith(RATE) or name[len(RATE) :] in used
        }

    def _gradient(
        self, architecture: Architecture, problem: EpisodeProblem | EpisodesProblem, meta: Weights
    ) -> MetaGradient:
        weights = self._weights(architecture)
        return meta_gradient(
            self.inner.method,
            Problem(
                problem.prepare,
                problem.support_loss,
                problem.query_loss,
                DIFFERENCE,
                HEAD if self.inner.steps else (),
            ),
            weights,
            lambda name, step: self._rate(meta, name, step),
            self.inner.steps,
            meta,
        )

    def adapt(self, architecture: Architecture, inputs: Tensor, labels: Tensor, ways: int, steps: int) -> Weights:
        """Weights of body and head after `steps` gradient steps on the support set, ready for `logits`."""
        meta = {name: value.detach() for name, value in self.meta.items()}
        support = SupportProblem(self, architecture, self._laid_out(inputs), labels.to(self.device), ways, meta)
        return self._adapt(support, architecture, steps, meta)

    def _adapt(
        self, problem: SupportProblem | EpisodesProblem, architecture: Architecture, steps: int, meta: Weights
    ) -> Weights:
        with torch.no_grad():
            start = problem.with_head(self._weights(architecture))
        adapted = HEAD if self.inner.method == "anil" else tuple(start)
        leaves = {name: weight.detach().requires_grad_() for name, weight in start.items()}
        fast = inner_loop(
            problem.support_loss, leaves, adapted, lambda n, s: self._rate(meta, n, s), steps, second_order=False
        )
        return {name: weight.detach() for name, weight in fast.items()}

    @torch.no_grad()
    def logits(self, architecture: Architecture, weights: Weights, support: Tensor, queries: Tensor) -> Tensor:
        """Logits (Q, K) of queries; the support set gives the statistics of normalisation."""
        inputs = self._laid_out(torch.cat([support, queries]))
        return apply_head(weights, self.query_features(architecture, weights, inputs, len(support)))

    @torch.no_grad()
    def discriminant(
        self,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        copies: Sequence[Tensor],
        labels: Tensor,
        ways: int,
    ) -> Weights:
        """The head of class means and common covariance of features by `weights`, of inputs and augmented copies."""
        rows = self._laid_out(torch.cat([inputs, *copies]))
        features = self.features(architecture, weights, rows, len(inputs))
        own, spread = features[: len(inputs)], features[len(inputs) :]
        spread = spread.reshape(len(copies), *own.shape)
        return discriminant_head(own, spread, labels.to(self.device), ways, self.meta[SCALE].exp())

    @torch.no_grad()
    def embed(self, architecture: Architecture, support: Tensor) -> Tensor:
        """Features (S, D) of a support set by the shared weights."""
        return self.features(architecture, self._weights(architecture), self._laid_out(support), len(support))

    def evaluate(self, architecture: Architecture, episode: EpisodeData, steps: int) -> tuple[float, float]:
        """Accuracy and loss on the query set after `steps` inner steps on the support set."""
        if steps:
            weights = self.adapt(architecture, episode.support_inputs, episode.support_labels, episode.ways, steps)
            logits = self.logits(architecture, weights, episode.support_inputs, episode.query_inputs)
        else:
            logits = self._nearest_prototypes(architecture, episode)
        labels = episode.query_labels.to(self.device)
        return float(accuracy(logits, labels)), float(F.cross_entropy(logits, labels))

    def evaluations(
        self, architecture: Architecture, episodes: Sequence[EpisodeData], steps: int
    ) -> list[tuple[float, float]]:
        """What `evaluate` says of episodes of one shape, all at once, which pays on a GPU."""
        meta = {name: value.detach() for name, value in self.meta.items()}
        problem = EpisodesProblem(self, architecture, episodes, meta)
        weights = self._adapt(problem, architecture, steps, meta)
        with torch.no_grad():
            problem.query_loss(weights)
        return list(zip(problem.accuracies.tolist(), problem.losses.tolist(), strict=True))

    @torch.no_grad()
    def _nearest_prototypes(self, architecture: Architecture, episode: EpisodeData) -> Tensor:
        """The logits of queries without an inner step: one look at the support set serves the head and statistics."""
        inputs, labels, _ = tensors_of(episode, self.device)
        features = self.features(architecture, self._weights(architecture), inputs, len(labels))
        head = prototype_head(features[: len(labels)], labels, episode.ways, self.meta[SCALE].exp())
        return apply_head(head, features[len(labels) :])

    def support_logits(self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Differentiable logits (S, K) of the support set itself."""
        return apply_head(weights, self.features(architecture, weights, self._laid_out(inputs), len(inputs)))

    def features(
        self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor, reference: int
    ) -> Tensor:
        """Features (N, D) in float32, computed in the learner's precision."""
        body = {name: weight for name, weight in weights.items() if name not in HEAD}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            features = self.supernet.features(architecture, body, inputs, reference)
        return features.to(torch.float32) if features.dtype == torch.bfloat16 else features

    def query_features(
        self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor, reference: int
    ) -> Tensor:
        """Features (Q, D) of what follows the `reference` rows of the support set, which run only where they count."""
        if asks_support(self.supernet.network(architecture)):
            return self.features(architecture, weights, inputs, reference)[reference:]
        return self.features(architecture, weights, inputs[reference:], 0)

    def _laid_out(self, inputs: Tensor) -> Tensor:
        return channels_last(inputs.to(self.device))

    def _weights(self, architecture: Architecture) -> Weights:
        """The shared weights that an architecture uses, dense in the layout that convolutions are fastest in."""
        if architecture in self._held:
            return self._held[architecture]
        return {name: channels_last(weight.detach()) for name, weight in self.supernet.weights(architecture).items()}

    def _rate(self, meta: Mapping[str, Tensor], name: str, step: int) -> Tensor | float:
        rates = meta.get(RATE + name)
        if rates is not None:
            return rates[min(step, len(rates) - 1)]
        return self.inner.head_rate if name in HEAD else self.inner.body_rate
