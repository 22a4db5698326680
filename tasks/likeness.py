"""Images that look the same though their bytes differ, by their thumbnails."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

HASH_BITS = 2  # of 64 that may differ between near duplicates
THUMBNAIL_SHADES = 3.0  # mean difference of two 16x16 thumbnails below which the hash is believed
PLAIN_SHADES = 2.0  # standard deviation of a thumbnail below which its gradients are noise


@dataclass(frozen=True)
class Looks:
    """How some images look: pixels (n, 16, 16) int16 and hashes (n,) uint64; `positions` say which images they are."""

    positions: tuple[int, ...]
    pixels: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)


def looks(thumbnails: Sequence[np.ndarray], positions: Sequence[int]) -> Looks:
    """Of thumbnails uint8 (16, 16), one for each of `positions`; plain images are passed over."""
    kept = [index for index, thumbnail in enumerate(thumbnails) if thumbnail.std() > PLAIN_SHADES]
    pixels = np.array([thumbnails[index] for index in kept], dtype=np.int16).reshape(-1, 16, 16)
    hashes = np.array([difference_hash(thumbnails[index]) for index in kept], dtype=np.uint64)
    return Looks(tuple(positions[index] for index in kept), pixels, hashes)


def together(parts: Sequence[Looks]) -> Looks:
    """All of them, with positions counted through."""
    if not parts:
        return looks([], [])
    count = sum(map(len, parts))
    return Looks(
        tuple(range(count)), np.concatenate([p.pixels for p in parts]), np.concatenate([p.hashes for p in parts])
    )


def difference_hash(thumbnail: np.ndarray) -> int:
    """64 bits of a (16, 16) thumbnail: is each of 8x8 areas brighter than its right neighbour (Krawetz's dHash)."""
    grid = np.asarray(Image.fromarray(thumbnail).resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    return int.from_bytes(np.packbits(grid[:, :-1] > grid[:, 1:]).tobytes(), "big")


def near_duplicates(images: Looks) -> Iterator[tuple[int, int]]:
    """For each image the first earlier one that looks the same, as positions.

    Time is quadratic (a second for 10,000 images), memory is not.
    """
    for later in range(1, len(images)):
        earlier = _first_alike(images, later, images, later)
        if earlier is not None:
            yield images.positions[earlier], images.positions[later]


def near_duplicates_between(left: Looks, right: Looks) -> Iterator[tuple[int, int]]:
    """For each image of `right` the first of `left` that looks the same, as positions."""
    for index in range(len(right)):
        found = _first_alike(left, len(left), right, index)
        if found is not None:
            yield left.positions[found], right.positions[index]


def _first_alike(known: Looks, count: int, images: Looks, index: int) -> int | None:
    """Which of the first `count` of `known` looks like the image at `index`."""
    close = np.flatnonzero(np.bitwise_count(known.hashes[:count] ^ images.hashes[index]) <= HASH_BITS)
    if not len(close):
        return None
    apart = np.abs(known.pixels[close] - images.pixels[index]).mean(axis=(1, 2))
    alike = close[apart <= THUMBNAIL_SHADES]
    return int(alike[0]) if len(alike) else None
