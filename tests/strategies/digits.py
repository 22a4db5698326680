"""A small space whose accuracies are known."""

from itertools import product

import numpy as np

from metanas.api import Architecture, Candidate, Cost
from metanas.spaces.genes import Genes

VALUES = 4


class Digits(Genes):
    """Tuples of `length` digits below 4; where the first is 0, the second does nothing."""

    def __init__(self, length: int) -> None:
        super().__init__("digits", (VALUES,) * length)
        self.length = length

    @property
    def default(self) -> Architecture:
        return (1,) * self.length

    def canonical(self, architecture: Architecture) -> Architecture:
        return (0, 0, *architecture[2:]) if architecture[0] == 0 else architecture

    def different(self) -> set[Architecture]:
        return {self.canonical(a) for a in product(range(VALUES), repeat=self.length)}


def cost(architecture: Architecture) -> Cost:
    """Larger digits cost more."""
    return Cost(sum(architecture), 10 + sum(architecture))


def measure(architecture: Architecture) -> Candidate:
    """Accurate where the digits are 3, 0, 3, 0, ..."""
    right = [value == (3 if i % 2 == 0 else 0) for i, value in enumerate(architecture)]
    return Candidate(architecture, float(np.mean(right)), cost(architecture))
