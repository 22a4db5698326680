"""Solar cells under electroluminescence: a bright wafer with bus bars, and parts that stay dark."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from tasks.sources.surfaces.fields import SIDE, Array, X, Y, blob, column, crack, inside, noise
from tasks.sources.surfaces.paint import Fault, strength


def background(style: Generator, rng: Generator, n: int) -> Array:
    """A wafer with rounded corners or with crystals, fine fingers, two to four bus bars, darker towards the rim."""
    bars, tone, width = int(style.integers(2, 5)), style.uniform(0.45, 0.75), style.uniform(0.7, 1.4)
    wafer = column(tone + 0.07 * rng.standard_normal(n)) + 0.02 * noise(rng, n, 0.5)
    wafer = wafer + style.uniform(0, 0.05) * noise(rng, n, style.uniform(0.8, 2))  # crystals
    wafer = wafer + style.uniform(0, 0.03) * noise(rng, n, 0.5, 40, np.pi / 2)  # fingers
    wafer = wafer + style.uniform(0.01, 0.05) * column(rng.uniform(0.3, 1.3, n)) * noise(rng, n, 14)
    rim = np.minimum(np.minimum(X, SIDE - X), np.minimum(Y, SIDE - Y))
    wafer = wafer - style.uniform(0.05, 0.2) * np.exp(-rim / style.uniform(2, 8))
    pitch = SIDE / bars
    shift = column(rng.uniform(-1, 1, n))
    wafer = wafer * (1 - style.uniform(0.3, 0.8) * inside(np.abs(np.mod(Y + shift, pitch) - pitch / 2) - width / 2, 1))
    if style.random() < 0.5:
        corner = np.hypot(np.abs(X - SIDE / 2), np.abs(Y - SIDE / 2)) - style.uniform(0.62, 0.66) * SIDE
        wafer = wafer * (1 - 0.85 * inside(-corner, 2))
    return wafer


def cracks(images: Array, style: Generator, rng: Generator) -> Array:
    """A dark hairline, mostly slanting."""
    n = len(images)
    u, v = crack(rng, n, rng.uniform(0, np.pi, n), style.uniform(0.2, 0.6))
    line = inside(np.abs(v) - column(rng.uniform(0.3, 0.8, n)), 1.2)
    return images * (
        1 - strength(style, rng, n, 0.35, 0.7) * line * inside(np.abs(u) - column(rng.uniform(12, 50, n)), 3)
    )


def dark_part(images: Array, style: Generator, rng: Generator) -> Array:
    """What lies beyond a crack, up to a second one, gets no current."""
    n = len(images)
    angle = rng.uniform(0, 2 * np.pi, n)
    _, first = crack(rng, n, angle, 0.3)
    _, second = crack(rng, n, angle + rng.uniform(0.6, 2, n), 0.3)
    part = inside(first - column(rng.uniform(2, 12, n)), 1.5) * inside(second - column(rng.uniform(2, 12, n)), 1.5)
    return images * (1 - np.minimum(0.95, strength(style, rng, n, 0.4, 0.8)) * part)


def dark_fingers(images: Array, style: Generator, rng: Generator) -> Array:
    """Strips between bus bars, darker where fingers are interrupted."""
    n = len(images)
    for _ in range(3):
        x, y = rng.uniform(0.1 * SIDE, 0.9 * SIDE, (2, n))
        strip = np.abs(X - column(x)) - column(rng.uniform(0.5, 3.5, n))
        length = np.abs(Y - column(y)) - column(rng.uniform(5, 11, n))
        images = images * (1 - strength(style, rng, n, 0.15, 0.4) * inside(strip, 1) * inside(length, 3))
    return images


def dark_spot(images: Array, style: Generator, rng: Generator) -> Array:
    """A soft dark spot."""
    n = len(images)
    x, y = rng.uniform(0.15 * SIDE, 0.85 * SIDE, (2, n))
    edge = blob(rng, x, y, rng.uniform(2, 9, n), rng.uniform(1, 2.5, n))
    return images * (1 - strength(style, rng, n, 0.3, 0.6) * inside(edge, style.uniform(2, 8)))


def dark_side(images: Array, style: Generator, rng: Generator) -> Array:
    """One side darker than the other, as where a contact has come off."""
    n = len(images)
    side = column(rng.integers(0, 2, n))
    ramp = np.exp(-(side * X + (1 - side) * (SIDE - X)) / column(rng.uniform(6, 20, n)))
    return images * (1 - strength(style, rng, n, 0.4, 0.65) * ramp)


def corrosion(images: Array, style: Generator, rng: Generator) -> Array:
    """Clouds about the bus bars and grain all over."""
    n = len(images)
    clouds = inside(style.uniform(0, 0.8) - noise(rng, n, style.uniform(2.5, 5), 2), 1)
    return images * (1 - strength(style, rng, n, 0.15, 0.4) * clouds)


FAULTS: Mapping[str, Fault] = {
    "corrosion": corrosion,
    "cracks": cracks,
    "dark fingers": dark_fingers,
    "dark part": dark_part,
    "dark side": dark_side,
    "dark spot": dark_spot,
}
