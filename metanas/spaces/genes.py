"""What a strategy needs to know of a search space: its architectures as tuples of genes, and nothing of networks."""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from metanas.api import Architecture
from metanas.errors import MetanasError


class Genotypes(Protocol):
    """Architectures that can be drawn and varied. Every gene is independent of the others."""

    name: str

    @property
    def default(self) -> Architecture:
        """A sound hand-made architecture."""

    @property
    def counts(self) -> Sequence[int]:
        """How many values each gene can take; any tuple of values below them is an architecture."""

    def size(self) -> int:
        """The exact number of architectures (of tuples that `check` accepts)."""

    def check(self, architecture: Architecture) -> None:
        """Raises MetanasError that names the gene when the tuple is no architecture of this space."""

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture, each with the same probability."""

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """A copy in which one gene, or the genes that hang together, took another value. Never the same tuple."""

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """A child that takes each gene, or the genes that hang together, from one of its parents."""

    def canonical(self, architecture: Architecture) -> Architecture:
        """The representative of all architectures that compute the same network."""

    def encode(self, architecture: Architecture) -> np.ndarray:
        """(E,) float features for a predictor."""

    def describe(self, architecture: Architecture) -> str:
        """One line a person can read. Stores keep it, to tell networks of equal costs apart."""


class Genes:
    """The genotypes of a space given by the number of values of each gene. Override what a space knows better."""

    def __init__(self, name: str, counts: Sequence[int]) -> None:
        if not counts or min(counts) < 1 or max(counts) < 2:
            raise MetanasError(f"the space '{name}' needs a gene with two values at least, but has counts {counts}.")
        self.name = name
        self.counts = tuple(counts)

    @property
    def default(self) -> Architecture:
        """All genes at their first value."""
        return (0,) * len(self.counts)

    def size(self) -> int:
        return math.prod(self.counts)

    def check(self, architecture: Architecture) -> None:
        if len(architecture) != len(self.counts):
            raise MetanasError(
                f"an architecture of the space '{self.name}' has {len(self.counts)} genes, but {architecture} has "
                f"{len(architecture)}."
            )
        for gene, (value, count) in enumerate(zip(architecture, self.counts, strict=True)):
            if not isinstance(value, int) or not 0 <= value < count:
                raise MetanasError(
                    f"gene {gene} ({self.gene_name(gene)}) of {architecture} must be a whole number from 0 to "
                    f"{count - 1}, but is {value!r}."
                )

    def gene_name(self, gene: int) -> str:
        """What a gene decides, for messages."""
        return f"of the space '{self.name}'"

    def sample(self, rng: np.random.Generator) -> Architecture:
        return tuple(int(rng.integers(count)) for count in self.counts)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        gene = int(rng.choice([i for i, count in enumerate(self.counts) if count > 1]))
        value = int(rng.integers(self.counts[gene] - 1))
        value += value >= architecture[gene]
        return (*architecture[:gene], value, *architecture[gene + 1 :])

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        from_a = rng.random(len(a)) < 0.5
        return tuple(x if first else y for x, y, first in zip(a, b, from_a, strict=True))

    def canonical(self, architecture: Architecture) -> Architecture:
        return architecture

    def encode(self, architecture: Architecture) -> np.ndarray:
        canonical = self.canonical(architecture)
        return np.concatenate([np.eye(count)[value] for value, count in zip(canonical, self.counts, strict=True)])

    def describe(self, architecture: Architecture) -> str:
        return f"{self.name} {' '.join(map(str, architecture))}"


def neighbours(space: Genotypes, architecture: Architecture) -> Iterator[Architecture]:
    """All that differ from an architecture in one gene, gene by gene."""
    for gene, count in enumerate(space.counts):
        for value in range(count):
            if value != architecture[gene]:
                yield (*architecture[:gene], value, *architecture[gene + 1 :])


def enumerated(space: Genotypes, index: int) -> Architecture:
    """The architecture with a number from 0 to `space.size()` - 1, the last gene changing fastest."""
    genes = []
    for count in reversed(space.counts):
        index, value = divmod(index, count)
        genes.append(value)
    return tuple(reversed(genes))
