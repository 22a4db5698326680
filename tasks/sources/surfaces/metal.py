"""Sheet metal and the like: a grey texture, and what rolling, handling and corrosion do to it."""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from tasks.sources.surfaces.fields import SIDE, Array, Y, along, blob, column, crack, inside, noise, segments, spots
from tasks.sources.surfaces.paint import Fault, strength


def background(style: Generator, rng: Generator, n: int) -> Array:
    """Grain, waves and uneven light about a grey that varies little or much from image to image."""
    angle, brushed = style.choice([0, np.pi / 2]), style.uniform(1, 6)
    light = style.uniform(0.3, 0.8) + style.uniform(0.01, 0.15) * rng.standard_normal(n)
    surface = column(light) + style.uniform(0.01, 0.07) * noise(rng, n, style.uniform(0.4, 1), brushed, angle)
    surface = surface + style.uniform(0, 0.06) * noise(rng, n, style.uniform(4, 14), style.uniform(1, 6), angle)
    if style.random() < 0.4:
        surface = surface + style.uniform(0.02, 0.08) * noise(rng, n, 0.7, 60, angle)
    u, _ = along(rng.uniform(0, 2 * np.pi, n), SIDE / 2, SIDE / 2)
    return surface + style.uniform(0, 0.2) * column(rng.uniform(0, 1, n)) * u / SIDE


def _sign(style: Generator, dark: float = 0.7) -> float:
    return -1.0 if style.random() < dark else 1.0


def scratches(images: Array, style: Generator, rng: Generator) -> Array:
    """A few thin straight lines in about the same direction."""
    n, most = len(images), int(style.integers(1, 5))
    angle = style.uniform(0, np.pi) + style.uniform(0.02, 0.3) * rng.standard_normal((n, most))
    distance = segments(rng, n, most, angle, (20, style.uniform(30, 90)))
    line = inside(distance - column(rng.uniform(0.3, 1.2, n)), 1.5)
    return images + _sign(style, 0.4) * strength(style, rng, n, 0.15, 0.45) * line


def streak(images: Array, style: Generator, rng: Generator) -> Array:
    """One long soft band from edge to edge."""
    n = len(images)
    angle = style.choice([0, np.pi / 2]) + 0.03 * rng.standard_normal(n)
    _, v = along(angle, *rng.uniform(0.2 * SIDE, 0.8 * SIDE, (2, n)))
    width = column(style.uniform(0.8, 5) * rng.uniform(0.7, 1.3, n))
    return images + _sign(style, 0.5) * strength(style, rng, n, 0.1, 0.4) * np.exp(-((v / width) ** 2))


def pits(images: Array, style: Generator, rng: Generator) -> Array:
    """Many small dark dots, evenly or in clusters."""
    n = len(images)
    where = np.exp(style.uniform(0, 1.5) * noise(rng, n, 10))
    dots = spots(rng, n, style.uniform(8, 60), style.uniform(0.6, 1.5), where=where)
    return images - strength(style, rng, n, 0.2, 0.5) * dots


def stains(images: Array, style: Generator, rng: Generator) -> Array:
    """Large soft patches of another grey."""
    n = len(images)
    patch = noise(rng, n, style.uniform(4, 9), style.uniform(1, 2), np.pi / 2)
    cover = inside(style.uniform(0.3, 1.1) - patch, style.uniform(0.3, 1))
    return images + _sign(style) * strength(style, rng, n, 0.15, 0.45) * cover


def flecks(images: Array, style: Generator, rng: Generator) -> Array:
    """Many small stretched patches with sharp edges."""
    n, angle = len(images), style.choice([0, np.pi / 2])
    patch = noise(rng, n, style.uniform(1, 2.2), style.uniform(1.5, 4), angle) + 0.5 * noise(rng, n, 12)
    cover = inside(style.uniform(1, 1.8) - patch, 0.4)
    return images + _sign(style) * strength(style, rng, n, 0.15, 0.4) * cover


def crazing(images: Array, style: Generator, rng: Generator) -> Array:
    """A net of fine lines over the whole surface: where smooth noise passes through zero."""
    n = len(images)
    field = noise(rng, n, style.uniform(1.5, 4), style.uniform(1, 3), style.uniform(0, np.pi))
    net = np.exp(-((field / style.uniform(0.1, 0.25)) ** 2)) * inside(-noise(rng, n, 8) - 1, 1)
    return images - strength(style, rng, n, 0.1, 0.35) * net


def cracks(images: Array, style: Generator, rng: Generator) -> Array:
    """One jagged line."""
    n = len(images)
    u, v = crack(rng, n, rng.uniform(0, np.pi, n), style.uniform(0.4, 1.1))
    ends = inside(np.abs(u) - column(rng.uniform(10, 45, n)), 6)
    line = inside(np.abs(v) - column(rng.uniform(0.2, 0.9, n)), 1.5) * ends
    return images - strength(style, rng, n, 0.2, 0.5) * line


def inclusions(images: Array, style: Generator, rng: Generator) -> Array:
    """One to four slender blobs in the direction of rolling, with a bright or dark rim."""
    n, angle, stretch, size = len(images), style.choice([0, np.pi / 2]), style.uniform(2, 6), style.uniform(1.5, 5)
    depth, rim, count = strength(style, rng, n, 0.15, 0.45), style.uniform(-0.5, 0.6), rng.integers(1, 5, n)
    for index in range(4):
        x, y = rng.uniform(0.1 * SIDE, 0.9 * SIDE, (2, n))
        edge = blob(rng, x, y, size * rng.uniform(0.6, 1.4, n), stretch, angle + 0.1 * rng.standard_normal(n))
        change = inside(edge, 1.5) - rim * np.exp(-(((edge - 1) / 1.2) ** 2))
        images = images - column(count > index) * depth * change
    return images


def rolled_in(images: Array, style: Generator, rng: Generator) -> Array:
    """A relief lit from one side, in patches or all over."""
    n = len(images)
    relief = noise(rng, n, style.uniform(1.2, 2.8), style.uniform(1, 2))
    slope = relief - np.roll(relief, (1, 1), (1, 2))
    cover = inside(style.uniform(-2, 0.3) - noise(rng, n, 7), 0.8)
    return images + strength(style, rng, n, 0.1, 0.25) * slope * cover


def rough(images: Array, style: Generator, rng: Generator) -> Array:
    """A coarser grain than elsewhere, with another direction."""
    n = len(images)
    grain = noise(rng, n, style.uniform(0.4, 1.6), style.uniform(1, 5), style.uniform(0, np.pi))
    return images + strength(style, rng, n, 0.06, 0.18) * grain


def missing(images: Array, style: Generator, rng: Generator) -> Array:
    """A part broken out, down to an even ground."""
    n = len(images)
    x, y = rng.uniform(0.1 * SIDE, 0.9 * SIDE, (2, n))
    edge = blob(rng, x, y, style.uniform(8, 16) * rng.uniform(0.8, 1.3, n), rng.uniform(1, 2, n))
    cover, ground = inside(edge, 1.2), float(style.choice([0.05, 0.95]))
    return images * (1 - cover) + ground * cover


def ash(images: Array, style: Generator, rng: Generator) -> Array:
    """A black core in a wide dark halo that trails off to one side."""
    n = len(images)
    x, y = rng.uniform(0.2 * SIDE, 0.8 * SIDE, (2, n))
    core = inside(blob(rng, x, y, rng.uniform(2, 6, n), 2.0), 2)
    halo = np.exp(-np.clip(blob(rng, x, y - 4, 4, 1.3), 0, None) / style.uniform(4, 12))
    trail = halo * (0.4 + 0.6 * (column(y) > Y).astype(np.float64))
    return images - strength(style, rng, n, 0.15, 0.3) * (trail + core)


def marks(images: Array, style: Generator, rng: Generator) -> Array:
    """The print of a roll: short dashes at a fixed pitch along one line."""
    n = len(images)
    u, v = along(style.uniform(0, np.pi) + 0.1 * rng.standard_normal(n), *rng.uniform(0.3 * SIDE, 0.7 * SIDE, (2, n)))
    pitch, dash = style.uniform(6, 14), style.uniform(0.25, 0.6)
    row = inside(np.abs(np.mod(u, pitch) - pitch / 2) - dash * pitch / 2, 1) * inside(
        np.abs(v) - style.uniform(0.8, 3), 1
    )
    return images + _sign(style, 0.5) * strength(style, rng, n, 0.12, 0.35) * row


FAULTS: Mapping[str, Fault] = {
    "ash": ash,
    "cracks": cracks,
    "crazing": crazing,
    "flecks": flecks,
    "inclusions": inclusions,
    "marks": marks,
    "missing part": missing,
    "pits": pits,
    "rolled-in": rolled_in,
    "rough": rough,
    "scratches": scratches,
    "stains": stains,
    "streak": streak,
}
