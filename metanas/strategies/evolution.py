"""Evolution by tournament, crossover and mutation, with survival by non-dominated sorting of accuracy and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metanas.api import Architecture, Candidate, Cost
from metanas.pareto import crowding_distance, non_dominated_sort, select

if TYPE_CHECKING:
    from metanas.spaces.space import Space

CROSSOVER = 0.5
"""How often a child has two parents; it is mutated in any case."""
TRIES = 50
"""Draws before a space, or what is left of it, counts as exhausted."""


class Evolution:
    """NSGA-II over accuracy and multiply-accumulates (Deb et al. 2002), ask and tell.

    No two members compute the same network, and nothing that is held is proposed again.
    """

    def __init__(self, space: Space, size: int) -> None:
        self.space, self.size = space, size
        self.population: tuple[Candidate, ...] = ()

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Up to `count` new architectures: the default and uniform draws at first, then offspring."""
        taken = {self.space.canonical(member.architecture) for member in self.population}
        ranks = self._ranks()
        asked: list[Architecture] = []
        if not self.population:
            asked.append(self.space.default)
            taken.add(self.space.canonical(self.space.default))
        tries = 0
        while len(asked) < count and tries < TRIES * count:
            tries += 1
            child = self._child(ranks, rng) if self.population else self.space.sample(rng)
            key = self.space.canonical(child)
            if key not in taken:
                taken.add(key)
                asked.append(child)
        return asked[:count]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Takes a generation's measurements, those of the old population among them, and keeps the fittest.

        The most accurate always survives.
        """
        # The cheapest end of the front is as crowded out as the accurate one is, so ties need an order: by accuracy.
        ranked = sorted(candidates, key=lambda c: (-c.accuracy, c.cost.macs, c.architecture))
        objectives = np.array([[c.accuracy, -float(c.cost.macs)] for c in ranked])
        self.population = tuple(ranked[i] for i in select(objectives, self.size))

    def state(self) -> dict[str, Any]:
        """The population as JSON can hold it."""
        return {
            "population": [
                [list(c.architecture), c.accuracy, c.cost.params, c.cost.macs] for c in self.population
            ]
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        self.population = tuple(
            Candidate(tuple(architecture), accuracy, Cost(params, macs))
            for architecture, accuracy, params, macs in state["population"]
        )

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
        ranks = np.zeros(len(self.population))
        objectives = np.array([[c.accuracy, -float(c.cost.macs)] for c in self.population])
        position = 0
        for front in non_dominated_sort(objectives):
            for i in np.argsort(-crowding_distance(objectives[front]), kind="stable"):
                ranks[front[i]] = position
                position += 1
        return ranks
