"""Synthetic inspection lines: textured surfaces, circuit boards and solar cells with faults, for meta-training only.

Each line is a task of its own: it draws a kind of surface, how that surface looks, some faults, and how those look
there. All images follow from the seed.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from metanas.errors import MetanasError
from metanas.seeding import stream
from tasks.sources.generated import Generated, records
from tasks.sources.surfaces import board, cell, metal
from tasks.sources.surfaces.fields import SIDE, Array
from tasks.task import ImageForm, Task

FORMAT = 1  # part of the cache's key: raise it when any painting changes

KINDS: Mapping[str, float] = {"metal": 0.6, "board": 0.2, "cell": 0.2}
"""Kind of surface -> the share of the lines that show it."""


def load(name: str, form: ImageForm, lines: int = 40, images: int = 40, seed: int = 0) -> list[Task]:
    """`lines` tasks `NAME-000`, `NAME-001`... of 4 to 10 faults or of `ok` against `faulty`, `images` a class.

    They are painted when first read, about a millisecond an image.
    """
    if min(lines, images) < 1:
        raise MetanasError(f"Source '{name}': {lines} lines of {images} images a class: ask for one or more of each.")
    return [_task(f"{name}-{line:03d}", form, line, images, seed) for line in range(lines)]


def _task(name: str, form: ImageForm, line: int, images: int, seed: int) -> Task:
    _, classes = faults_of(seed, line)
    make = partial(paint_line, seed, line, images, form.size)
    key = repr(("surfaces", FORMAT, seed, line, images, form.size))
    labels = np.repeat(np.arange(len(classes)), images)
    return Task(
        name,
        "image",
        Generated(key, len(labels), form, make),
        labels,
        tuple(classes),
        licence="generated",
        synthetic=True,
        origin=f"surfaces, seed {seed}, line {line}",
    )


def faults_of(seed: int, line: int) -> tuple[str, dict[str, Sequence[str]]]:
    """What a line shows: its kind of surface, and for each class the faults that its images draw from."""
    rng = stream(seed, "surfaces", line)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    table: Mapping[str, object] = {"metal": metal.FAULTS, "board": board.FAULTS, "cell": cell.FAULTS}[kind]
    names = ["ok", *(fault for fault in table if fault != "ok")]
    chosen = [names[index] for index in rng.permutation(len(names))[: rng.integers(4, 11)]]
    if rng.random() < 0.2:
        return kind, {"ok": ["ok"], "faulty": sorted(set(chosen) - {"ok"})}
    return kind, {fault: [fault] for fault in sorted(chosen)}


def paint_line(seed: int, line: int, images: int, size: int) -> np.ndarray:
    """The records of one line, class by class."""
    kind, classes = faults_of(seed, line)
    table = records(len(classes) * images, size)
    for label, faults in enumerate(classes.values()):
        shares = np.array_split(np.arange(label * images, (label + 1) * images), len(faults))
        for fault, rows in zip(faults, shares, strict=True):
            if len(rows):
                table["mark"][rows] = label
                table["pixels"][rows] = [_shrunk(image, size) for image in _paint(seed, line, kind, fault, len(rows))]
    return table


def _paint(seed: int, line: int, kind: str, fault: str, n: int) -> Array:
    """Images (n, SIDE, SIDE) in about [0, 1]."""
    look, style = stream(seed, "surfaces", line, "look"), stream(seed, "surfaces", line, "style", fault)
    rng = stream(seed, "surfaces", line, "images", fault)
    if kind == "board":
        return board.paint(fault, look, rng, n)
    background, faults = (metal.background, metal.FAULTS) if kind == "metal" else (cell.background, cell.FAULTS)
    contrast = stream(seed, "surfaces", line, "contrast").uniform(0.3, 1.1)
    images = background(look, rng, n)
    if fault != "ok":
        images = faults[fault](images, style, rng)
    return 0.5 + (images - 0.5) * contrast


def _shrunk(image: Array, size: int) -> np.ndarray:
    pixels = Image.fromarray(np.rint(image.clip(0, 1) * 255).astype(np.uint8))
    way = Image.Resampling.BOX if size <= SIDE else Image.Resampling.BILINEAR
    return np.asarray(pixels.resize((size, size), way))
