"""What every strategy promises."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from metanas.api import Architecture, Candidate


class Strategy(Protocol):
    """Proposes architectures and learns from results, with no input or output of its own.

    Nothing is expected of the order of calls: several may be asked for before any is told, results may come late, in
    any order or not at all (an evaluation that failed is not told), and results may be told that were never asked for.
    No network is proposed twice, except at another fidelity (see `Racing`).
    """

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The architectures worth keeping so far, each a network of its own. Empty before the first result."""

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """New architectures to measure; fewer, or none, when no more are left.

        Raises MetanasError when no architecture meets the limits that were given.
        """

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Takes measurements; one of an architecture measured before replaces the earlier one."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state` as if never interrupted."""


@runtime_checkable
class Racing(Strategy, Protocol):
    """A strategy that measures many cheaply, and again at more cost those that did well."""

    def fidelity(self, architecture: Architecture) -> float:
        """The share of a full measurement (of epochs, episodes or data) to spend on what was asked for last.

        In (0, 1]; 1 for an architecture that awaits no result.
        """


def fidelity(strategy: Strategy, architecture: Architecture) -> float:
    """The share of a full measurement that a strategy wants: all of it, unless it races."""
    return strategy.fidelity(architecture) if isinstance(strategy, Racing) else 1.0
