"""What the painters of all kinds of surface have in common."""

from collections.abc import Callable

from numpy.random import Generator

from tasks.sources.surfaces.fields import Array, column

Fault = Callable[[Array, Generator, Generator], Array]
"""(images, style, rng) -> images with the fault: `style` draws how it looks on this line, `rng` each image's own."""


def strength(style: Generator, rng: Generator, n: int, low: float, high: float) -> Array:
    """How strong a fault is on each image (n, 1, 1), about a mean that is the line's own."""
    return column(style.uniform(low, high) * rng.uniform(0.6, 1.4, n))
