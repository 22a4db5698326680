from itertools import combinations
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metanas.spaces.cells import Cells
from metanas.spaces.drawing import Arrow, Drawing, chain, draw_chain, layered, svg
from metanas.spaces.ops import NASNET

NS = "{http://www.w3.org/2000/svg}"


def rectangles(drawing: Drawing) -> list[tuple[float, float, float, float]]:
    root = ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{drawing.body}</svg>')
    return [tuple(float(r.get(key)) for key in ("x", "y", "width", "height")) for r in root.iter(f"{NS}rect")]


def texts(picture: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(picture).iter(f"{NS}text")]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, str], list[Arrow]]:
    count = draw(st.integers(2, 9))
    arrows = [
        Arrow(draw(st.integers(0, target - 1)), target, draw(st.sampled_from(["", *NASNET])))
        for target in range(1, count)
        for _ in range(draw(st.integers(0, 3)))
    ]
    return {key: f"box {key}" for key in range(count)}, arrows


@given(graphs())
def test_boxes_lie_inside_and_apart(graph: tuple[dict[int, str], list[Arrow]]) -> None:
    boxes, arrows = graph
    drawing = layered("Cell", boxes, arrows)
    found = rectangles(drawing)
    assert len(found) == len(boxes) + sum(bool(arrow.label) for arrow in arrows)
    for x, y, width, height in found:
        assert x >= 0
        assert y >= 0
        assert x + width <= drawing.width
        assert y + height <= drawing.height
    for (x, y, width, height), (u, v, wide, high) in combinations(found, 2):
        assert x + width <= u or u + wide <= x or y + height <= v or v + high <= y


@given(graphs())
def test_every_box_and_label_is_written(graph: tuple[dict[int, str], list[Arrow]]) -> None:
    boxes, arrows = graph
    written = sorted(texts(svg(layered("Cell", boxes, arrows))))
    assert written == sorted(["Cell", *boxes.values(), *(arrow.label for arrow in arrows if arrow.label)])


def test_a_cell_names_its_operations() -> None:
    space = Cells(operations=NASNET)
    architecture = space.sample(np.random.default_rng(0))
    written = texts(space.draw(architecture))
    for graph in space.graphs(architecture).values():
        for node in graph.nodes.values():
            assert {name for _, name in node.paths} <= set(written)


def test_text_is_escaped() -> None:
    assert texts(draw_chain([["a < b & c", '"x"'], ["last"]])) == ["Network", "a < b & c", '"x"', "last"]


def test_drawings_stand_below_one_another() -> None:
    first, second = chain("One", [["a"]]), chain("Two", [["b", "c", "d"], ["e"]])
    root = ElementTree.fromstring(svg(first, second))
    height = float(root.get("viewBox").split()[3])
    assert height == round(first.height + second.height)
    assert root.findall(f"{NS}g")[1].get("transform") == f"translate(0 {first.height:.1f})"
