"""What every strategy remembers: all that was proposed, and the latest measurement of each network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from metanas.api import Architecture, Candidate, Cost
from metanas.errors import MetanasError
from metanas.spaces.genes import Genotypes

TRIES = 50
"""Draws for each asked architecture before a space, or what is left of it, counts as exhausted."""
BEYOND = 2000
"""Draws in a row beyond the limits before they count as impossible to meet."""


@dataclass(frozen=True)
class Limits:
    """Costs that no proposed architecture may exceed: `most` maps fields of `Cost` to the largest value allowed."""

    cost: Callable[[Architecture], Cost]
    most: Mapping[str, float]

    def __post_init__(self) -> None:
        check_costs("limits", tuple(self.most))

    def met(self, architecture: Architecture) -> bool:
        return self.excess(architecture) == 0

    def excess(self, architecture: Architecture) -> float:
        """How far it is beyond the limits: each cost's part above its limit, added up."""
        cost = self.cost(architecture)
        return sum(max(0.0, cost_of(cost, name) - most) / abs(most or 1.0) for name, most in self.most.items())


def check_costs(key: str, names: Sequence[str]) -> None:
    """Raises MetanasError when a name is none of the costs."""
    known = [field.name for field in fields(Cost)]
    for name in names:
        if name not in known:
            raise MetanasError(f"{key}: '{name}' is no cost of an architecture; name some of {', '.join(known)}.")


def cost_of(cost: Cost, name: str) -> float:
    """One cost by name. Raises MetanasError when it was not measured."""
    value = getattr(cost, name)
    if value is None:
        raise MetanasError(f"the cost '{name}' is to be searched by, but is not measured here; leave it out.")
    return float(value)


class Archive:
    """The memory of a strategy over `space`, by the canonical forms of architectures.

    `measured` holds the latest measurement of every network within the limits, in the order of the first ones.
    """

    def __init__(self, space: Genotypes, limits: Limits | None = None) -> None:
        self.space, self.limits = space, limits
        self.measured: dict[Architecture, Candidate] = {}
        self._known: set[Architecture] = set()  # all that was ever proposed or told

    def __getitem__(self, architecture: Architecture) -> Candidate:
        return self.measured[self.space.canonical(architecture)]

    def __contains__(self, architecture: Architecture) -> bool:
        """Whether it was proposed or told."""
        return self.space.canonical(architecture) in self._known

    def __len__(self) -> int:
        """How many networks were proposed or told."""
        return len(self._known)

    @property
    def barren(self) -> bool:
        """Whether nothing that is known stays within the limits."""
        return self.limits is not None and not any(map(self.limits.met, self._known))

    def fresh(self, count: int, draw: Callable[[], Architecture]) -> list[Architecture]:
        """Up to `count` draws that are new and within the limits, which count as proposed from now on."""
        asked: list[Architecture] = []
        known = beyond = 0
        while len(asked) < count and known < TRIES * count and beyond < BEYOND:
            architecture = draw()
            if architecture in self:
                known += 1
            elif self.limits is not None and not self.limits.met(architecture):
                beyond += 1
            else:
                beyond = 0
                asked += self.propose([architecture])
        return asked

    def sample(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Up to `count` new architectures, uniform draws; where the limits let none of many pass, one that was sought.

        Raises MetanasError when neither drawing nor seeking has ever found any within the limits.
        """
        asked = self.fresh(count, lambda: self.space.sample(rng))
        if count and not asked and self.limits is not None:
            sought, excess = self._sought(self.limits, rng)
            asked = self.propose([sought])
            if excess and self.barren:
                raise MetanasError(unmet(self.limits, f"{BEYOND:,} architectures drawn from", self.space, sought))
        return asked

    def propose(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """Those that are new and within the limits; they count as proposed from now on."""
        asked = []
        for architecture in architectures:
            if architecture not in self and (self.limits is None or self.limits.met(architecture)):
                self._known.add(self.space.canonical(architecture))
                asked.append(architecture)
        return asked

    def tell(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Records measurements and gives back those that count: of one network the most accurate, within the limits."""
        told: dict[Architecture, Candidate] = {}
        for candidate in candidates:
            key = self.space.canonical(candidate.architecture)
            if np.isnan(candidate.accuracy):
                raise ValueError(f"the accuracy of {candidate.architecture} must be a number; a failure is not told")
            if key not in told or candidate.accuracy > told[key].accuracy:
                told[key] = candidate
        self._known |= told.keys()
        within = {k: c for k, c in told.items() if self.limits is None or self.limits.met(c.architecture)}
        self.measured |= within
        return list(within.values())

    def best(self, size: int) -> tuple[Candidate, ...]:
        """The most accurate, the cheaper of equals first."""
        return tuple(ranked(self.measured.values())[:size])

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""
        return {
            "measured": [candidate.row() for candidate in self.measured.values()],
            "known": sorted(list(key) for key in self._known),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`."""
        candidates = [Candidate.of(row) for row in state["measured"]]
        self.measured = {self.space.canonical(c.architecture): c for c in candidates}
        self._known = {tuple(key) for key in state["known"]}

    def _sought(self, limits: Limits, rng: np.random.Generator) -> tuple[Architecture, float]:
        """From the best of some draws by mutations that exceed the limits less and less: the last, and its excess.

        It ends at the first that is within them and new.
        """
        excess, found = min((limits.excess(a), a) for a in (self.space.sample(rng) for _ in range(TRIES)))
        for _ in range(BEYOND):
            if excess == 0 and found not in self:
                break
            changed = self.space.mutate(found, rng)
            if (less := limits.excess(changed)) <= excess:
                excess, found = less, changed
        return found, excess


def unmet(limits: Limits, what: str, space: Genotypes, closest: Architecture) -> str:
    """The message that none of `what` in a space is within the limits."""
    cost = limits.cost(closest)
    least = ", ".join(f"{name} {cost_of(cost, name):g}" for name in limits.most)
    most = ", ".join(f"{name} {limit:g}" for name, limit in limits.most.items())
    return (
        f"limits: none of {what} the space '{space.name}' stays within {most}; the closest that was found has {least}: "
        "raise the limits."
    )


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The most accurate first, and of equals the cheapest."""
    return sorted(candidates, key=lambda c: (-c.accuracy, c.cost.macs, c.architecture))
