"""What the graph of a cell says: statistics of its paths, a truncated path encoding, and its adjacency.

A graph is a list of edges (source, target, operation) between nodes numbered in topological order; node 0 and whatever
nothing leads to are inputs, the last node is the output. Edges that lie on no path from input to output count for
nothing, and the identity leaves no trace in a path, so graphs that compute the same read more alike than their genes
do.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

Edge = tuple[int, int, int]
Word = tuple[int, ...]
IDENTITY = -1
"""The operation of an edge that hands its input on."""


@dataclass(frozen=True)
class Graph:
    """Edges (source, target, operation) of a cell with `nodes` nodes; an operation is a number, or IDENTITY."""

    nodes: int
    inputs: tuple[int, ...]
    edges: tuple[Edge, ...]

    @property
    def words(self) -> list[Word]:
        """The operations along every path from an input to the last node, the identity left out."""
        found: list[list[Word]] = [[()] if node in self.inputs else [] for node in range(self.nodes)]
        for source, target, operation in sorted(self.edges, key=lambda edge: edge[1]):
            step = () if operation == IDENTITY else (operation,)
            found[target] += [(*word, *step) for word in found[source]]
        return found[-1]

    @property
    def live(self) -> list[Edge]:
        """The edges that lie on a path from an input to the output."""
        fed, used = set(self.inputs), {self.nodes - 1}
        for source, target, _ in sorted(self.edges, key=lambda edge: edge[1]):
            if source in fed:
                fed.add(target)
        for source, target, _ in sorted(self.edges, key=lambda edge: -edge[0]):
            if target in used:
                used.add(source)
        return [edge for edge in self.edges if edge[0] in fed and edge[1] in used]


def graph_statistics(graph: Graph, operations: int, weighted: Collection[int] = ()) -> np.ndarray:
    """Counts (S,) of live edges, paths and degrees, and how often each operation stands on a path.

    S is 13 + 4 O + 2 V for O operations and V nodes; `weighted` operations, those with weights, are also counted
    together. Without a path, minima, means and maxima over paths are -1.
    """
    live, words = graph.live, graph.words
    lengths = [len(word) for word in words]
    counts = [sum(own == operation for _, _, own in live) for operation in range(operations)]
    along = [spread for operation in range(operations) for spread in _spread([w.count(operation) for w in words])]
    into = np.bincount([target for _, target, _ in live], minlength=graph.nodes)
    out_of = np.bincount([source for source, _, _ in live], minlength=graph.nodes)
    depths = [sum(operation in weighted for operation in word) for word in words]
    totals = [
        sum(operation in weighted for _, _, operation in live),
        len(live),
        sum(operation == IDENTITY for _, _, operation in live),
        len(words),
        len(set(words)),
        lengths.count(0),
        float(bool(words)),
    ]
    return np.array([*totals, *_spread(lengths), *_spread(depths), *counts, *along, *into, *out_of], dtype=np.float64)


def _spread(values: Sequence[int]) -> tuple[float, float, float]:
    return (min(values), float(np.mean(values)), max(values)) if values else (-1.0, -1.0, -1.0)


def vocabulary(operations: int, longest: int) -> list[Word]:
    """All words of at most `longest` operations, short ones first."""
    return [word for length in range(longest + 1) for word in product(range(operations), repeat=length)]


def path_counts(graph: Graph, words: Sequence[Word]) -> np.ndarray:
    """How often each of `words` (W,) is a path; longer paths are left out (White et al. 2021, section 4)."""
    own = graph.words
    return np.array([own.count(word) for word in words], dtype=np.float64)


def adjacency(graphs: Sequence[Graph], operations: int) -> np.ndarray:
    """The number of nodes V, then (V * V * (O + 1),): 1 where an edge between nodes carries an operation.

    Several graphs stand beside one another as one. The identity is the last operation.
    """
    nodes = sum(graph.nodes for graph in graphs)
    found, first = np.zeros((nodes, nodes, operations + 1)), 0
    for graph in graphs:
        for source, target, operation in graph.live:
            found[first + source, first + target, operation] = 1  # IDENTITY, -1, is the last
        first += graph.nodes
    return np.concatenate([[nodes], found.ravel()])


def graph_blocks(
    architectures: Sequence[Sequence[Graph]], operations: int, weighted: Collection[int], longest: int
) -> list[tuple[str, np.ndarray]]:
    """The blocks "paths", "graph" and "adjacency" (n, d_i) of architectures that are some graphs each."""
    words = vocabulary(operations, longest)

    def rows(of: Callable[[Graph], np.ndarray]) -> np.ndarray:
        return np.stack([np.concatenate([of(graph) for graph in graphs]) for graphs in architectures])

    return [
        ("paths", rows(lambda graph: path_counts(graph, words))),
        ("graph", rows(lambda graph: graph_statistics(graph, operations, weighted))),
        ("adjacency", np.stack([adjacency(graphs, operations) for graphs in architectures])),
    ]
