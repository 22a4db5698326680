"""The baselines: random, exhaustive and local search."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes, enumerated, neighbours
from metanas.strategies.archive import Archive, Limits, unmet

LARGEST = 10**6
"""Architectures beyond which no exhaustive search is begun."""


class Random:
    """Uniform draws, no network twice (Li and Talwalkar 2019 for how hard that is to beat)."""

    def __init__(self, space: Genotypes, size: int, *, limits: Limits | None = None) -> None:
        self.size, self.archive = size, Archive(space, limits)

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The `size` most accurate."""
        return self.archive.best(self.size)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        return self.archive.sample(count, rng)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self.archive.tell(candidates)

    def state(self) -> dict[str, Any]:
        return self.archive.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state)


class Exhaustive:
    """Every network of the space, in the order of its genes: for small spaces and as a check of the others."""

    def __init__(self, space: Genotypes, size: int, *, limits: Limits | None = None) -> None:
        if space.size() > LARGEST:
            raise MetanasError(
                f"the space '{space.name}' has {space.size():.3g} architectures, too many for the exhaustive strategy "
                f"(at most {LARGEST:,}); choose another strategy or a smaller space."
            )
        self.size, self.archive = size, Archive(space, limits)
        self._next = 0

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The `size` most accurate."""
        return self.archive.best(self.size)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """The next ones; none when all were asked for. Raises MetanasError when none at all meets the limits."""
        space, limits, asked = self.archive.space, self.archive.limits, list[Architecture]()
        while len(asked) < count and self._next < space.size():
            asked += self.archive.propose([enumerated(space, self._next)])
            self._next += 1
        if count and not asked and limits is not None and self.archive.barren:
            every = (enumerated(space, index) for index in range(space.size()))
            raise MetanasError(unmet(limits, "all architectures of", space, min(every, key=limits.excess)))
        return asked

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self.archive.tell(candidates)

    def state(self) -> dict[str, Any]:
        return {"archive": self.archive.state(), "next": self._next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state["archive"])
        self._next = state["next"]


class LocalSearch:
    """Hill climbing with restarts (White et al. 2021, "Local search is state of the art for NAS benchmarks").

    `starts` random architectures, then the neighbours of the most accurate in random order; the first that is better
    becomes the next centre. Where none is, the climb starts again from a random architecture.
    """

    def __init__(self, space: Genotypes, size: int, *, starts: int = 10, limits: Limits | None = None) -> None:
        if starts < 1:
            raise MetanasError(f"local search: starts must be at least 1, but is {starts}.")
        self.size, self.starts, self.archive = size, starts, Archive(space, limits)
        self._centre: Architecture | None = None
        self._drawn = 0  # uniform draws of this climb

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The `size` most accurate."""
        return self.archive.best(self.size)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        asked: list[Architecture] = []
        if self._centre is not None and self._drawn >= self.starts:
            around = list(neighbours(self.archive.space, self._centre))
            for index in rng.permutation(len(around)):
                if len(asked) == count:
                    return asked
                asked += self.archive.propose([around[index]])
            if not asked:
                self._centre, self._drawn = None, self.starts - 1  # a restart draws one
        uniform = self.archive.sample(count - len(asked), rng)
        self._drawn += len(uniform)
        return asked + uniform

    def tell(self, candidates: Sequence[Candidate]) -> None:
        for candidate in self.archive.tell(candidates):
            if self._centre is None or candidate.accuracy > self.archive[self._centre].accuracy:
                self._centre = candidate.architecture

    def state(self) -> dict[str, Any]:
        centre = None if self._centre is None else list(self._centre)
        return {"archive": self.archive.state(), "centre": centre, "drawn": self._drawn}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state["archive"])
        self._centre = None if state["centre"] is None else tuple(state["centre"])
        self._drawn = state["drawn"]
