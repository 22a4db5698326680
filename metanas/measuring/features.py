"""What the predictor sees of the architectures of a space."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from metanas.api import Architecture, Cost
from metanas.measuring.cost import cost
from metanas.spaces.cell_network import CellGraph
from metanas.spaces.space import Space
from predictors.features import Table
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


class ArchitectureFeatures:
    """Architectures of `space`, for images of `size`, -> what the predictor sees of them: (n, d).

    `latency` gives the seconds of their costs, which the predictor does not see.
    """

    def __init__(self, space: Space, size: int, latency: Callable[[Architecture], float] | None = None) -> None:
        self.space, self.size, self.latency = space, size, latency

    def cost(self, architecture: Architecture) -> Cost:
        """Of one architecture."""
        found = cost(self.space, architecture, self.size)
        return replace(found, latency=self.latency(architecture)) if self.latency else found

    def table(self, architectures: Sequence[Architecture]) -> Table:
        """The blocks "architecture" (one-hot genes), "paths" and "graph" where the space has graphs, and "costs"."""
        costs = [cost(self.space, architecture, self.size) for architecture in architectures]
        onehot = np.stack([self.space.encode(architecture) for architecture in architectures])
        return Table.of(
            [
                ("architecture", onehot),
                *self._graph_blocks(architectures),
                ("costs", np.log([[c.params, c.macs] for c in costs])),
            ]
        )

    def __call__(self, architectures: Sequence[Architecture]) -> np.ndarray:
        return self.table(architectures).values

    def _graph_blocks(self, architectures: Sequence[Architecture]) -> list[tuple[str, np.ndarray]]:
        space = self.space
        if not isinstance(space, CellSpace):
            return []
        able = [name for name in space.operations if name not in ("skip_connect", "none")]
        weighted = [number for number, name in enumerate(able) if name not in WEIGHTLESS]
        graphs = [
            [_graph(cell, space.nodes, able) for cell in space.graphs(architecture).values()]
            for architecture in architectures
        ]
        blocks = graph_blocks(graphs, len(able), weighted, LONGEST)
        # Only graph networks read the adjacency, and forests would split by its many columns.
        return [(name, block) for name, block in blocks if name != "adjacency"]


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
