"""Circuit boards seen as copper and no copper; each fault sits near the middle, as in crops around a detection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from tasks.sources.surfaces.fields import SIDE, Array, along, blob, column, inside, noise

Site = Literal["trace", "gap", "edge", "copper", "bare"]
"""What lies at the middle; `copper` is deep inside, `bare` far from any."""


@dataclass(frozen=True)
class Board:
    """Distances to the outline of the copper, negative inside, and where the fault belongs.

    `angle` is the direction of the traces, `width` that of the trace or gap at the middle (x, y), all (n,).
    """

    distance: Array  # (n, SIDE, SIDE)
    x: Array
    y: Array
    angle: Array
    width: Array


def layout(site: Site, style: Generator, rng: Generator, n: int) -> Board:
    """Parallel traces with bends and pads, such that the middle of the image is the asked site."""
    x, y = SIDE / 2 + rng.uniform(-8, 8, (2, n))
    angle = rng.integers(0, 4, n) * np.pi / 4
    narrow, wide = rng.uniform(4, style.uniform(8, 14), (2, n)), rng.uniform(14, 40, (2, n))
    thick = rng.random((2, n)) < style.uniform(0.2, 0.6)
    width, gap = np.where(thick, wide, narrow)
    if site == "copper":
        width = wide[0]
    elif site == "bare":
        gap = wide[1]
    elif site == "trace":
        width = narrow[0]
    elif site == "gap":
        gap = narrow[1]
    offset = {"trace": 0 * width, "copper": 0 * width, "edge": width / 2}.get(site, (width + gap) / 2)
    u, v = along(angle, x, y)
    bend = column(rng.uniform(12, 40, n) * np.where(rng.random(n) < 0.5, 1, -1))
    v = v + np.where(np.abs(bend) < 30, np.maximum(u * np.sign(bend) - np.abs(bend), 0), 0)
    pitch = column(width + gap)
    distance = np.abs(np.mod(v + column(offset) + pitch / 2, pitch) - pitch / 2) - column(width / 2)
    pad = column(rng.uniform(16, 30, n) * np.where(rng.random(n) < 0.5, 1, -1))
    disc = np.hypot(u - pad, v + column(offset)) - column(rng.uniform(5, 10, n))
    with_pad = np.where(column(rng.random(n) < style.uniform(0, 0.6)), np.minimum(distance, disc), distance)
    rough = style.uniform(0.1, 0.5) * noise(rng, n, 1)
    return Board(with_pad + rough, x, y, angle, gap if site in ("gap", "bare") else width)


def _patch(board: Board, rng: Generator, low: float, high: float, longest: float = 2.5) -> Array:
    """Distance to a ragged patch at the middle with a radius from `low` to `high`."""
    n = len(board.x)
    return blob(rng, board.x, board.y, rng.uniform(low, high, n), rng.uniform(1, longest, n), rng.uniform(0, np.pi, n))


def _bridge(board: Board, rng: Generator) -> Array:
    """Distance to a ragged bar across the trace or the gap at the middle."""
    u, v = along(board.angle + 0.3 * rng.standard_normal(len(board.x)), board.x, board.y)
    bar = np.abs(u + 1.5 * noise(rng, len(board.x), 2)) - column(rng.uniform(1, 3.5, len(board.x)))
    return np.maximum(bar, np.abs(v) - column(board.width / 2 + 2))


def _cut(board: Board, hole: Array) -> Array:
    return np.maximum(board.distance, -hole)


def _add(board: Board, patch: Array) -> Array:
    return np.minimum(board.distance, patch)


FAULTS: Mapping[str, tuple[Site, Callable[[Board, Generator], Array]]] = {
    "ok": ("edge", lambda board, rng: board.distance),
    "open": ("trace", lambda board, rng: _cut(board, _bridge(board, rng))),
    "short": ("gap", lambda board, rng: _add(board, _bridge(board, rng))),
    "mouse bite": ("edge", lambda board, rng: _cut(board, _patch(board, rng, 2, 4.5))),
    "spur": ("edge", lambda board, rng: _add(board, _patch(board, rng, 2, 4.5))),
    "pinhole": ("copper", lambda board, rng: _cut(board, _patch(board, rng, 1.5, 5))),
    "loose copper": (
        "bare",
        lambda board, rng: _add(board, _patch(board, rng, 1.5, 4.5, 6)),
    ),
    "thin traces": ("edge", lambda board, rng: board.distance + column(np.minimum(0.3 * board.width, 2.5))),
}


def paint(fault: str, style: Generator, rng: Generator, n: int) -> Array:
    """Boards with that fault, copper dark or bright, black and white or grey."""
    dark, blur = style.random() < 0.5, style.uniform(0.3, 2)
    contrast = float(style.choice([1.0, style.uniform(0.3, 0.8)]))
    site, change = FAULTS[fault]
    copper = inside(change(layout(site, style, rng, n), rng), blur)
    tone = contrast * ((1 - copper if dark else copper) - 0.5) + 0.5
    return tone + (1 - contrast) * 0.1 * noise(rng, n, 0.6)
