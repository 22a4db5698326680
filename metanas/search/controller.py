"""Reinforcement learning: an RNN controller that writes an architecture gene by gene (Zoph et al. 2018, NASNet).

In the cell space the genes are those predictions, for each block: state, operation, state, operation and combination,
which by default is a sum; where the space's `combine` names "sum" and "concat", it is predicted like the others. The
controller learns by REINFORCE (Williams 1992; a baseline and an entropy bonus as in ENAS, Pham et al. 2018) or by PPO
(Schulman et al. 2017), which NASNet used.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.learning.adam import Moments, adam_step
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Archive, Limits

HIDDEN = 32
SPREAD = 0.1
"""Weights start uniform within plus and minus this, so that the first architectures are nearly uniform."""
DRAFTS = 64
"""Architectures written at once: as a batch they take little longer than one, and not all are new."""
IMPOSSIBLE = -1e9
"""The logit of another gene's value: it has no probability, and adds nothing to an entropy."""
MEMORY = 0.9
"""Share of the baseline that a batch leaves in place."""


class Controller(nn.Module):
    """An LSTM that sees the last gene and predicts the next; every gene has its own values and its own softmax."""

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self.counts = tuple(counts)
        total = sum(counts)
        self.embedding = nn.Embedding(total + 1, HIDDEN)  # the last one begins
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, total)
        gene = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))  # of every output
        self.others = gene != torch.arange(len(counts))[:, None]  # (G, total): the outputs of other genes
        self.offsets = torch.tensor([sum(counts[:gene]) for gene in range(len(counts))])

    def start(self, generator: torch.Generator) -> None:
        for weight in self.parameters():
            nn.init.uniform_(weight, -SPREAD, SPREAD, generator=generator)

    def forward(self, genes: Tensor) -> tuple[Tensor, Tensor]:
        """Of genes (B, G) the log probability and the entropy of what was chosen from, both summed over genes, (B,)."""
        outputs = genes + self.offsets
        begin = torch.full((len(genes), 1), sum(self.counts))
        states, _ = self.lstm(self.embedding(torch.cat([begin, outputs[:, :-1]], 1)))
        logs = self.head(states).masked_fill(self.others, IMPOSSIBLE).log_softmax(2)  # (B, G, total)
        log_probability = logs.gather(2, outputs[:, :, None]).sum((1, 2))
        return log_probability, -(logs.exp() * logs).sum((1, 2))

    @torch.no_grad()
    def sample(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Architectures drawn gene by gene."""
        outputs = torch.full((count, 1), sum(self.counts))
        state = None
        chosen = []
        for offset, values in zip(self.offsets.tolist(), self.counts, strict=True):
            hidden, state = self.lstm(self.embedding(outputs), state)
            rows = slice(offset, offset + values)
            logits = nn.functional.linear(hidden[:, 0], self.head.weight[rows], self.head.bias[rows])
            below = logits.double().softmax(1).cumsum(1).numpy() < rng.random((count, 1))
            value = torch.from_numpy(below.sum(1, keepdims=True).clip(max=values - 1))  # (B, 1)
            chosen.append(value)
            outputs = value + offset
        return [tuple(genes) for genes in torch.cat(chosen, 1).tolist()]


@dataclass(frozen=True)
class Lesson:
    """What the controller wrote, how probable it was then, and what came of it."""

    architecture: Architecture
    log_probability: float
    accuracy: float


class Controlled(ABC):
    """Ask and tell around a controller. How a batch of lessons improves it is left to the final classes.

    A network that the controller writes again is not measured again: it is a lesson at once, with its latest
    measurement. Advantages are accuracies less a moving baseline, in units of the deviation of all accuracies so far,
    so that the settings suit any scale. Where the controller writes nothing new any more, uniform draws fill in.
    """

    RATE: float
    """Adam's learning rate unless another is asked for."""
    EPOCHS: int
    """Steps on each batch."""

    def __init__(
        self,
        space: Genotypes,
        size: int,
        *,
        rate: float | None = None,
        batch: int = 5,
        entropy: float = 0.02,
        limits: Limits | None = None,
    ) -> None:
        """`rate` is Adam's learning rate, `batch` the lessons of a step, `entropy` the weight of the entropy bonus."""
        rate = self.RATE if rate is None else rate
        if not 0 < rate < math.inf or batch < 1 or not 0 <= entropy < math.inf:
            raise MetanasError(
                "controller: rate must be above 0 and finite, batch at least 1 and entropy at least 0, but they are "
                f"{rate}, {batch} and {entropy}."
            )
        self.space, self.size, self.batch, self.entropy = space, size, batch, entropy
        self.archive = Archive(space, limits)
        self.controller = Controller(space.counts)
        self.rate = rate
        self.weights = list(self.controller.parameters())
        self.moments = [Moments.of(weight) for weight in self.weights]
        self._started = False
        self._baseline: float | None = None
        self._lessons: list[Lesson] = []
        self._written: dict[Architecture, float] = {}  # awaiting results: their log probabilities

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The `size` most accurate."""
        return self.archive.best(self.size)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        if not self._started:
            self.controller.start(torch.Generator().manual_seed(int(rng.integers(2**63 - 1))))
            self._started = True
        drafts: list[tuple[Architecture, float]] = []

        def draw() -> Architecture:
            if not drafts:
                drafts.extend(self._drafts(max(count, DRAFTS), rng))
            architecture, log_probability = drafts.pop()
            key = self.space.canonical(architecture)
            if key in self.archive.measured and len(self._lessons) < self.batch:
                accuracy = self.archive.measured[key].accuracy
                self._lessons.append(Lesson(architecture, log_probability, accuracy))
            elif architecture not in self.archive:
                self._written[architecture] = log_probability
            return architecture

        asked = self.archive.fresh(count, draw)
        self._written = {a: p for a, p in self._written.items() if a in self.archive}  # the rest is beyond the limits
        return asked + self.archive.sample(count - len(asked), rng)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        for candidate in self.archive.tell(candidates):
            log_probability = self._written.pop(candidate.architecture, None)
            if log_probability is not None:
                self._lessons.append(Lesson(candidate.architecture, log_probability, candidate.accuracy))
        while len(self._lessons) >= self.batch:
            self._learn(self._lessons[: self.batch])
            del self._lessons[: self.batch]

    def state(self) -> dict[str, Any]:
        return {
            "archive": self.archive.state(),
            "tensors": [tensor.flatten().tolist() for tensor in self._tensors()],
            "steps": self.moments[0].steps,
            "started": self._started,
            "baseline": self._baseline,
            "lessons": [[list(x.architecture), x.log_probability, x.accuracy] for x in self._lessons],
            "written": [[list(architecture), p] for architecture, p in self._written.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state["archive"])
        with torch.no_grad():
            for tensor, values in zip(self._tensors(), state["tensors"], strict=True):
                tensor.copy_(torch.tensor(values).reshape(tensor.shape))
        for moments in self.moments:
            moments.steps = state["steps"]
        self._started, self._baseline = state["started"], state["baseline"]
        self._lessons = [Lesson(tuple(genes), p, accuracy) for genes, p, accuracy in state["lessons"]]
        self._written = {tuple(genes): p for genes, p in state["written"]}

    def _tensors(self) -> list[Tensor]:
        """All that learning changes."""
        return [*self.weights, *(m.first for m in self.moments), *(m.second for m in self.moments)]

    def _drafts(self, count: int, rng: np.random.Generator) -> list[tuple[Architecture, float]]:
        architectures = self.controller.sample(count, rng)
        with torch.no_grad():
            log_probabilities, _ = self.controller(torch.tensor(architectures))
        return list(zip(architectures, log_probabilities.tolist(), strict=True))

    def _learn(self, lessons: Sequence[Lesson]) -> None:
        accuracies = np.array([lesson.accuracy for lesson in lessons])
        mean = float(accuracies.mean())
        self._baseline = mean if self._baseline is None else MEMORY * self._baseline + (1 - MEMORY) * mean
        deviation = float(np.std([c.accuracy for c in self.archive.measured.values()]))
        advantages = torch.tensor((accuracies - self._baseline) / max(deviation, 1e-12), dtype=torch.float32)
        genes = torch.tensor([lesson.architecture for lesson in lessons])
        old = torch.tensor([lesson.log_probability for lesson in lessons])
        for _ in range(self.EPOCHS):
            log_probability, entropy = self.controller(genes)
            gain = self._gain(advantages, log_probability, old) + self.entropy * entropy
            gradients = torch.autograd.grad(gain.mean(), self.weights)
            for weight, moments, gradient in zip(self.weights, self.moments, gradients, strict=True):
                adam_step(weight, moments, -gradient, self.rate)

    @abstractmethod
    def _gain(self, advantages: Tensor, log_probability: Tensor, old: Tensor) -> Tensor:
        """What a step raises, of every lesson (B,), given its log probability now and when it was written."""


class Reinforce(Controlled):
    """The policy gradient with a baseline."""

    RATE, EPOCHS = 0.03, 1

    def _gain(self, advantages: Tensor, log_probability: Tensor, old: Tensor) -> Tensor:
        return advantages * log_probability


class Ppo(Controlled):
    """Proximal policy optimisation: several steps on a batch, each kept near the policy that wrote it (equation 7)."""

    RATE, EPOCHS = 0.01, 4
    CLIP = 0.2

    def _gain(self, advantages: Tensor, log_probability: Tensor, old: Tensor) -> Tensor:
        ratio = (log_probability - old).exp()
        return torch.minimum(ratio * advantages, ratio.clamp(1 - self.CLIP, 1 + self.CLIP) * advantages)
