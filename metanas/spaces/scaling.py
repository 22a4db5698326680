"""The same architecture in a larger network: compound scaling (EfficientNet, Tan and Le 2019) and NASNet's transfer.

Genes stay as they are; what changes is how deep and wide the space builds them, and how large the images are. A network
of a cell space gets more cells and channels (Zoph et al. 2018, section 3), one of stages more layers and channels.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, TypeVar

import numpy as np

from metanas.api import Architecture, Cost
from metanas.errors import MetanasError
from metanas.parsing import STRICT
from metanas.spaces.space import Space

DIVISOR = 4
"""Widths stay multiples of this, which convolutions like (8 in EfficientNet, whose networks are wider)."""
TOLERANCE = 0.2
"""How far the multiply-accumulates may grow from what coefficients say, as a part of it: 1.6 to 2.4 times for 2."""
STEP = 0.1
"""Of depth and width between two points of the grid, as in the paper's search."""


class Scalable(Space, Protocol):
    """A space that can build its architectures deeper and wider."""

    def scaled(self, depth: float, width: float, size: int) -> Self:
        """The same genes with `depth` times the layers and `width` times the channels, for images of `size` pixels."""


S = TypeVar("S", bound=Scalable)


@dataclass(frozen=True)
class Coefficients:
    """How depth, width and resolution grow where the multiply-accumulates double (section 3.3, equation 3).

    The paper's by default.
    """

    __pydantic_config__: ClassVar = STRICT

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

    def factors(self, size: int, phi: float) -> tuple[float, float, int]:
        """By how much depth and width grow, and to which size the images."""
        return self.depth**phi, self.width**phi, round(size * self.resolution**phi)


def coefficient_grid() -> list[Coefficients]:
    """All depths and widths in steps of `STEP` from 1, each with the resolution of at least 1 that makes it double."""
    return [
        Coefficients(round(float(depth), 6), round(float(width), 6), max(1.0, math.sqrt(2 / depth) / width))
        for depth in np.arange(1, 2 + 1e-9, STEP)
        for width in np.arange(1, math.sqrt(2 / depth) + 1e-9, STEP)
    ]


def compound(space: S, size: int, coefficients: Coefficients, phi: float) -> tuple[S, int]:
    """Space and images' size for about `growth ** phi` times the multiply-accumulates; phi 0 changes nothing."""
    depth, width, larger = coefficients.factors(size, phi)
    return space.scaled(depth, width, larger), larger


@dataclass(frozen=True)
class Point:
    """Coefficients, and what an architecture becomes by them at phi 1: whole layers, channels and pixels.

    `growth` is by how much its multiply-accumulates really grow.
    """

    coefficients: Coefficients
    size: int
    cost: Cost
    growth: float


def realised(
    space: S,
    architecture: Architecture,
    size: int,
    cost: Callable[[S, Architecture, int], Cost],
) -> list[Point]:
    """What of the grid is worth trying at phi 1, in its order (section 3.3, step 1); the caller is to find the best.

    Rounding makes different coefficients the same network, of which only the first is kept, and makes the growth
    another than wanted: by more than `TOLERANCE`, and the point is left out, for it would win by size alone. Raises
    MetanasError where none is left.
    """
    before = cost(space, architecture, size).macs
    distinct: dict[Hashable, Point] = {}
    for coefficients in coefficient_grid():
        larger, pixels = compound(space, size, coefficients, 1)
        weights = larger.build(architecture).state_dict()
        network = (pixels, tuple((name, tuple(tensor.shape)) for name, tensor in weights.items()))
        if network not in distinct:
            after = cost(larger, architecture, pixels)
            distinct[network] = Point(coefficients, pixels, after, after.macs / before)
    points = [p for p in distinct.values() if abs(p.growth / p.coefficients.growth - 1) <= TOLERANCE]
    if not points:
        growths = [point.growth for point in distinct.values()]
        raise MetanasError(
            f"no point of the grid of scaling coefficients comes within {TOLERANCE:.0%} of the growth that it is for: "
            f"in whole layers, channels and pixels they are {min(growths):.2f} to {max(growths):.2f} times the "
            "multiply-accumulates; take a wider space or larger images, or give 'coefficients'."
        )
    return points


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
