"""The same architecture in a larger network: compound scaling (EfficientNet, Tan and Le 2019) and NASNet's transfer.

Genes stay as they are; what changes is how deep and wide the space builds them, and how large the images are. A network
of a cell space gets more cells and channels (Zoph et al. 2018, section 3), one of stages more layers and channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np

from metanas.errors import MetanasError
from metanas.spaces.space import Space

DIVISOR = 4
"""Widths stay multiples of this, which convolutions like (8 in EfficientNet, whose networks are wider)."""


class Scalable(Space, Protocol):
    """A space that can build its architectures deeper and wider."""

    def scaled(self, depth: float, width: float, size: int) -> Self:
        """The same genes with `depth` times the layers and `width` times the channels, for images of `size` pixels."""


S = TypeVar("S", bound=Scalable)


@dataclass(frozen=True)
class Coefficients:
    """How depth, width and resolution grow where the multiply-accumulates double (section 3.3, equation 3)."""

    depth: float = 1.2
    width: float = 1.1
    resolution: float = 1.15

    def __post_init__(self) -> None:
        if min(self.depth, self.width, self.resolution) < 1:
            raise MetanasError(f"scaling coefficients must be at least 1, but got {self}; a network only grows.")

    @property
    def growth(self) -> float:
        """By how much the multiply-accumulates grow: alpha beta^2 gamma^2."""
        return self.depth * self.width**2 * self.resolution**2


def coefficient_grid(step: float = 0.1, growth: float = 2.0) -> list[Coefficients]:
    """All depths and widths in steps from 1, each with the resolution of at least 1 that makes the growth exact."""
    return list(_grid(step, growth))


def _grid(step: float, growth: float) -> Iterator[Coefficients]:
    for depth in np.arange(1, growth + 1e-9, step):
        for width in np.arange(1, math.sqrt(growth / depth) + 1e-9, step):
            resolution = max(1.0, math.sqrt(growth / depth) / width)
            yield Coefficients(round(float(depth), 6), round(float(width), 6), resolution)


def compound(space: S, size: int, coefficients: Coefficients, phi: float) -> tuple[S, int]:
    """Space and images' size for about `growth ** phi` times the multiply-accumulates; phi 0 changes nothing."""
    larger = round(size * coefficients.resolution**phi)
    return space.scaled(coefficients.depth**phi, coefficients.width**phi, larger), larger


def search_coefficients(
    space: S, size: int, evaluate: Callable[[S, int], float], grid: Sequence[Coefficients] | None = None
) -> tuple[Coefficients, dict[Coefficients, float]]:
    """The coefficients whose network of twice the cost is the most accurate, and the accuracy of all of the grid.

    `evaluate` trains the base architecture in a space at a size and says how accurate it is. Ties go to the first.
    """
    tried = coefficient_grid() if grid is None else grid
    found = {coefficients: evaluate(*compound(space, size, coefficients, 1)) for coefficients in tried}
    return max(found, key=lambda coefficients: found[coefficients]), found


def scaled_width(width: int, factor: float) -> int:
    """The nearest multiple of `DIVISOR` that is at most a tenth too small; a factor of 1 changes nothing."""
    if factor == 1:
        return width
    wanted = width * factor
    nearest = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.9 * wanted else nearest


def scaled_depth(depth: int, factor: float) -> int:
    """Layers, rounded up as in EfficientNet."""
    return math.ceil(depth * factor - 1e-9)
