"""Evolution by tournament, crossover and mutation, with survival by non-dominated sorting of accuracy and costs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Archive, Limits, check_costs, cost_of, ranked
from metanas.strategies.pareto import crowding_distance, non_dominated_sort, select

Crossover = Literal["uniform", "one-point"]


class Evolution:
    """NSGA-II over accuracy and `costs` (Deb et al. 2002); with no costs a genetic algorithm over accuracy alone.

    A child has the winner of a tournament of `tournament` members as its parent, with probability `crossover_rate` two
    of them: "uniform" takes each gene, or the genes that hang together, from either, "one-point" the genes before a
    random place from one and those after it from the other. Every child is mutated in one place. Parents and children
    compete for `size` places, so the most accurate always survives.
    """

    def __init__(
        self,
        space: Genotypes,
        size: int,
        *,
        costs: Sequence[str] = ("macs",),
        tournament: int = 2,
        crossover: Crossover = "uniform",
        crossover_rate: float = 0.5,
        limits: Limits | None = None,
    ) -> None:
        check_costs("costs", costs)
        if tournament < 1 or not 0 <= crossover_rate <= 1:
            raise MetanasError(
                f"evolution: tournament must be at least 1 and crossover_rate from 0 to 1, but they are {tournament} "
                f"and {crossover_rate}."
            )
        self.space, self.size, self.costs = space, size, tuple(costs)
        self.tournament, self.crossover, self.crossover_rate = tournament, crossover, crossover_rate
        self.population: tuple[Candidate, ...] = ()
        self.archive = Archive(space, limits)

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """The default and uniform draws at first, `size` of them, then offspring. Fewer when none are left."""
        asked = [] if len(self.archive) or not count else self.archive.propose([self.space.default])
        drawn = max(0, self.size - len(self.archive))
        if self.population and count - len(asked) > drawn:
            ranks = self._ranks()
            asked += self.archive.fresh(count - len(asked) - drawn, lambda: self._child(ranks, rng))
        # Where every offspring is known already, the rest of the space may not be.
        return asked + self.archive.sample(count - len(asked), rng)

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Members that are told again compete with their latest measurement."""
        told = self.archive.tell(candidates)
        pool = {self.space.canonical(c.architecture): c for c in (*self.population, *told)}
        # Both ends of a front are equally uncrowded; in this order the accurate end comes before the cheap one.
        order = ranked(pool.values())
        self.population = tuple(order[i] for i in select(self._objectives(order), self.size))

    def state(self) -> dict[str, Any]:
        return {"archive": self.archive.state(), "population": [list(c.architecture) for c in self.population]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.archive.restore(state["archive"])
        self.population = tuple(self.archive[tuple(architecture)] for architecture in state["population"])

    def _child(self, ranks: np.ndarray, rng: np.random.Generator) -> Architecture:
        parent = self._winner(ranks, rng)
        if rng.random() < self.crossover_rate:
            other = self._winner(ranks, rng)
            if self.crossover == "uniform":
                parent = self.space.crossover(parent, other, rng)
            else:
                parent = one_point(parent, other, rng)
        return self.space.mutate(parent, rng)

    def _winner(self, ranks: np.ndarray, rng: np.random.Generator) -> Architecture:
        """The fittest of some members drawn with replacement (section III-C of Deb et al.)."""
        drawn = rng.integers(len(ranks), size=self.tournament)
        return self.population[int(drawn[np.argmin(ranks[drawn])])].architecture

    def _ranks(self) -> np.ndarray:
        """The position of every member in the order of front and crowding."""
        objectives = self._objectives(self.population)
        order = [
            front[i]
            for front in non_dominated_sort(objectives)
            for i in np.argsort(-crowding_distance(objectives[front]), kind="stable")
        ]
        return np.argsort(order)

    def _objectives(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """(n, 1 + costs), all to be maximised."""
        return np.array([[c.accuracy, *(-cost_of(c.cost, name) for name in self.costs)] for c in candidates])


def one_point(a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
    """The genes of `a` before a random place, those of `b` from there on; both give one at least."""
    place = int(rng.integers(1, len(a))) if len(a) > 1 else 0
    return (*a[:place], *b[place:])
