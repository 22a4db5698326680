"""The cell that NAS-Bench-201 and TransNAS-Bench-101 (micro) search: four nodes and an operation on each edge.

An architecture lists the operations of the edges in the order of `EDGES`; node 0 is the cell's input, node 3 its
output, and a node is the sum of what its edges bring.
"""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from itertools import product
from typing import Any

import numpy as np

from metanas.api import Architecture
from metanas.spaces.genes import Genes

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The ways from input to output, as indices of edges."""
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

    def gene_name(self, gene: int) -> str:
        return "operation of the edge {}->{}".format(*EDGES[gene])

    def canonical(self, architecture: Architecture) -> Architecture:
        """The least architecture that computes the same.

        By three rules: what comes from nothing adds nothing, a skip connection is the identity, and a sum has no order.
        """
        return self._representatives[architecture]

    def encode(self, architecture: Architecture) -> np.ndarray:
        """One-hot genes of the canonical form, then how often each sequence of operations leads to the output.

        The sequences are the path encoding of White et al. 2021 (BANANAS, section 3), without identities.
        """
        return _encode(self, architecture)

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
        nodes: list[list[Any]] = [[("input", ())], [], [], []]
        for gene, (a, b) in zip(architecture, EDGES, strict=True):
            operation = self.operations[gene]
            if operation == NONE or not nodes[a]:
                continue
            if self._identity(operation, a):
                nodes[b] += nodes[a]
            else:
                nodes[b].append((operation, tuple(sorted(nodes[a]))))
        return tuple(sorted(nodes[3]))

    def _identity(self, operation: str, source: int) -> bool:
        return operation == self.skip and not (self.strided and source == 0)

    def sequences(self, architecture: Architecture) -> Iterator[tuple[str, ...]]:
        """The operations along every path that carries something, without identities."""
        for path in PATHS:
            named = [(self.operations[architecture[edge]], EDGES[edge][0]) for edge in path]
            if all(operation != NONE for operation, _ in named):
                yield tuple(operation for operation, source in named if not self._identity(operation, source))

    @cached_property
    def vocabulary(self) -> dict[tuple[str, ...], int]:
        """All sequences, numbered."""
        every = product(range(len(self.operations)), repeat=len(EDGES))
        return {sequence: i for i, sequence in enumerate(sorted({s for a in every for s in self.sequences(a)}))}


@cache
def _encode(space: TableCells, architecture: Architecture) -> np.ndarray:
    counts = np.zeros(len(space.vocabulary))
    for sequence in space.sequences(architecture):
        counts[space.vocabulary[sequence]] += 1
    code = np.concatenate([Genes.encode(space, architecture), counts])
    code.flags.writeable = False
    return code
