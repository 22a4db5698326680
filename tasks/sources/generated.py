"""Samples that a pure function makes: made once, kept in the image cache, mapped by every process."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from metanas.caching import cache_folder, replacing
from metanas.errors import MetanasError
from tasks.cache import on_ground
from tasks.task import ImageForm

Make = Callable[[], np.ndarray]
"""Makes all records of one task; it must travel between processes and always give the same bytes."""


def records(count: int, size: int) -> np.ndarray:
    """Room for `count` labelled images: fields `mark` (N,) int64 and `pixels` (N, size, size) uint8, all zero."""
    return np.zeros(count, [("mark", np.int64), ("pixels", np.uint8, (size, size))])


def stored(key: str, make: Make) -> np.ndarray:
    """The records of `make`, mapped from the file of `key` in the cache, which is made where it is missing."""
    file = cache_folder() / f"generated-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    try:
        if not file.exists():
            with replacing(file) as own, own.open("wb") as stream:
                np.save(stream, make())
        mapped: np.ndarray = np.load(file, mmap_mode="r")
    except OSError as error:
        raise MetanasError(f"The image cache '{file}' cannot be used ({error}): set METANAS_CACHE.") from error
    return np.asarray(mapped)


@dataclass(frozen=True, eq=False)
class Generated:
    """The images of `make` in the form of a pool, made when first read. `content` names everything they depend on."""

    content: str
    count: int
    form: ImageForm
    make: Make

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> tuple[Any, ...]:
        return Generated, (self.content, self.count, self.form, self.make)  # the map stays behind

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, C, size, size), all channels alike."""
        pixels = on_ground(self._pixels[np.asarray(indices, dtype=np.int64), None], self.form)
        return pixels if self.form.channels == 1 else pixels.repeat(self.form.channels, axis=1)

    @cached_property
    def _pixels(self) -> np.ndarray:
        pixels: np.ndarray = stored(self.content, self.make)["pixels"]
        return pixels
