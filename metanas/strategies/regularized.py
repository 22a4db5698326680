"""Regularized evolution (Real et al. 2019, "Regularized evolution for image classifier architecture search")."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Archive, Limits


class Regularized:
    """The oldest dies, not the worst (algorithm 1): each child is a mutation of the best of a sample of the living.

    AmoebaNet has a population (`size`) of 100 and a `sample` of 25, which by default is a quarter of the population.
    A member that is told again keeps its age, and one that has died stays dead.
    """

    def __init__(self, space: Genotypes, size: int, *, sample: int | None = None, limits: Limits | None = None) -> None:
        self.space, self.size = space, size
        self.sample = -(-size // 4) if sample is None else sample
        if not 1 <= self.sample <= size:
            raise MetanasError(
                f"regularized evolution: sample must be from 1 to the population, which is {size}, but is {sample}."
            )
        self.archive = Archive(space, limits)
        self._living: list[Architecture] = []  # canonical, the oldest first

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The living, the oldest first."""
        return tuple(self.archive[architecture] for architecture in self._living)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Uniform draws until the population is full, then children."""
        asked: list[Architecture] = []
        if len(self._living) == self.size:
            asked = self.archive.fresh(count, lambda: self._child(rng))
        return asked + self.archive.sample(count - len(asked), rng)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        before = set(self.archive.measured)
        told = [self.space.canonical(c.architecture) for c in self.archive.tell(candidates)]
        self._living = [*self._living, *(key for key in told if key not in before)][-self.size :]

    def state(self) -> dict[str, Any]:
        return {"archive": self.archive.state(), "living": [list(key) for key in self._living]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state["archive"])
        self._living = [tuple(key) for key in state["living"]]

    def _child(self, rng: np.random.Generator) -> Architecture:
        drawn = rng.choice(len(self._living), size=self.sample, replace=False)
        parent = max((self.archive[self._living[i]] for i in drawn), key=lambda member: member.accuracy)
        return self.space.mutate(parent.architecture, rng)
