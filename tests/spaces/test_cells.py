import re
from collections import defaultdict
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metanas.errors import MetanasError
from metanas.spaces.cell_network import Cell, CellGraph, Node, NodeGraph
from metanas.spaces.cells import GENES, Cells
from metanas.spaces.ops import DARTS, NASNET

SMALL = Cells(
    nodes=3, width=4, reductions=1, operations=("none", "skip_connect", "conv_1x1"), combine=("sum", "concat")
)


def weights_by_module(cell: Cell) -> dict[str, list[str]]:
    """For each kind of module, the prefixes of those in the cell that own weights."""
    kinds = defaultdict(set)
    for name, _ in cell.named_parameters():
        prefix, kind = re.match(
            r"(nodes\.\d+\.(?:paths\.from\d+_|(?=projections|norm))(\w+)|(outputs)\.\w+)", name
        ).group(1, 2)
        if kind == "projections":
            prefix = ".".join(name.split(".")[:4])
        kinds[kind or "outputs"].add(prefix)
    return {kind: sorted(prefixes) for kind, prefixes in kinds.items()}


def outputs_under_all_namings(graph: CellGraph, random: dict[str, Tensor], states: Tensor) -> frozenset[float]:
    """What the cell computes, with a given list of weights for each kind of module dealt out in every way."""
    cell = Cell(graph, 3, False, widths=(3, 3), strides=(1, 1)).double()
    kinds = weights_by_module(cell)
    deals = list(product(*(permutations(range(len(prefixes))) for prefixes in kinds.values())))
    numbers = {
        prefix: torch.tensor([deal[k][i] for deal in deals])
        for k, prefixes in enumerate(kinds.values())
        for i, prefix in enumerate(prefixes)
    }
    dealt = {}
    for kind, prefixes in kinds.items():
        for name, weight in cell.named_parameters():
            prefix = next((p for p in prefixes if name.startswith(f"{p}.")), None)
            if prefix:
                values = random[f"{kind}{name.removeprefix(prefix)}"]
                dealt[name] = values[numbers[prefix]][:, : weight.numel()].view(-1, *weight.shape)
    buffers = dict(cell.named_buffers())

    def run(weights: dict[str, Tensor]) -> Tensor:
        # Without a reference the normalisations scale and shift by their weights alone: no coincidence of scale.
        arguments = (states[0], states[1], 0, lambda x: x)
        return torch.func.functional_call(cell, weights | buffers, arguments)

    with torch.no_grad():
        results = torch.func.vmap(run)(dealt).flatten(1) if dealt else torch.empty(0)
    mixed = results @ torch.linspace(0.5, 1.5, results.shape[1], dtype=torch.float64)
    return frozenset(round(value, 7) for value in mixed.tolist())


class Weights(dict[str, Tensor]):
    """Random weights for a kind of module and parameter, the same whenever asked for."""

    def __missing__(self, key: str) -> Tensor:
        generator = torch.Generator().manual_seed(len(self))
        values = torch.randn(8, 9, generator=generator, dtype=torch.float64)
        self[key] = values.abs() if key.endswith("bias") else values  # so that ReLU leaves something
        return self[key]


@pytest.mark.parametrize(
    "space",
    [
        Cells(nodes=2, operations=("none", "skip_connect", "conv_1x1")),
        Cells(nodes=2, operations=("skip_connect", "max_pool_3x3"), combine=("sum", "concat")),
        Cells(nodes=3, operations=("skip_connect",)),
    ],
)
def test_there_are_as_many_canonical_cells_as_different_functions(space: Cells) -> None:
    half = len(space.counts) // 2
    representatives = defaultdict(set)
    for genes in product(*(range(count) for count in space.counts[:half])):
        architecture = genes + space.default[half:]
        graph = space.graphs(architecture)["normal"]
        representatives[graph.outputs, *sorted(graph.nodes.items())].add(space.canonical(architecture)[:half])
    random = Weights()
    states = torch.randn(2, 6, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    classes: dict[frozenset[float], set[tuple[int, ...]]] = defaultdict(set)
    for (outputs, *nodes), canonical in representatives.items():
        classes[outputs_under_all_namings(CellGraph(dict(nodes), outputs), random, states)] |= canonical
    assert len(classes) > 15
    assert all(len(canonical) == 1 for canonical in classes.values())  # one function, one representative
    assert len(set().union(*classes.values())) == len(classes)  # and the other way round


@st.composite
def renamed(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An architecture, and the same with nodes in another order, slots swapped and idle genes changed."""
    architecture = tuple(draw(st.integers(0, count - 1)) for count in SMALL.counts)
    other: list[int] = []
    for cell in (architecture[:15], architecture[15:]):
        nodes = [cell[i : i + len(GENES)] for i in range(0, 15, len(GENES))]
        numbers, waiting = {0: 0, 1: 1}, set(range(3))
        while waiting:
            ready = [i for i in sorted(waiting) if nodes[i][0] in numbers and nodes[i][2] in numbers]
            node = draw(st.sampled_from(ready))
            a, f, b, g, combination = nodes[node]
            slots = [(numbers[a], f), (numbers[b], g)]
            if draw(st.booleans()):
                slots.reverse()
            idle = draw(st.integers(0, len(numbers) - 1))
            slots = [(idle if operation == 0 else state, operation) for state, operation in slots]
            numbers[node + 2] = len(numbers)
            waiting.remove(node)
            other += [*slots[0], *slots[1], combination if any(o for _, o in slots) else draw(st.integers(0, 1))]
    return architecture, tuple(other)


@given(renamed())
def test_renaming_keeps_the_representative(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    architecture, other = pair
    SMALL.check(other)
    assert SMALL.canonical(architecture) == SMALL.canonical(other)


def test_genes_are_told_as_operations_and_edges() -> None:
    architecture = (0, 2, 1, 1, 1) + (2, 0, 1, 2, 0) + (0, 0, 0, 0, 0) * 4
    texts = [SMALL.gene_text(gene, architecture) for gene in range(10)]
    assert texts == [
        "normal n0: edge from h0 (conv_1x1)",
        "normal n0: conv_1x1 (from h0)",
        "normal n0: edge from h1 (skip_connect)",
        "normal n0: skip_connect (from h1)",
        "normal n0: concat",
        "normal n1: edge from n0 (none)",
        "normal n1: none (from n0)",
        "normal n1: edge from h1 (conv_1x1)",
        "normal n1: conv_1x1 (from h1)",
        "normal n1: sum",
    ]
    assert SMALL.gene_text(15, architecture) == "reduction n0: edge from h0 (none)"


def test_swapped_slots_share_their_weights() -> None:
    space = Cells(operations=NASNET, combine=("concat",))
    architecture = space.sample(np.random.default_rng(0))
    nodes = [architecture[i : i + 5] for i in range(0, len(architecture), 5)]
    swapped = tuple(gene for a, f, b, g, c in nodes for gene in (b, g, a, f, c))
    assert swapped != architecture
    assert list(space.slices(swapped)) == list(space.slices(architecture))


def test_what_carries_nothing_is_left_out() -> None:
    space = Cells(nodes=3, operations=("none", "skip_connect", "sep_conv_3x3"))
    nothing, idle_path, from_nothing = (1, 0, 0, 0, 0), (0, 2, 1, 0, 0), (2, 2, 3, 1, 0)
    graph = space.graphs((nothing + idle_path + from_nothing) * 2)["normal"]
    nodes = {3: NodeGraph(((0, "sep_conv_3x3"),), "sum"), 4: NodeGraph(((3, "skip_connect"),), "sum")}
    assert graph == CellGraph(nodes, outputs=(1, 4))


def test_a_cell_of_nothing_passes_its_inputs_on() -> None:
    space = Cells(nodes=2, width=4, operations=("none", "conv_1x1"))
    network = space.build((0,) * len(space.default))
    assert network(torch.rand(3, 1, 28, 28), 3).shape == (3, 16)
    assert [name for name, _ in network.cells[0].named_parameters()] == [f"outputs.from{i}.1.weight" for i in (0, 1)]


@pytest.mark.parametrize("size", [28, 33, 64])
@pytest.mark.parametrize("operations", [DARTS, NASNET])
def test_sizes(size: int, operations: tuple[str, ...]) -> None:
    space = Cells(channels=3, width=4, stack=2, reductions=2, operations=operations, combine=("sum", "concat"))
    network = space.build(space.sample(np.random.default_rng(size)))
    shapes = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, arguments, output: shapes.append(output.shape[1:]))
    assert network(torch.rand(2, 3, size, size), 2).shape == (2, 16)
    half, quarter = -(-size // 2), -(-size // 4)
    expected = [(4, size)] * 2 + [(8, half)] * 3 + [(16, quarter)] * 3
    assert shapes == [(channels, side, side) for channels, side in expected]


def test_drop_path_is_off_until_asked_for_and_in_evaluation() -> None:
    space = Cells(nodes=2, width=4, reductions=1)
    network, images = space.build(space.default), torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    plain = network(images, 4)
    assert torch.equal(network(images, 4), plain)
    network.drop_path, network.generator = 0.5, torch.Generator().manual_seed(0)
    dropped = network(images, 4)
    assert not torch.allclose(dropped, plain)
    network.generator.manual_seed(0)
    assert torch.equal(network(images, 4), dropped)
    assert torch.equal(network.eval()(images, 4), plain)


def test_drop_path_spares_identities() -> None:
    node = Node(NodeGraph(((0, "skip_connect"), (1, "max_pool_3x3")), "sum"), width=2, reduction=False)
    node.norm.positions.fill_(1e30)  # as recorded, mean 0 and variance 1, with nothing of the sample's own
    states = {0: torch.rand(3, 2, 4, 4), 1: torch.rand(3, 2, 4, 4)}
    torch.testing.assert_close(node(states, 0, torch.zeros_like), states[0] / (1 + 1e-5) ** 0.5)


def test_concatenation_is_one_convolution_over_both_paths() -> None:
    node = Node(NodeGraph(((0, "skip_connect"), (1, "avg_pool_3x3")), "concat"), width=3, reduction=False)
    states = {0: torch.rand(3, 3, 4, 4), 1: torch.rand(3, 3, 4, 4)}
    paths = torch.cat([states[0], node.paths["from1_avg_pool_3x3"](states[1], 3)], dim=1)
    kernel = torch.cat([projection.weight for projection in node.projections.values()], dim=1)
    expected = node.norm(torch.nn.functional.conv2d(paths, kernel), 3)
    torch.testing.assert_close(node(states, 3, lambda x: x), expected, rtol=1e-4, atol=1e-5)


def test_the_default_runs_a_convolution_in_every_node() -> None:
    for operations in (DARTS, NASNET, ("max_pool_3x3", "conv_1x1")):
        space = Cells(operations=operations)
        for graph in space.graphs(space.default).values():
            assert [sum("conv" in name for _, name in node.paths) > 0 for node in graph.nodes.values()] == [True] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 0}, "nodes must be a whole number of 1 or more, but is 0"),
        ({"operations": ("conv_9x9",)}, "operations must be different names out of .*conv_3x3.*conv_9x9"),
        ({"operations": ("conv_3x3", "conv_3x3")}, "operations must be different"),
        ({"combine": ()}, "combine must be different names out of sum, concat"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        Cells(**settings)


@pytest.mark.parametrize("operations", [DARTS, DARTS[1:], ("none",)])
def test_the_shared_weights_are_those_of_all_paths_at_once(operations: tuple[str, ...]) -> None:
    space = Cells(operations=operations)
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    relaxed = [(name, weight.shape) for name, weight in space.relaxed().named_parameters()]
    names = {name for name, _ in relaxed}
    assert [(name, weight.shape) for name, weight in shared.items() if name in names] == relaxed
