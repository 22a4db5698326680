"""The cell that NAS-Bench-201 and TransNAS-Bench-101 (micro) search: four nodes and an operation on each edge.

An architecture lists the operations of the edges in the order of `EDGES`; node 0 is the cell's input, node 3 its
output, and a node is the sum of what its edges bring.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from itertools import product
from typing import Any

import numpy as np

from metanas.api import Architecture
from metanas.spaces.genes import Genes
from predictors.graphs import IDENTITY, Graph, graph_statistics, path_counts, vocabulary

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NODES, LONGEST = 4, 3
"""Of a cell, and edges on its longest path."""
NONE = "none"

Sum = tuple[Any, ...]
"""What a node computes: its terms (operation, sum that it is applied to) in sorted order."""


class TableCells(Genes):
    """The cells over `operations`, of which "none" brings nothing and `skip` is the identity.

    With `strided` some cells halve the resolution on the edges that leave their input, where `skip` is an operation
    with weights of its own.
    """

    def __init__(self, name: str, operations: Sequence[str], skip: str, strided: bool) -> None:
        super().__init__(name, [len(operations)] * len(EDGES))
        self.operations, self.skip, self.strided = tuple(operations), skip, strided
        idle = (NONE,) if strided else (NONE, skip)
        self._working = [name for name in operations if name not in idle]

    def gene_name(self, gene: int) -> str:
        return "operation of the edge {}->{}".format(*EDGES[gene])

    def canonical(self, architecture: Architecture) -> Architecture:
        """The least architecture that computes the same.

        By three rules: what comes from nothing adds nothing, a skip connection is the identity, and a sum has no order.
        """
        return self._representatives[architecture]

    def encode(self, architecture: Architecture) -> np.ndarray:
        """What the graph of the canonical form says, (E,): how often each sequence of operations leads from input to
        output (White et al. 2021, BANANAS, section 3), without identities, and statistics of its paths and degrees.
        """
        return _encode(self, self.canonical(architecture))

    def graph(self, architecture: Architecture) -> Graph:
        """The edges that bring something; those that work are numbered without "none" and the identity."""
        named = [(self.operations[gene], edge) for gene, edge in zip(architecture, EDGES, strict=True)]
        return Graph(NODES, (0,), tuple((a, b, self._number(name, a)) for name, (a, b) in named if name != NONE))

    def describe(self, architecture: Architecture) -> str:
        edges = (f"{self.operations[gene]} {a}->{b}" for gene, (a, b) in zip(architecture, EDGES, strict=True))
        return ", ".join(edges)

    @cached_property
    def _representatives(self) -> dict[Architecture, Architecture]:
        least: dict[Sum, Architecture] = {}
        every = list(product(range(len(self.operations)), repeat=len(EDGES)))
        return {architecture: least.setdefault(self._computes(architecture), architecture) for architecture in every}

    def _computes(self, architecture: Architecture) -> Sum:
        """The output node."""
        nodes: list[list[Any]] = [[(IDENTITY, ())], *([] for _ in range(1, NODES))]
        for a, b, operation in self.graph(architecture).edges:
            if operation == IDENTITY:
                nodes[b] += nodes[a]
            elif nodes[a]:
                nodes[b].append((operation, tuple(sorted(nodes[a]))))
        return tuple(sorted(nodes[-1]))

    def _number(self, operation: str, source: int) -> int:
        identity = operation == self.skip and not (self.strided and source == 0)
        return IDENTITY if identity else self._working.index(operation)


@cache
def _encode(space: TableCells, canonical: Architecture) -> np.ndarray:
    graph, working = space.graph(canonical), space._working
    weighted = [number for number, name in enumerate(working) if "pool" not in name]
    words = vocabulary(len(working), LONGEST)
    code = np.concatenate([path_counts(graph, words), graph_statistics(graph, len(working), weighted)])
    code.flags.writeable = False
    return code
