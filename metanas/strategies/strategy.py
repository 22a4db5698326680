"""What every strategy promises."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from metanas.api import Architecture, Candidate


class Strategy(Protocol):
    """Proposes architectures and learns from results, with no input or output of its own.

    Nothing is expected of the order of calls: several may be asked for before any is told, results may come late, in
    any order or not at all (an evaluation that failed is not told), and results may be told that were never asked for.
    No network is proposed twice, except at a higher fidelity (see halving.py).
    """

    @property
    def population(self) -> tuple[Candidate, ...]:
        """The architectures worth keeping so far, each a network of its own. Empty before the first result."""

    def ask(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """New architectures to measure: fewer where some must be measured first, none when no more are left.

        Raises MetanasError when no architecture meets the limits that were given.
        """

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Takes measurements; one of an architecture measured before replaces the earlier one."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON can hold it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state` as if never interrupted."""
