"""Measure many cheaply and few in full: successive halving, Hyperband and ASHA over any strategy.

A rung is a share of a full measurement. The strategy inside proposes who starts, and is told what was measured on the
lowest rung alone, so that all it compares was measured alike; who climbs is decided here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Any

import numpy as np

from metanas.api import Architecture, Candidate
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Limits, ranked
from metanas.strategies.strategy import Strategy

RUNGS = (0.25, 1.0)


class Race(ABC):
    """Rungs, and who stands on which. What a strategy asks for next is left to the final classes."""

    def __init__(
        self,
        space: Genotypes,
        size: int,
        *,
        over: Strategy,
        rungs: Sequence[float] = RUNGS,
        eta: float = 4.0,
        limits: Limits | None = None,
    ) -> None:
        """Of `eta` on a rung one climbs. What is told beyond the `limits`, which `over` keeps to, is left out."""
        if isinstance(over, Race):
            raise MetanasError("over: a race over a race has no meaning; name the strategy that proposes who starts.")
        if not rungs or sorted(set(rungs)) != list(rungs) or rungs[0] <= 0 or rungs[-1] != 1 or eta <= 1:
            raise MetanasError(
                f"rungs must ascend from a share above 0 to 1, and eta be above 1, but they are {list(rungs)} and "
                f"{eta:g}."
            )
        self.space, self.size, self.over, self.rungs, self.eta = space, size, over, tuple(rungs), eta
        self.limits = limits
        self.top = len(rungs) - 1
        self.standings: list[dict[Architecture, Candidate]] = [{} for _ in rungs]  # by canonical form
        self._awaited: dict[Architecture, int] = {}  # canonical form -> the rung that it was asked for
        self._begin()

    @property
    def population(self) -> tuple[Candidate, ...]:
        """Of those that climbed highest the most accurate first, then those below."""
        found: dict[Architecture, Candidate] = {}
        for standing in reversed(self.standings):
            for candidate in ranked(standing.values()):
                found.setdefault(self.space.canonical(candidate.architecture), candidate)
        return tuple(found.values())[: self.size]

    def fidelity(self, architecture: Architecture) -> float:
        """The share of a full measurement to spend on an architecture; 1 on a stranger."""
        return self.rungs[self._rung_of(self.space.canonical(architecture))]

    def _rung_of(self, key: Architecture) -> int:
        """Where it is awaited, else the highest on which it stands."""
        standing = (rung for rung in range(self.top, -1, -1) if key in self.standings[rung])
        return self._awaited.get(key, next(standing, self.top))

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Those that climb, before new ones of the strategy inside. One at least, as long as any is left."""
        asked: list[Architecture] = []
        while len(asked) < count:
            found = self._next(rng, first=not asked)
            if found is None:
                break
            architecture, rung = found
            self._awaited[self.space.canonical(architecture)] = rung
            asked.append(architecture)
        return asked

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Measurements at their `fidelity`; one that was told before is replaced."""
        lowest = []
        for candidate in candidates:
            if self.limits is not None and not self.limits.met(candidate.architecture):
                continue
            key = self.space.canonical(candidate.architecture)
            rung = self._rung_of(key)
            self._awaited.pop(key, None)
            self.standings[rung][key] = candidate
            if rung == 0:
                lowest.append(candidate)
        self.over.tell(lowest)

    def state(self) -> dict[str, Any]:
        return {
            "over": self.over.state(),
            "standings": [[c.row() for c in standing.values()] for standing in self.standings],
            "awaited": [[list(key), rung] for key, rung in self._awaited.items()],
            "climb": self._climb_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.over.restore(state["over"])
        self.standings = [
            {self.space.canonical(c.architecture): c for c in map(Candidate.of, rows)} for rows in state["standings"]
        ]
        self._awaited = {tuple(key): rung for key, rung in state["awaited"]}
        self._restore_climb(state["climb"])

    def _start(self, rng: np.random.Generator) -> Architecture | None:
        return next(iter(self.over.ask(1, rng)), None)

    @abstractmethod
    def _begin(self) -> None:
        """Nobody has climbed yet."""

    @abstractmethod
    def _next(self, rng: np.random.Generator, first: bool) -> tuple[Architecture, int] | None:
        """What to measure next and on which rung; None when nothing is left. `first` of what is asked for at once."""

    @abstractmethod
    def _climb_state(self) -> Any:
        """Who climbed, as JSON can hold it."""

    @abstractmethod
    def _restore_climb(self, state: Any) -> None: ...


class Asha(Race):
    """Asynchronous successive halving (Li et al. 2020, algorithm 2): whoever is in the best 1 / eta of a rung climbs.

    It never waits for a result, so it keeps any number of workers busy.
    """

    def _begin(self) -> None:
        self._climbed: list[set[Architecture]] = [set() for _ in self.rungs]

    def _next(self, rng: np.random.Generator, first: bool) -> tuple[Architecture, int] | None:
        for rung in range(self.top - 1, -1, -1):
            standing = self.standings[rung].values()
            for candidate in nlargest(int(len(standing) / self.eta), standing, key=lambda c: c.accuracy):
                key = self.space.canonical(candidate.architecture)
                if key not in self._climbed[rung]:
                    self._climbed[rung].add(key)
                    return candidate.architecture, rung + 1
        architecture = self._start(rng)
        return None if architecture is None else (architecture, 0)

    def _climb_state(self) -> Any:
        return [sorted(list(key) for key in keys) for keys in self._climbed]

    def _restore_climb(self, state: Any) -> None:
        self._climbed = [{tuple(key) for key in keys} for keys in state]


class Halving(Race):
    """Successive halving (Jamieson and Talwalkar 2016): brackets of which the best 1 / eta of every rung climb.

    A rung is closed when as many were measured as it has places, and no more are asked for at once. While results are
    missing, late or lost, every further `ask` gives the next best, so nobody waits and a failure holds nothing up.
    """

    def _begin(self) -> None:
        self._bracket = 0
        self._rung = self._starts()[0]
        self._asked: list[Architecture] = []  # canonical, on the present rung of the present bracket
        self._waiting: list[Architecture] = []  # those of the rung below that may climb, best first

    def _starts(self) -> Sequence[int]:
        """The rungs on which brackets start, in turn."""
        return (0,)

    def _places(self) -> int:
        start = self._starts()[self._bracket]
        climbs = self.top - start
        begun = math.ceil(len(self.rungs) / (climbs + 1) * self.eta**climbs)
        return max(1, int(begun / self.eta ** (self._rung - start)))

    def _next(self, rng: np.random.Generator, first: bool) -> tuple[Architecture, int] | None:
        while True:
            measured = [self.standings[self._rung][key] for key in self._asked if key in self.standings[self._rung]]
            if len(measured) < self._places():
                if len(self._asked) >= self._places() and not first:
                    return None
                architecture = self._candidate(rng)
                if architecture is not None:
                    self._asked.append(self.space.canonical(architecture))
                    return architecture, self._rung
                if self._starting() and not measured:
                    return None
            if measured and self._rung < self.top:
                self._enter(self._bracket, self._rung + 1, ranked(measured))
            else:
                following = (self._bracket + 1) % len(self._starts())
                self._enter(following, self._starts()[following], [])

    def _starting(self) -> bool:
        return self._rung == self._starts()[self._bracket]

    def _candidate(self, rng: np.random.Generator) -> Architecture | None:
        if self._starting():
            return self._start(rng)
        return self._waiting.pop(0) if self._waiting else None

    def _enter(self, bracket: int, rung: int, waiting: Sequence[Candidate]) -> None:
        self._bracket, self._rung, self._asked = bracket, rung, []
        self._waiting = [candidate.architecture for candidate in waiting]

    def _climb_state(self) -> Any:
        return [self._bracket, self._rung, [list(key) for key in self._asked], [list(a) for a in self._waiting]]

    def _restore_climb(self, state: Any) -> None:
        self._bracket, self._rung, asked, waiting = state
        self._asked, self._waiting = [tuple(key) for key in asked], [tuple(a) for a in waiting]


class Hyperband(Halving):
    """Hyperband (Li et al. 2018): successive halving with brackets that start on every rung in turn.

    Against a lowest rung that ranks badly, some are measured in full from the start.
    """

    def _starts(self) -> Sequence[int]:
        return range(len(self.rungs))


def fidelity(strategy: Strategy, architecture: Architecture) -> float:
    """The share of a full measurement that a strategy wants: all of it, unless it is a race."""
    return strategy.fidelity(architecture) if isinstance(strategy, Race) else 1.0
