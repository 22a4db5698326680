"""Blocks of features by name, and what is read off a cell's graph, against slow obvious versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.features import Table
from predictors.graphs import IDENTITY, Graph, adjacency, graph_blocks, graph_statistics, path_counts, vocabulary

DIAMOND = Graph(4, (0,), ((0, 1, 0), (0, 2, IDENTITY), (1, 3, 1), (2, 3, 1), (0, 3, IDENTITY)))


def test_blocks_stand_side_by_side_and_can_be_left_out() -> None:
    a, b, c = np.ones((3, 2)), np.full((3, 1), 2.0), np.arange(9.0).reshape(3, 3)
    table = Table.of([("architecture", a), ("graph", b), ("costs", c)])
    assert table.values.shape == (3, 6)
    np.testing.assert_array_equal(table.block("costs"), c)
    less = table.without("graph")
    assert less.names == ("architecture", "costs")
    np.testing.assert_array_equal(less.values, np.hstack([a, c]))
    np.testing.assert_array_equal(table.only("costs", "graph").values, np.hstack([c, b]))
    np.testing.assert_array_equal(less.beside("task", b).values, np.hstack([a, c, b]))
    assert less.beside("task", b).layout == (("architecture", 2), ("costs", 3), ("task", 1))
    np.testing.assert_array_equal(table.take([2, 0]).block("costs"), c[[2, 0]])
    with pytest.raises(KeyError, match="zero-cost"):
        table.block("zero-cost")
    with pytest.raises(ValueError, match=r"is \(n, 6\), not \(3, 2\)"):
        Table(a, table.layout)


def test_words_are_the_operations_along_every_path() -> None:
    assert sorted(DIAMOND.words) == [(), (0, 1), (1,)]
    assert len(DIAMOND.live) == 5
    cut = Graph(4, (0,), ((0, 1, 0), (2, 3, 1)))
    assert cut.words == []
    assert cut.live == []


def random_graph(draw: st.DrawFn) -> Graph:
    nodes = draw(st.integers(2, 5))
    pairs = [(a, b) for b in range(nodes) for a in range(b)]
    chosen = draw(st.lists(st.tuples(st.sampled_from(pairs), st.integers(-1, 2)), max_size=8, unique=True))
    return Graph(nodes, (0,), tuple((a, b, operation) for (a, b), operation in chosen))


def slow_paths(graph: Graph, node: int = 0) -> list[list[tuple[int, int, int]]]:
    if node == graph.nodes - 1:
        return [[]]
    return [[edge, *rest] for edge in graph.edges if edge[0] == node for rest in slow_paths(graph, edge[1])]


@given(st.composite(random_graph)())
def test_paths_and_live_edges_are_those_of_a_walk(graph: Graph) -> None:
    walked = slow_paths(graph)
    words = [tuple(operation for _, _, operation in path if operation != IDENTITY) for path in walked]
    assert sorted(graph.words) == sorted(words)
    assert sorted(graph.live) == sorted({edge for path in walked for edge in path})
    known = vocabulary(3, 2)
    assert path_counts(graph, known).tolist() == [words.count(word) for word in known]


@given(st.composite(random_graph)())
def test_dead_edges_change_nothing(graph: Graph) -> None:
    alive = Graph(graph.nodes, graph.inputs, tuple(graph.live))
    np.testing.assert_array_equal(graph_statistics(graph, 3, [0]), graph_statistics(alive, 3, [0]))
    np.testing.assert_array_equal(adjacency([graph], 3), adjacency([alive], 3))


def test_statistics_by_hand() -> None:
    found = graph_statistics(DIAMOND, 2, weighted=[1])
    weighted, live, identities, paths, different, bare, connected = found[:7]
    # Path lengths are 2, 1, 0; the weighted operation 1 stands on two of three paths.
    assert (weighted, live, identities, paths, different, bare, connected) == (2, 5, 2, 3, 3, 1, 1)
    assert found[7:13].tolist() == [0, 1, 2, 0, pytest.approx(2 / 3), 1]
    assert found[13:15].tolist() == [1, 2]  # edges with operations 0 and 1
    assert found[-8:].tolist() == [0, 1, 1, 3, 3, 1, 1, 0]  # degrees into and out of the nodes
    assert len(found) == 13 + 4 * 2 + 2 * 4


def test_several_cells_stand_beside_one_another() -> None:
    blocks = dict(graph_blocks([[DIAMOND, DIAMOND]], 2, [1], 1))
    one = dict(graph_blocks([[DIAMOND]], 2, [1], 1))
    for name in ("paths", "graph"):
        np.testing.assert_array_equal(blocks[name], np.hstack([one[name]] * 2))
    nodes, found = blocks["adjacency"][0, 0], blocks["adjacency"][0, 1:].reshape(8, 8, 3)
    assert nodes == 8
    np.testing.assert_array_equal(found[:4, :4], found[4:, 4:])
    assert found[:4, :4].sum() == 5
    assert found[:4, 4:].sum() == found[4:, :4].sum() == 0
