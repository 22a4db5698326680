"""What spaces have in common whose genes are independent and whose weights nest (once-for-all, Cai et al. 2020).

A 3x3 kernel is the centre of the 5x5 one, and a narrow layer is the first channels of the wide one (section 3.3).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.spaces.space import Features, Index

CENTRE = 3
"""The kernel that starts with weights; the rim of a larger one starts at zero and grows from there."""


class Elastic(ABC):
    """A space whose genes do not restrict one another, each an index into its `choices`."""

    name: str
    choices: Sequence[Sequence[object]]

    @abstractmethod
    def build(self, architecture: Architecture) -> Features: ...

    @abstractmethod
    def canonical(self, architecture: Architecture) -> Architecture: ...

    @abstractmethod
    def gene_name(self, gene: int) -> str:
        """What a gene decides, for messages."""

    @abstractmethod
    def largest(self) -> Sequence[Architecture]:
        """Architectures that between them have every weight, at its full size."""

    @abstractmethod
    def starts_at_one(self, name: str) -> bool:
        """Whether a vector of weights starts at one; all others start at zero."""

    def size(self) -> int:
        return math.prod(len(choices) for choices in self.choices)

    def check(self, architecture: Architecture) -> None:
        if len(architecture) != len(self.choices):
            raise MetanasError(
                f"an architecture of the space '{self.name}' has {len(self.choices)} genes, but {architecture} has "
                f"{len(architecture)}; take one from this run's population."
            )
        for gene, (value, choices) in enumerate(zip(architecture, self.choices, strict=True)):
            if not 0 <= value < len(choices):
                raise MetanasError(
                    f"gene {gene} ({self.gene_name(gene)}) of {architecture} must lie in 0..{len(choices) - 1}, but "
                    f"is {value}; take an architecture from this run's population."
                )

    def sample(self, rng: np.random.Generator) -> Architecture:
        return tuple(int(rng.integers(len(choices))) for choices in self.choices)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        gene = int(rng.choice([i for i, choices in enumerate(self.choices) if len(choices) > 1]))
        other = int(rng.integers(len(self.choices[gene]) - 1))
        value = other + (other >= architecture[gene])
        return (*architecture[:gene], value, *architecture[gene + 1 :])

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        from_a = rng.random(len(a)) < 0.5
        return tuple(x if first else y for x, y, first in zip(a, b, from_a, strict=True))

    def encode(self, architecture: Architecture) -> np.ndarray:
        canonical = self.canonical(architecture)
        return np.concatenate([np.eye(len(c))[v] for v, c in zip(canonical, self.choices, strict=True)])

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """He initialisation over the centre of kernels; what stands for a residual starts as the identity."""
        return {name: self._initial(name, shape, generator) for name, shape in _shapes(self).items()}

    def _initial(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        weight = torch.zeros(shape)
        if len(shape) == 4:
            used = min(CENTRE, shape[-1])
            rim = (shape[-1] - used) // 2
            deviation = math.sqrt(2 / (shape[1] * used**2))
            weight[:, :, rim : rim + used, rim : rim + used].normal_(0, deviation, generator=generator)
        elif name.endswith("squeeze.weight"):
            weight.normal_(0, shape[1] ** -0.5, generator=generator)
        elif self.starts_at_one(name):
            weight.fill_(1)
        return weight

    def slices(self, architecture: Architecture) -> Mapping[str, Index]:
        return _slices(self, architecture)


@lru_cache(maxsize=64)
def _shapes(space: Elastic) -> dict[str, torch.Size]:
    """Of the shared weights."""
    with torch.device("meta"):
        networks = [space.build(architecture) for architecture in space.largest()]
    return {name: weight.shape for network in networks for name, weight in network.named_parameters()}


@lru_cache(maxsize=4096)
def _slices(space: Elastic, architecture: Architecture) -> Mapping[str, Index]:
    whole = _shapes(space)
    with torch.device("meta"):
        network = space.build(architecture)
    indices: dict[str, Index] = {}
    for name, parameter in network.named_parameters():
        index = [slice(0, n) for n in parameter.shape]
        if parameter.ndim == 4:
            rim = (whole[name][-1] - parameter.shape[-1]) // 2
            index[2:] = [slice(rim, rim + parameter.shape[-1])] * 2
        indices[name] = tuple(index)
    return indices
