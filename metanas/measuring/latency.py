"""How long a network takes on this device: measured whole, and foretold from a table of its blocks.

As in MnasNet's successors (ProxylessNAS, Cai et al. 2019, section 3.3 and appendix B): every block is timed once for
each shape of its input, and a network takes what its blocks take together. What counts is one forward pass of one image
on one thread, with recorded statistics, as an adapted network answers.
"""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.files import write_text
from metanas.learning.executor import one_thread
from metanas.learning.supernet import channels_last
from metanas.spaces.space import Features, Space

LATENCY = "latency.json"
"""The table in a run's folder."""
PASSES = 60
"""Forward passes that a network is timed for."""
FASTEST = 15
"""Of these, the ones that count: whatever else the machine does only adds to the others."""
WARM_UP = 3
"""Passes before, which do not count."""
WHOLE = 8
"""Random networks that a table which is kept is held against."""
NEIGHBOURS = 12
"""The most neighbours that the blocks of one of them are looked for in."""


@torch.no_grad()
def measure(space: Space, architecture: Architecture, size: int) -> float:
    """Processor seconds of one forward pass of a whole network on one `size` x `size` image."""
    network, image = _ready(space, architecture, size)
    return float(_passes(network, image, [network]).sum())


class LatencyTable:
    """Architectures to seconds, by the sum of their blocks.

    A block is timed when it is first asked for, while its whole network runs: alone, in a cache that is full of nothing
    else, it would be faster. With a `path`, what was measured is kept in that JSON file and read from it; before its
    first answer such a table is held against whole networks, and how far off it was is kept beside the seconds. Raises
    MetanasError for a file of another device, and for a space whose networks are no chains of blocks.
    """

    def __init__(self, space: Space, size: int, path: Path | None = None) -> None:
        self.space, self.size, self.path = space, size, path
        self.seconds: dict[str, float] = {}
        self.checked: dict[str, float] | None = None
        self._known: dict[Architecture, float] = {}
        if not space.build(space.default).blocks():
            raise MetanasError(
                f"a latency table needs networks that are chains of blocks, which those of the space '{space.name}' "
                "are not; take the space stages or mobile."
            )
        if path is not None and path.is_file():
            self.seconds, self.checked = _read(path)

    def __call__(self, architecture: Architecture) -> float:
        if self.path is not None and self.checked is None:
            self._check()
        if architecture not in self._known:
            self._known[architecture] = self._sum(architecture)
        return self._known[architecture]

    @torch.no_grad()
    def knows(self, architecture: Architecture) -> bool:
        """Whether all blocks of the network were measured already."""
        return set(_keys(*_ready(self.space, architecture, self.size))) <= self.seconds.keys()

    @torch.no_grad()
    def _sum(self, architecture: Architecture) -> float:
        network, image = _ready(self.space, architecture, self.size)
        keys = _keys(network, image)
        if not set(keys) <= self.seconds.keys():
            for key, seconds in zip(keys, _passes(network, image, network.blocks()).tolist(), strict=True):
                self.seconds.setdefault(key, seconds)
            self._save()
        return sum(self.seconds[key] for key in keys)

    def _check(self) -> None:
        # In a table of its own: what this one knows already may come from those very networks.
        own = LatencyTable(self.space, self.size)
        self.checked = check(own, np.random.default_rng(0)).row()
        self.seconds = own.seconds | self.seconds
        self._save()

    def _save(self) -> None:
        if self.path is not None:
            content = {"device": device(), "check": self.checked, "seconds": self.seconds}
            write_text(self.path, json.dumps(content, indent=1))


def latency_in(run: Path, space: Space, size: int, timed: bool) -> LatencyTable | None:
    """The table in the folder of a run or a search, where its architectures are `timed`."""
    return LatencyTable(space, size, run / LATENCY) if timed else None


@dataclass(frozen=True)
class Foretold:
    """How well a table foretells whole networks, in seconds (n,) each."""

    measured: np.ndarray
    predicted: np.ndarray

    @property
    def error(self) -> float:
        """The mean of |predicted - measured| / measured."""
        return float(np.mean(np.abs(self.predicted / self.measured - 1)))

    @property
    def bias(self) -> float:
        """The mean of predicted / measured - 1."""
        return float(np.mean(self.predicted / self.measured - 1))

    @property
    def median(self) -> float:
        """The median of |predicted - measured| / measured."""
        return float(np.median(np.abs(self.predicted / self.measured - 1)))

    def row(self) -> dict[str, float]:
        """On how many networks, and how far off, as files hold it."""
        if not len(self.measured):
            return {"networks": 0}
        return {"networks": len(self.measured), "median": self.median, "bias": self.bias}


def foretell(table: LatencyTable, architectures: Sequence[Architecture]) -> Foretold:
    """Measures those networks whose blocks the table knows, all from other networks, and asks it about them."""
    known = [architecture for architecture in architectures if table.knows(architecture)]
    measured = [measure(table.space, architecture, table.size) for architecture in known]
    return Foretold(np.array(measured), np.array([table(architecture) for architecture in known]))


def check(table: LatencyTable, rng: np.random.Generator) -> Foretold:
    """Holds a table against `WHOLE` random networks, whose blocks are timed in neighbours of theirs: seconds of work.

    Fewer where the neighbours do not have all blocks between them.
    """
    space = table.space
    drawn = list(dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(WHOLE)))
    for architecture in drawn:
        for _ in range(NEIGHBOURS):
            if table.knows(architecture):
                break
            neighbour = space.canonical(space.mutate(architecture, rng))
            if neighbour not in drawn:
                table(neighbour)
    return foretell(table, drawn)


def device() -> str:
    """What the seconds belong to."""
    return f"{platform.machine()} {platform.processor()}, {os.cpu_count()} cores, torch {torch.__version__}"


def _ready(space: Space, architecture: Architecture, size: int) -> tuple[Features, torch.Tensor]:
    network = space.build(architecture).eval().to(memory_format=torch.channels_last)
    return network, channels_last(torch.rand(1, space.channels, size, size))


def _keys(network: Features, image: torch.Tensor) -> list[str]:
    """For every block that the image goes through, what it is and the shape of its input."""
    keys = []

    def note(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        keys.append(f"{'x'.join(map(str, inputs[0].shape[1:]))} {' '.join(repr(block).split())}")

    hooks = [block.register_forward_pre_hook(note) for block in network.blocks()]
    network(image, 0)
    for hook in hooks:
        hook.remove()
    return keys


def _passes(network: Features, image: torch.Tensor, parts: Sequence[nn.Module]) -> np.ndarray:
    """Seconds (n,) of the parts of a network in the order in which they run, the mean of its fastest passes.

    Seconds of this thread on the processor, which are those of the clock where nothing else runs.
    """
    moments: list[float] = []
    hooks = [
        hook
        for part in parts
        for hook in (
            part.register_forward_pre_hook(lambda module, inputs: moments.append(time.thread_time())),
            part.register_forward_hook(lambda module, inputs, output: moments.append(time.thread_time())),
        )
    ]
    with one_thread():
        for _ in range(WARM_UP + PASSES):
            network(image, 0)
    for hook in hooks:
        hook.remove()
    seconds = np.diff(np.reshape(moments, (WARM_UP + PASSES, -1, 2)))[WARM_UP:, :, 0]  # (passes, parts)
    fastest = np.argsort(seconds.sum(1), kind="stable")[:FASTEST]
    mean: np.ndarray = seconds[fastest].mean(0)
    return mean


def _read(path: Path) -> tuple[dict[str, float], dict[str, float] | None]:
    """The seconds, and how far off they were."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        owner, checked = content["device"], content.get("check")
        found = {str(key): float(seconds) for key, seconds in content["seconds"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetanasError(f"'{path}' is no latency table ({error}); remove it, and it is measured anew.") from error
    if owner != device():
        raise MetanasError(
            f"the latency table '{path}' was measured on '{owner}' and this is '{device()}'; remove it, "
            "and it is measured anew."
        )
    return found, checked
