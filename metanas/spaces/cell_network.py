"""The network of a cell architecture: a stem, then cells, then the mean over the image.

A cell gets the outputs of the two cells before it as states 0 and 1. Each node adds a state: it combines the paths
that end in it (operations on earlier states) and normalises the result, so that the scale does not depend on which
and how many paths meet. Combining is a sum, or a concatenation followed by a 1x1 convolution, which is the same as
the sum of one 1x1 convolution a path. The states that no node uses are concatenated (as in NASNet, and unlike DARTS,
where all nodes are) and projected to the cell's width: again a sum of one 1x1 convolution a state. Written as sums,
every weight keeps its shape whatever the others do, and so can be shared whole.

With `mixing` each path counts by its share: the continuous relaxation of DARTS (Liu et al. 2019, section 2.2), whose
gradient reaches the shares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from metanas.spaces.norm import SupportNorm
from metanas.spaces.ops import OPERATIONS, Identity, ReluConvNorm, convolution, drop_path, pointwise
from metanas.spaces.space import Features


@dataclass(frozen=True)
class NodeGraph:
    """What meets in a node: different (state, operation) pairs in order, and how they are combined."""

    paths: tuple[tuple[int, str], ...]
    combine: str  # "sum" or "concat"


@dataclass(frozen=True)
class CellGraph:
    """The part of a cell that computes something: nodes by the number of their state (2 is the first node's)."""

    nodes: Mapping[int, NodeGraph]
    outputs: tuple[int, ...]  # the states that no node uses


Drop = Callable[[Tensor], Tensor]

Mixing = Mapping[str, Sequence[Tensor]]
"""For each kind of cell and each of its nodes, the shares (paths,) by which its paths count."""


class Node(nn.Module):
    """One node: `forward(states, reference, drop, shares)` gives the next state, (N, C, H, W).

    Without `shares` (paths,) each path counts fully.
    """

    def __init__(self, graph: NodeGraph, width: int, reduction: bool) -> None:
        super().__init__()
        self.sources = [(f"from{state}_{operation}", state) for state, operation in graph.paths]
        self.paths = nn.ModuleDict(
            {
                f"from{state}_{operation}": OPERATIONS[operation](width, 2 if reduction and state < 2 else 1)
                for state, operation in graph.paths
            }
        )
        projected = self.sources if graph.combine == "concat" else []
        self.projections = nn.ModuleDict({name: convolution(width, width, (1, 1)) for name, _ in projected})
        self.norm = SupportNorm(width)

    def forward(self, states: Mapping[int, Tensor], reference: int, drop: Drop, shares: Tensor | None = None) -> Tensor:
        terms = []
        for path_number, (name, state) in enumerate(self.sources):
            path = self.paths[name]
            term = path(states[state], reference)
            if not isinstance(path, Identity):
                term = drop(term)
            if name in self.projections:
                term = self.projections[name](term)
            terms.append(term if shares is None else term * shares[path_number])
        combined: Tensor = self.norm(sum(terms[1:], start=terms[0]), reference)
        return combined


class Cell(nn.Module):
    """One cell: `forward(before, previous, reference, drop, mixing)` maps two cells' outputs to (N, width, H', W').

    `mixing` are the shares of the paths of each node, None where all count fully. `strides` and `widths` are those of
    the two inputs: an input of another shape than the cell's is adapted first.
    """

    def __init__(
        self, graph: CellGraph, width: int, reduction: bool, widths: tuple[int, int], strides: tuple[int, int]
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            Identity()
            if (inputs, stride) == (width, 1)
            else ReluConvNorm(*pointwise(inputs, width, stride), channels=width)
            for inputs, stride in zip(widths, strides, strict=True)
        )
        self.nodes = nn.ModuleDict(
            {str(state - 2): Node(node, width, reduction) for state, node in graph.nodes.items()}
        )
        self.outputs = nn.ModuleDict(
            {
                f"from{state}": nn.Sequential(nn.ReLU(), *pointwise(width, width, 2 if reduction and state < 2 else 1))
                for state in graph.outputs
            }
        )
        self.loose = graph.outputs

    def forward(
        self,
        before: Tensor,
        previous: Tensor,
        reference: int,
        drop: Drop,
        mixing: Sequence[Tensor] | None = None,
    ) -> Tensor:
        states = {0: self.inputs[0](before, reference), 1: self.inputs[1](previous, reference)}
        for position, (number, node) in enumerate(self.nodes.items()):
            shares = None if mixing is None else mixing[position]
            states[int(number) + 2] = node(states, reference, drop, shares)
        first, *others = (self.outputs[f"from{state}"](states[state]) for state in self.loose)
        projected: Tensor = sum(others, start=first)
        return projected


class CellNetwork(Features):
    """`stack` normal cells, then `reductions` times a reduction cell (half the size, twice the width) and `stack` more.

    While training with `drop_path` above 0, each path of a node but the identity is dropped with that probability,
    drawn from `generator`, which must then be set (ScheduledDropPath raises the probability from step to step).
    """

    def __init__(
        self, channels: int, width: int, stack: int, reductions: int, normal: CellGraph, reduction: CellGraph
    ) -> None:
        super().__init__()
        self.stem = convolution(channels, width, (3, 3))
        self.stem_norm = SupportNorm(width)
        self.cells = nn.ModuleList()
        self.kinds = ["normal"] * stack + (["reduction"] + ["normal"] * stack) * reductions
        levels = [0, 0]  # how often the outputs so far were reduced; the stem stands for two cells
        for reduces in [kind == "reduction" for kind in self.kinds]:
            level = levels[-1] + reduces
            before, previous = levels[-2:]
            self.cells.append(
                Cell(
                    reduction if reduces else normal,
                    width << level,
                    reduces,
                    widths=(width << before, width << previous),
                    strides=(1 << (previous - before), 1),
                )
            )
            levels.append(level)
        self.norm = SupportNorm(width << reductions)

    def forward(self, inputs: Tensor, reference: int, mixing: Mixing | None = None) -> Tensor:
        probability = self.drop_path if self.training else 0.0
        drop = partial(drop_path, probability=probability, generator=self.generator)
        before = previous = self.stem_norm(self.stem(inputs), reference)  # (N, width, H, W)
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            shares = None if mixing is None else mixing[kind]
            before, previous = previous, cell(before, previous, reference, drop, shares)
        pooled: Tensor = self.norm(previous, reference, relu=True).mean(dim=(2, 3))  # (N, D)
        return pooled
