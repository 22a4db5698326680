"""Named random streams: one seed, one stream a use, whatever the number of workers.

A stream is a pure function of the seed and its names, so nobody hands a generator around: the episode with
index 17 of the stream "validation" is the same in the driver, in an actor, and after a resume.
"""

import hashlib

import numpy as np
import torch


def _entropy(seed: int, names: tuple[str | int, ...]) -> list[int]:
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator that belongs to `names` under `seed`."""
    return np.random.default_rng(_entropy(seed, names))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """The same for PyTorch, on the CPU."""
    low, high = _entropy(seed, names)[:2]
    return torch.Generator().manual_seed(low | (high & 0x7FFFFFFF) << 32)
