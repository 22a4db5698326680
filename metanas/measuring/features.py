"""What the predictor sees of the architectures of a space."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.spaces.cell_network import CellGraph
from metanas.spaces.space import Space
from predictors.features import BLOCKS, Table
from predictors.graphs import IDENTITY, Graph, graph_blocks

LONGEST = 2
"""Operations of the longest path that is counted by name: seven operations have 57 words so short, and 400 of three."""
WEIGHTLESS = ("skip_connect", "none", "max_pool_3x3", "avg_pool_3x3")


@runtime_checkable
class CellSpace(Protocol):
    """A space whose architectures are graphs of named operations."""

    operations: tuple[str, ...]
    nodes: int

    def graphs(self, architecture: Architecture) -> Mapping[str, CellGraph]:
        """What each kind of cell computes."""


GRAPHS = ("paths", "graph", "adjacency")
"""Blocks of spaces of cells."""
EXTRA = ("adjacency", "latency", "zero-cost")
"""Blocks for who asks for them: only graph networks read the adjacency, and forests would split by its many columns;
latency is measured on this device; of what scores cost and bring, see docs/predictor.md."""


def blocks_of(space: Space) -> tuple[str, ...]:
    """All blocks that the architectures of a space can give."""
    # A latency table needs networks that are chains, which cells are not.
    left_out = {"task", "latency"} if isinstance(space, CellSpace) else {"task", *GRAPHS}
    return tuple(name for name in BLOCKS if name not in left_out)


def chosen_blocks(space: Space, names: Sequence[str] | None, key: str) -> tuple[str, ...]:
    """The named blocks in their order; without names all but the `EXTRA` ones.

    Raises MetanasError, which names the `key` of a configuration or an option, for what the space cannot give.
    """
    given = blocks_of(space)
    if names is None:
        return tuple(name for name in given if name not in EXTRA)
    for name in names:
        if name not in given:
            raise MetanasError(
                f"{key}: the space '{space.name}' gives no block '{name}'; choose among {', '.join(given)}."
            )
    if not names:
        raise MetanasError(f"{key}: no block is left to see architectures by; choose among {', '.join(given)}.")
    return tuple(name for name in given if name in names)


class ArchitectureFeatures:
    """Architectures of `space`, for images of `size`, -> what the predictor sees of them: (n, d) in `blocks`.

    `latency` gives the seconds of the block "latency", `scores` the columns (k,) of "zero-cost".
    """

    def __init__(
        self,
        space: Space,
        size: int,
        blocks: Sequence[str] | None = None,
        latency: Callable[[Architecture], float] | None = None,
        scores: Callable[[Architecture], np.ndarray] | None = None,
    ) -> None:
        self.space, self.size, self.latency, self.scores = space, size, latency, scores
        self.blocks = chosen_blocks(space, blocks, "blocks")

    def table(self, architectures: Sequence[Architecture]) -> Table:
        """The blocks side by side."""
        found: dict[str, np.ndarray] = {}
        for name in self.blocks:
            if name == "architecture":
                found[name] = np.stack([self.space.encode(architecture) for architecture in architectures])
            elif name == "costs":
                costs = [cost(self.space, architecture, self.size) for architecture in architectures]
                found[name] = np.log([(own.params, own.macs) for own in costs])
            elif name == "latency":
                assert self.latency is not None
                found[name] = np.log([[self.latency(architecture)] for architecture in architectures])
            elif name == "zero-cost":
                assert self.scores is not None
                found[name] = np.stack([self.scores(architecture) for architecture in architectures])
            elif name not in found:
                found |= self._graph_blocks(architectures)
        return Table.of((name, found[name]) for name in self.blocks)

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        return self.table(architectures).values

    def _graph_blocks(self, architectures: Sequence[Architecture]) -> dict[str, np.ndarray]:
        space = self.space
        assert isinstance(space, CellSpace)
        able = [name for name in space.operations if name not in ("skip_connect", "none")]
        weighted = [number for number, name in enumerate(able) if name not in WEIGHTLESS]
        graphs = [
            [_graph(cell, space.nodes, able) for cell in space.graphs(architecture).values()]
            for architecture in architectures
        ]
        return dict(graph_blocks(graphs, len(able), weighted, LONGEST))


def _graph(cell: CellGraph, nodes: int, operations: Sequence[str]) -> Graph:
    """Two inputs, the nodes, and an output that collects the states which no node uses."""
    output = nodes + 2
    edges = [
        (source, state, operations.index(name) if name in operations else IDENTITY)
        for state, node in cell.nodes.items()
        for source, name in node.paths
    ]
    edges += [(state, output, IDENTITY) for state in cell.outputs]
    return Graph(output + 1, (0, 1), tuple(edges))
