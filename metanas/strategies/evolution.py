"""Evolution by tournament, crossover and mutation, with survival by non-dominated sorting of accuracy and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metanas.api import Architecture, Candidate, Cost
from metanas.pareto import crowding_distance, non_dominated_sort, select

if TYPE_CHECKING:
    from metanas.spaces.space import Space

CROSSOVER = 0.5
"""How often a child has two parents; it is mutated in any case."""
TRIES = 50
"""Draws for each asked architecture before a space, or what is left of it, counts as exhausted."""


class Evolution:
    """NSGA-II over accuracy and multiply-accumulates (Deb et al. 2002), ask and tell.

    A network is proposed once: nothing that computes the same as what was proposed or told before is asked for again,
    and no two members of the population compute the same.
    """

    def __init__(self, space: Space, size: int) -> None:
        self.space, self.size = space, size
        self.population: tuple[Candidate, ...] = ()
        self._known: set[Architecture] = set()  # canonical forms of all that was ever proposed or told

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """New architectures: the default and uniform draws at first, then offspring. Fewer when none are left."""
        asked: list[Architecture] = []
        for architecture in self._draws(count, rng):
            if len(asked) == count:
                break
            key = self.space.canonical(architecture)
            if key not in self._known:
                self._known.add(key)
                asked.append(architecture)
        return asked

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Takes a generation's measurements, those of the old population among them, and keeps the fittest.

        The most accurate always survives.
        """
        # Both ends of a front are equally uncrowded; in this order the accurate end comes before the cheap one.
        ranked = sorted(candidates, key=lambda c: (-c.accuracy, c.cost.macs, c.architecture))
        different = {self.space.canonical(c.architecture): c for c in reversed(ranked)}
        self._known |= different.keys()
        ranked = [c for c in ranked if different[self.space.canonical(c.architecture)] is c]
        self.population = tuple(ranked[i] for i in select(_objectives(ranked), self.size))

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""
        return {
            "population": [[list(c.architecture), c.accuracy, c.cost.params, c.cost.macs] for c in self.population],
            "known": sorted(list(key) for key in self._known),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        self.population = tuple(
            Candidate(tuple(architecture), accuracy, Cost(params, macs))
            for architecture, accuracy, params, macs in state["population"]
        )
        self._known = {tuple(key) for key in state["known"]}

    def _draws(self, count: int, rng: np.random.Generator) -> Iterator[Architecture]:
        if self.population:
            ranks = self._ranks()
            for _ in range(TRIES * count):
                yield self._child(ranks, rng)
        else:
            yield self.space.default
        # Where every offspring is known already, the rest of the space may not be.
        for _ in range(TRIES * count):
            yield self.space.sample(rng)

    def _child(self, ranks: np.ndarray, rng: np.random.Generator) -> Architecture:
        parent = self._winner(ranks, rng)
        if rng.random() < CROSSOVER:
            parent = self.space.crossover(parent, self._winner(ranks, rng), rng)
        return self.space.mutate(parent, rng)

    def _winner(self, ranks: np.ndarray, rng: np.random.Generator) -> Architecture:
        """A binary tournament (section III-C of Deb et al.)."""
        a, b = rng.integers(len(ranks), size=2)
        return self.population[int(a if ranks[a] <= ranks[b] else b)].architecture

    def _ranks(self) -> np.ndarray:
        """The position of every member in the order of front and crowding."""
        objectives = _objectives(self.population)
        order = [
            front[i]
            for front in non_dominated_sort(objectives)
            for i in np.argsort(-crowding_distance(objectives[front]), kind="stable")
        ]
        return np.argsort(order)


def _objectives(candidates: Sequence[Candidate]) -> np.ndarray:
    return np.array([[c.accuracy, -float(c.cost.macs)] for c in candidates])
