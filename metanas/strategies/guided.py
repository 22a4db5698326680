"""Predictor-guided search: a model of all that was measured picks what to measure next.

Bayesian optimisation over architectures after BANANAS (White et al. 2021, sections 3 and 4): candidates are mutations
of the best measured so far (local candidates) and uniform draws; an acquisition function over the model's mean and
spread ranks them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Archive, Limits
from predictors.acquisition import ACQUISITIONS, Acquisition
from predictors.pool import PoolPredictor
from predictors.predictor import Predictor
from predictors.ranking import normal_scores

PARENTS = 10
"""The most accurate, whose mutations are candidates (BANANAS mutates the best 10)."""


class Guided:
    """Asks a model, fitted to all that was measured, about many candidates, and proposes the most promising.

    The first `initial` architectures are uniform draws. Then `pool` candidates are bred for every ask, two thirds from
    the best, and ranked by `acquisition`: "ei" (expected improvement on the best that the model expects of what was
    measured), "ucb" (upper confidence) or "thompson" (a draw from what the model expects). The model learns normal
    scores of the ranks of accuracies, so that a few bad networks do not take up its whole scale.

    With `sources`, predictors of other tasks over the same space, there are no first draws: they pick from the start,
    and share the word with the model as far as they order this task's measurements (`PoolPredictor`).
    """

    def __init__(
        self,
        space: Genotypes,
        size: int,
        *,
        model: Callable[[], Predictor],
        sources: Sequence[Predictor] = (),
        initial: int = 10,
        pool: int = 300,
        acquisition: Acquisition = "ei",
        limits: Limits | None = None,
    ) -> None:
        if initial < 1 or pool < 1:
            raise MetanasError(f"guided: initial and pool must be at least 1, but are {initial} and {pool}.")
        self.space, self.size, self.model, self.sources = space, size, model, tuple(sources)
        self.initial, self.pool, self.acquisition = 0 if sources else initial, pool, acquisition
        self.archive = Archive(space, limits)

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The `size` most accurate."""
        return self.archive.best(self.size)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        asked = self.archive.sample(min(count, max(0, self.initial - len(self.archive))), rng)
        if len(asked) < count and (self.archive.measured or self.sources):
            candidates = self._candidates(rng)
            for index in np.argsort(-self._promise(candidates, rng), kind="stable") if candidates else ():
                if len(asked) == count:
                    break
                asked += self.archive.propose([candidates[index]])
        return asked + self.archive.sample(count - len(asked), rng)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self.archive.tell(candidates)

    def state(self) -> dict[str, Any]:
        return self.archive.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state)

    def _candidates(self, rng: np.random.Generator) -> list[Architecture]:
        """New architectures, one a network."""
        best = [member.architecture for member in self.archive.best(PARENTS)]
        near = 2 * self.pool // 3 if best else 0
        local = (self.space.mutate(best[i], rng) for i in rng.integers(max(1, len(best)), size=near))
        uniform = (self.space.sample(rng) for _ in range(self.pool - near))
        found = {self.space.canonical(a): a for a in (*local, *uniform) if a not in self.archive}
        return list(found.values())

    @property
    def believed(self) -> tuple[float, ...]:
        """The part that each of the sources has in what is said by now, then the own model's; () without sources."""
        fitted = self.fitted()
        return tuple(fitted.weights.tolist()) if isinstance(fitted, PoolPredictor) else ()

    def fitted(self) -> Predictor:
        """The model of all that was measured, or the sources with it."""
        measured = self.archive.measured.values()
        model = PoolPredictor(self.model, self.sources, 0) if self.sources else self.model()
        if not measured:
            return model
        seen = self._encode([member.architecture for member in measured])
        return model.fit(seen, normal_scores(np.array([member.accuracy for member in measured])))

    def _promise(self, candidates: Sequence[Architecture], rng: np.random.Generator) -> np.ndarray:
        """The acquisition function, (n,); before anything was measured what the sources expect."""
        model, known = self.fitted(), list(self.archive.measured)
        mean, spread = model.predict(self._encode([*known, *candidates]))
        if not known:
            return mean
        first = len(known)
        return ACQUISITIONS[self.acquisition](mean[first:], spread[first:], float(mean[:first].max()), rng)

    def _encode(self, architectures: Sequence[Architecture]) -> np.ndarray:
        return np.stack([self.space.encode(self.space.canonical(a)) for a in architectures])
