"""What every search space can do.

A space names its weights once. `initial_weights` makes the shared set of the SuperNet; `slices` says which
part of it an architecture uses; `build` makes the plain module of that architecture, whose parameters carry
the same names and the shapes of those slices. So the SuperNet runs an architecture by running its plain
module on views of the shared weights, and nothing is computed twice or differently.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from metanas.api import Architecture
from metanas.spaces.genes import Genotypes

Index = tuple[slice, ...]
"""Where a weight of an architecture lies in the shared weight of the same name; () takes all of it."""

IN_TURN = 32
"""Architectures whose networks and slices are kept: a population, its offspring and the default one.

The many small pieces of each lie between freed memory and keep it apart, so that with 256 of them what a process holds
grew by a quarter in 1,000 steps of random architectures.
"""


class Features(nn.Module):
    """A feature extractor: `forward(inputs, reference)` maps (N, C, H, W) to (N, D).

    Batch statistics, where a normalisation uses them, come from the first `reference` rows alone: the support
    set. So the features of a query sample do not depend on the other query samples.

    With `drop_path` above 0 paths are dropped with that probability, drawn from `generator`.
    """

    drop_path: float = 0.0
    generator: torch.Generator | None = None

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The modules that run one after the other and do all of the work; none where the network is no chain."""
        return []


class Family(Protocol):
    """Architectures that share one set of weights: all that a SuperNet needs to know."""

    name: str
    channels: int  # of the input images

    def __hash__(self) -> int:
        """Of the object: what is derived from a family is cached by it."""

    @property
    def default(self) -> Architecture:
        """A sound hand-made architecture: the first to be warmed up."""

    def build(self, architecture: Architecture) -> Features:
        """The plain module; its parameters hold whatever PyTorch puts there."""

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The shared weights, freshly drawn."""

    def slices(self, architecture: Architecture) -> Mapping[str, Index]:
        """For every parameter of `build(architecture)`, where it lies in the shared weight of that name."""

    def describe(self, architecture: Architecture) -> str:
        """One line a person can read. Stores keep it, to tell networks of equal costs apart."""


class Space(Family, Genotypes, Protocol):
    """A finite family that can be searched."""

    def gene_text(self, gene: int, architecture: Architecture) -> str:
        """What a gene of an architecture decides, and how: a few words."""

    def draw(self, architecture: Architecture) -> str:
        """The network (and its cells) as one self-contained <svg> element."""


def parameter_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Of a network's weights by name."""
    return {name: weight.shape for name, weight in network.named_parameters()}


def fresh_weights(shapes: Mapping[str, torch.Size], generator: torch.Generator) -> dict[str, Tensor]:
    """Fresh weights of these names: convolutions drawn as by He et al. 2015, scales one, biases zero."""

    def drawn(name: str, shape: torch.Size) -> Tensor:
        if len(shape) == 4:
            return torch.empty(shape).normal_(0, (2 / prod(shape[1:])) ** 0.5, generator=generator)
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)

    return {name: drawn(name, shape) for name, shape in shapes.items()}


@lru_cache(maxsize=IN_TURN)
def whole_slices(family: Family, architecture: Architecture) -> Mapping[str, Index]:
    """The slices of a family whose architectures take each of their weights whole."""
    with torch.device("meta"):
        return {name: () for name, _ in family.build(architecture).named_parameters()}
