"""The cell space: a normal and a reduction cell, searched; how they are stacked is a setting.

An architecture lists, for the normal cell and then for the reduction cell, five genes a node: state, operation,
state, operation, combination (Zoph et al. 2018, section 3). States 0 and 1 are the outputs of the cell before the
previous one and of the previous one, state 2 + i is node i. Genes do not restrict one another: a uniform architecture
is uniform genes, and the size is a product. Weights are shared by cell position, node, state and operation, as in
ENAS and DARTS.

What a node computes is a set of paths: two equal paths count once, and a path that carries nothing (operation "none",
or from a node without paths) does not count at all, neither as a use of its state. So two architectures compute the
same network exactly when their graphs of such nodes are isomorphic, which is what `canonical` decides.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.spaces.cell_network import CellGraph, CellNetwork, NodeGraph
from metanas.spaces.drawing import Arrow, Drawing, chain, layered, svg
from metanas.spaces.genes import Genes
from metanas.spaces.ops import DARTS, OPERATIONS
from metanas.spaces.scaling import scaled_depth, scaled_width
from metanas.spaces.space import Index, fresh_weights, parameter_shapes, whole_slices

KINDS = ("normal", "reduction")
GENES = ("first state", "first operation", "second state", "second operation", "combination")
COMBINATIONS = ("sum", "concat")
PATH = re.compile(r"\.paths\.from(\d+)_")
"""In the name of a weight, the state that its path comes from."""


class Cells(Genes):
    """Normal and reduction cells of `nodes` nodes, stacked `stack` times before, between and after the `reductions`.

    `width` channels at the start, twice as many after each reduction. `combine` lists the ways in which a node may
    combine its two paths: the search chooses where there are two. A mutation takes another state, operation or
    combination in one place, as in AmoebaNet (Real et al. 2019).
    """

    def __init__(
        self,
        channels: int = 1,
        nodes: int = 4,
        width: int = 16,
        stack: int = 1,
        reductions: int = 2,
        operations: Sequence[str] = DARTS,
        combine: Sequence[str] = ("sum",),
    ) -> None:
        counts = {"channels": channels, "nodes": nodes, "width": width, "stack": stack, "reductions": reductions}
        for key, count in counts.items():
            if not isinstance(count, int) or count < 1:
                raise MetanasError(f"space.cells: {key} must be a whole number of 1 or more, but is {count}.")
        for key, names, known in (("operations", operations, OPERATIONS), ("combine", combine, COMBINATIONS)):
            if not names or len(set(names)) < len(names) or not set(names) <= set(known):
                raise MetanasError(
                    f"space.cells: {key} must be different names out of {', '.join(known)}, but is {list(names)}."
                )
        one_cell = [
            count
            for node in range(nodes)
            for count in (node + 2, len(operations), node + 2, len(operations), len(combine))
        ]
        super().__init__("cells", one_cell * len(KINDS))
        self.channels, self.nodes, self.width, self.stack, self.reductions = channels, nodes, width, stack, reductions
        self.operations, self.combine = tuple(operations), tuple(combine)

    @property
    def default(self) -> Architecture:
        """A residual chain: each node a convolution of the state before it plus the state before that."""
        names = self.operations
        main = next((names.index(name) for name in ("conv_3x3", "sep_conv_3x3") if name in names), len(names) - 1)
        side = names.index("skip_connect") if "skip_connect" in names else main
        return tuple(gene for node in range(self.nodes) for gene in (node, side, node + 1, main, 0)) * len(KINDS)

    def scaled(self, depth: float, width: float, size: int) -> "Cells":
        """More normal cells between the reductions, and wider ones. The images' size changes nothing here."""
        return Cells(
            self.channels,
            self.nodes,
            scaled_width(self.width, width),
            scaled_depth(self.stack, depth),
            self.reductions,
            self.operations,
            self.combine,
        )

    def gene_name(self, gene: int) -> str:
        kind, node = divmod(gene // len(GENES), self.nodes)
        return f"{GENES[gene % len(GENES)]} of node {node} of the {KINDS[kind]} cell"

    def gene_text(self, gene: int, architecture: Architecture) -> str:
        kind, node = divmod(gene // len(GENES), self.nodes)
        place = gene % len(GENES)
        a, f, b, g, combination = architecture[gene - place : gene - place + len(GENES)]
        state, operation = ((a, f), (b, g))[place // 2 % 2]
        named = self.operations[operation]
        texts = (f"edge from {_state(state)} ({named})", f"{named} (from {_state(state)})")
        what = self.combine[combination] if GENES[place] == "combination" else texts[place % 2]
        return f"{KINDS[kind]} {_state(node + 2)}: {what}"

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Whole nodes, each from either parent."""
        parents = rng.integers(2, size=len(a) // len(GENES)).repeat(len(GENES))
        return tuple(pair[parent] for pair, parent in zip(zip(a, b, strict=True), parents, strict=True))

    def canonical(self, architecture: Architecture) -> Architecture:
        """The least architecture, gene by gene, with its nodes reordered, and nodes that compute nothing at the end."""
        return tuple(gene for graph in self.graphs(architecture).values() for gene in self._least_genes(graph))

    def _least_genes(self, graph: CellGraph) -> Architecture:
        # Every way of numbering the nodes that is least so far; only nodes with the same paths can tie.
        numberings: list[tuple[dict[int, int], Architecture]] = [({0: 0, 1: 1}, ())]
        for number in range(2, 2 + len(graph.nodes)):
            longer = [
                (numbers | {state: number}, genes + self._node_genes(node, numbers))
                for numbers, genes in numberings
                for state, node in graph.nodes.items()
                if state not in numbers and all(source in numbers for source, _ in node.paths)
            ]
            least = min(genes for _, genes in longer)
            numberings = [numbering for numbering in longer if numbering[1] == least]
        empty = self.nodes - len(graph.nodes)  # above 0 only where "none" is among the operations
        nothing = (0, self.operations.index("none")) * 2 + (0,) if empty else ()
        return numberings[0][1] + nothing * empty

    def _node_genes(self, node: NodeGraph, numbers: Mapping[int, int]) -> Architecture:
        paths = sorted((numbers[state], self.operations.index(operation)) for state, operation in node.paths)
        return (*paths[0], *paths[-1], self.combine.index(node.combine))

    def encode(self, architecture: Architecture) -> np.ndarray:
        """Of the genes as they are: which networks are the same shows in the graphs' own features."""
        return np.concatenate([np.eye(count)[gene] for gene, count in zip(architecture, self.counts, strict=True)])

    def graphs(self, architecture: Architecture) -> dict[str, CellGraph]:
        """What each kind of cell computes."""
        self.check(architecture)
        half = len(architecture) // 2
        return {"normal": self._graph(architecture[:half]), "reduction": self._graph(architecture[half:])}

    def _graph(self, genes: Architecture) -> CellGraph:
        states, nodes = {0, 1}, {}
        for node in range(self.nodes):
            a, f, b, g, combination = genes[node * len(GENES) : (node + 1) * len(GENES)]
            paths = {(a, f), (b, g)}
            live = sorted(path for path in paths if path[0] in states and self.operations[path[1]] != "none")
            if live:
                states.add(node + 2)
                named = tuple((state, self.operations[operation]) for state, operation in live)
                nodes[node + 2] = NodeGraph(named, self.combine[combination])
        used = {state for node in nodes.values() for state, _ in node.paths}
        return CellGraph(nodes, tuple(sorted(states - used)))

    def _network(self, normal: CellGraph, reduction: CellGraph) -> CellNetwork:
        return CellNetwork(self.channels, self.width, self.stack, self.reductions, normal, reduction)

    def build(self, architecture: Architecture) -> CellNetwork:
        return self._network(**self.graphs(architecture))

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Of every path that there is."""
        combine = "concat" if "concat" in self.combine else "sum"
        shapes: dict[str, torch.Size] = {}
        places: dict[str, tuple[int, int, int]] = {}  # in a network of all paths: they lie by state, then by operation
        for number, operation in enumerate(self.operations):  # all modules at once would take more than the weights do
            cell = self._everything([operation], combine, range(self.nodes + 2))
            with torch.device("meta"):
                found = parameter_shapes(self._network(cell, cell))
            common = 0
            for name in found:
                path = PATH.search(name)
                common += path is None
                places[name] = (common, int(path[1]), number) if path else (common, -1, 0)
            shapes |= found
        return fresh_weights({name: shapes[name] for name in sorted(shapes, key=places.__getitem__)}, generator)

    def relaxed(self) -> CellNetwork:
        """All paths of every node at once, summed, to be run with `mixing`; the weights' names are the shared ones'.

        A node's paths come in the order of their states and, for each state, of `operations` without "none". The
        output of a cell takes all its nodes (Liu et al. 2019, section 2.1): which of them the architecture will leave
        unused is not decided yet.
        """
        cell = self._everything(self.operations, "sum", range(2, self.nodes + 2))
        return self._network(cell, cell)

    def _everything(self, operations: Sequence[str], combine: str, outputs: Iterable[int]) -> CellGraph:
        computing = [name for name in operations if name != "none"]
        nodes = {
            state: NodeGraph(tuple((source, name) for source in range(state) for name in computing), combine)
            for state in range(2, self.nodes + 2)
        }
        return CellGraph(nodes, tuple(outputs))

    def slices(self, architecture: Architecture) -> Mapping[str, Index]:
        """Every weight whole: those of an architecture are a part of the names."""
        return whole_slices(self, architecture)

    def describe(self, architecture: Architecture) -> str:
        cells = []
        for kind, graph in self.graphs(architecture).items():
            nodes = []
            for state, node in graph.nodes.items():
                paths = ", ".join(f"{name} {_state(source)}" for source, name in node.paths)
                nodes.append(f"{_state(state)}={node.combine}({paths})")
            output = "out=" + "+".join(map(_state, graph.outputs))
            cells.append(f"{kind}: {'; '.join([*nodes, output])}")
        return " | ".join(cells)

    def draw(self, architecture: Architecture) -> str:
        return svg(chain("Network", list(self._chain())), *self._draw_cells(architecture))

    def _chain(self) -> Iterator[tuple[str, str]]:
        yield "input", f"{self.channels} channel{'s' if self.channels > 1 else ''}"
        yield "3x3 convolution", f"{self.width} channels"
        times = f"x {self.stack}, " if self.stack > 1 else ""
        for level in range(self.reductions + 1):
            if level:
                yield "reduction cell", f"{self.width << level} channels, half the size"
            yield "normal cell", f"{times}{self.width << level} channels"
        yield "mean over the image", f"{self.width << self.reductions} features"

    def _draw_cells(self, architecture: Architecture) -> Iterator[Drawing]:
        for kind, graph in self.graphs(architecture).items():
            boxes = {0: "cell before the previous", 1: "previous cell"}
            arrows = []
            for state, node in graph.nodes.items():
                boxes[state] = f"{node.combine} {_state(state)}"
                arrows += [Arrow(source, state, name) for source, name in node.paths]
            output = self.nodes + 2
            boxes[output] = "output" if len(graph.outputs) == 1 else "concat, output"
            arrows += [Arrow(state, output) for state in graph.outputs]
            yield layered(f"{kind.capitalize()} cell", boxes, arrows)


def _state(state: int) -> str:
    return f"h{state}" if state < 2 else f"n{state - 2}"
