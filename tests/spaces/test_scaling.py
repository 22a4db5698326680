"""Compound scaling: the constraint, the rounding, and the same genes in larger networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.scaling import (
    DIVISOR,
    Coefficients,
    Scalable,
    coefficient_grid,
    compound,
    realised,
    scaled_depth,
    scaled_width,
)
from metanas.spaces.stages import Stages

SPACES: dict[str, Scalable] = {
    "stages": Stages(size=40, widths=((40, 80), (80, 120)), depths=(4, 9)),
    "cells": Cells(nodes=2, width=40, stack=5, reductions=1),
    "mobile": Mobile(widths=((40, 80), (80, 120)), strides=(1, 2), depths=(5, 10), stem=80, features=80),
}


def test_the_grid_keeps_the_constraint() -> None:
    grid = coefficient_grid()
    assert len(set(grid)) == len(grid)
    for coefficients in grid:
        assert coefficients.depth * coefficients.width**2 * coefficients.resolution**2 == pytest.approx(2)
        assert min(coefficients.depth, coefficients.width, coefficients.resolution) >= 1


def test_the_grid_is_whole() -> None:
    """Against every pair of depth and width whose resolution does not shrink."""
    steps = [round(1 + 0.1 * i, 1) for i in range(20)]
    expected = {(d, w) for d in steps for w in steps if d * w**2 <= 2 + 1e-9}
    assert {(c.depth, c.width) for c in coefficient_grid()} == expected


def test_the_coefficients_of_the_paper_nearly_double() -> None:
    assert Coefficients().growth == pytest.approx(1.92, abs=0.005)
    with pytest.raises(MetanasError, match="at least 1"):
        Coefficients(depth=0.9)


@given(st.integers(1, 400), st.floats(0.2, 4))
def test_widths_round_to_the_divisor(width: int, factor: float) -> None:
    rounded = scaled_width(width, factor)
    if factor == 1:
        assert rounded == width
    else:
        assert rounded % DIVISOR == 0
        assert rounded >= max(DIVISOR, 0.9 * width * factor)
        assert rounded - width * factor <= DIVISOR


def test_depths_round_up() -> None:
    assert [scaled_depth(d, 1.2) for d in (1, 2, 5)] == [2, 3, 6]
    assert [scaled_depth(d, 1) for d in (1, 2, 5)] == [1, 2, 5]
    assert scaled_depth(10, 1.1) == 11  # and not 12, for 10 * 1.1 is a little above 11 in floating point


@pytest.mark.parametrize("name", SPACES)
def test_genes_stay_and_the_cost_doubles(name: str) -> None:
    space, rng = SPACES[name], np.random.default_rng(0)
    same, size = compound(space, 40, Coefficients(), 0)
    larger, pixels = compound(space, 40, Coefficients(), 1)
    assert (size, pixels) == (40, 46)
    for _ in range(3):
        architecture = space.sample(rng)
        larger.check(architecture)
        before, after = cost(space, architecture, 40), cost(larger, architecture, 46)
        assert cost(same, architecture, 40) == before
        assert 1.6 < after.macs / before.macs < 2.4
        assert after.params > before.params
    assert larger.size() == space.size()


def test_cells_are_stacked_more_often_and_wider() -> None:
    """NASNet's transfer: the graphs of the cells are the very same."""
    space = Cells(nodes=2, width=8, stack=1)
    larger = space.scaled(depth=3, width=4, size=64)
    assert (larger.stack, larger.width) == (3, 32)
    assert larger.graphs(space.default) == space.graphs(space.default)
    assert len(larger.build(space.default).cells) == 3 * 3 + 2


def test_of_a_narrow_space_every_network_is_tried_once_and_by_what_it_costs() -> None:
    """Against the whole grid, built one by one: widths of 8 and one cell of each kind leave few networks."""
    space, size = Cells(nodes=2, width=8, stack=1, reductions=1), 16
    before = cost(space, space.default, size).macs
    expected, seen = [], set()
    for coefficients in coefficient_grid():
        larger, pixels = compound(space, size, coefficients, 1)
        growth = cost(larger, space.default, pixels).macs / before
        if (larger.width, larger.stack, pixels) not in seen and 1.6 <= growth <= 2.4:
            expected.append((coefficients, pixels, growth))
        seen.add((larger.width, larger.stack, pixels))
    points = realised(space, space.default, size, cost)
    assert [(point.coefficients, point.size, point.growth) for point in points] == expected
    assert 2 < len(points) < len(seen) < len(coefficient_grid())
    for point in points:
        assert point.cost == cost(compound(space, size, point.coefficients, 1)[0], space.default, point.size)


def test_a_grid_of_which_nothing_is_left_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four channels become eight where they should be six."""
    space = Cells(nodes=1, width=4, reductions=1, operations=("none", "conv_1x1", "conv_3x3"))
    monkeypatch.setattr("metanas.spaces.scaling.coefficient_grid", lambda: [Coefficients(1, 2**0.5, 1)])
    with pytest.raises(MetanasError, match=r"within 20% .* they are 3\.\d\d to 3\.\d\d times .* give 'coefficients'"):
        realised(space, space.default, 16, cost)
