"""Random fields and shapes, many images at once, from which surfaces and their faults are painted.

All are float arrays (n, SIDE, SIDE). Lengths are in pixels, angles in radians from the x axis; an argument that varies
from image to image is an array (n,).
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

SIDE = 64  # pixels a side when painting, before the change to the form of a pool
Array = NDArray[np.float64]
Number = float | Array

X: Array = np.broadcast_to(np.arange(SIDE) + 0.5, (SIDE, SIDE))
Y: Array = X.T


def column(value: ArrayLike) -> Array:
    """A number, or one for each image, that broadcasts over pixels."""
    return np.asarray(value, dtype=np.float64).reshape(-1, 1, 1)


def along(angle: Number, x: Number = 0.0, y: Number = 0.0) -> tuple[Array, Array]:
    """Coordinates along and across a direction, with their origin at (x, y)."""
    cos, sin = np.cos(column(angle)), np.sin(column(angle))
    right, down = X - column(x), Y - column(y)
    return cos * right + sin * down, cos * down - sin * right


def _low_pass(scale: float, stretch: float = 1.0, angle: float = 0.0) -> Array:
    """A Gaussian of that standard deviation, `stretch` times as long along `angle`, in the Fourier domain."""
    down, right = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    u, v = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
    response: Array = np.exp(-2 * (np.pi * scale) ** 2 * ((stretch * u) ** 2 + v**2))
    return response


def noise(rng: Generator, n: int, scale: float, stretch: float = 1.0, angle: float = 0.0) -> Array:
    """Smooth noise of mean 0 and variance 1 with that correlation length."""
    white = np.fft.rfft2(rng.standard_normal((n, SIDE, SIDE), dtype=np.float32))
    smooth: Array = np.fft.irfft2(white * _low_pass(scale, stretch, angle), (SIDE, SIDE))
    smooth -= smooth.mean((1, 2), keepdims=True)
    smooth /= np.maximum(smooth.std((1, 2), keepdims=True), 1e-9)
    return smooth


def spots(rng: Generator, n: int, count: float, radius: float, where: Number = 1.0) -> Array:
    """About `count` round spots from 0 to 1, denser where `where` is larger."""
    hits = rng.random((n, SIDE, SIDE)) < count / SIDE**2 * where
    sizes = hits * rng.uniform(0.5, 1.5, hits.shape)
    soft = np.fft.irfft2(np.fft.rfft2(sizes) * _low_pass(radius), (SIDE, SIDE))
    return np.clip(soft * 2 * np.pi * radius**2, 0, 1)


def inside(distance: Array, softness: Number = 1.0) -> Array:
    """1 where `distance` is negative, 0 where it is positive, linear over `softness` pixels."""
    return np.clip(0.5 - distance / column(softness), 0, 1)


def segments(rng: Generator, n: int, most: int, angle: Array, length: tuple[float, float]) -> Array:
    """Distance to the nearest of 1 to `most` straight segments; `angle` is (n, most)."""
    nearest = np.full((n, SIDE, SIDE), np.inf)
    count = rng.integers(1, most + 1, n)
    for index in range(most):
        middle = rng.uniform(0.1 * SIDE, 0.9 * SIDE, (2, n))
        half = column(rng.uniform(*length, n) / 2)
        u, v = along(angle[:, index], *middle)
        distance = np.hypot(np.maximum(np.abs(u) - half, 0), v)
        nearest = np.where(column(count > index), np.minimum(nearest, distance), nearest)
    return nearest


def crack(rng: Generator, n: int, angle: Array, wander: float) -> tuple[Array, Array]:
    """Coordinates along and across a path that wanders like a random walk through the middle of the image."""
    u, v = along(angle, *rng.uniform(0.3 * SIDE, 0.7 * SIDE, (2, n)))
    reach = 2 * SIDE
    steps = rng.standard_normal((n, reach)) * wander
    path = np.cumsum(steps, 1)
    path -= path[:, SIDE, None]
    position = np.clip(np.rint(u).astype(np.int64) + SIDE, 0, reach - 1)
    return u, v - np.take_along_axis(path, position.reshape(n, -1), 1).reshape(u.shape)


def blob(rng: Generator, x: Array, y: Array, radius: Number, stretch: Number = 1.0, angle: Number = 0.0) -> Array:
    """Distance to the outline of a ragged ellipse, negative inside, about right near the outline."""
    u, v = along(angle, x, y)
    root = np.sqrt(column(stretch))
    ragged = np.clip(1 + 0.25 * noise(rng, len(x), 3), 0.5, 1.5)
    return (np.hypot(u / root, v * root) * ragged) - column(radius)
