"""What spaces have in common whose genes are independent and whose weights nest (once-for-all, Cai et al. 2020).

A 3x3 kernel is the centre of the 5x5 one, and a narrow layer is the first channels of the wide one (section 3.3).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.spaces.genes import Genes
from metanas.spaces.space import IN_TURN, Features, Index, parameter_shapes

CENTRE = 3
"""The kernel that starts with weights; the rim of a larger one starts at zero and grows from there."""


def check_choices(key: str, choices: Sequence[int], least: int) -> None:
    """Raises MetanasError unless they are whole numbers of at least `least`, the smallest first.

    A slice of the shared weights of a larger choice is all that a smaller one has.
    """
    whole = all(isinstance(choice, int) and choice >= least for choice in choices)
    if not choices or not whole or any(a > b for a, b in pairwise(choices)):
        raise MetanasError(f"{key} {list(choices)} must be whole numbers of {least} or more, the smallest first.")


class Elastic(Genes, ABC):
    """A space whose genes do not restrict one another, each an index into its `choices`."""

    def __init__(self, name: str, choices: Sequence[Sequence[object]]) -> None:
        super().__init__(name, [len(of_gene) for of_gene in choices])
        self.choices = choices

    def gene_text(self, gene: int, architecture: Architecture) -> str:
        return f"{self.gene_name(gene)}: {self.choices[gene][architecture[gene]]}"

    @abstractmethod
    def build(self, architecture: Architecture) -> Features: ...

    @abstractmethod
    def largest(self) -> Sequence[Architecture]:
        """Architectures that between them have every weight, at its full size."""

    @abstractmethod
    def starts_at_one(self, name: str) -> bool:
        """Whether a vector of weights starts at one; all others start at zero."""

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
    return {name: shape for network in networks for name, shape in parameter_shapes(network).items()}


@lru_cache(maxsize=IN_TURN)
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
