"""The relaxed cell space: shares, architecture gradient, discretisation and what tells a collapse.

Gradients in float64. Second order differentiates by differences: exactly where the loss is quadratic, otherwise ever
better as their step shrinks, until a ReLU switches within it. At DARTS' own step of 0.01 the networks of these tests
do switch, so they are held to the exact gradient at 1e-5.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metanas.learning.inner import HEAD, Weights
from metanas.learning.supernet import SuperNet
from metanas.search.relaxation import (
    architecture_gradient,
    discretise,
    dominant_eigenvalue,
    edges,
    kept_by_eigenvalue,
    kept_by_skips,
    mixing,
    relaxed_loss,
    skip_connections,
)
from metanas.spaces.cells import KINDS, Cells
from tests.reference import direction_like, inner_product, slope

TINY = Cells(nodes=2, width=2, reductions=1, operations=("none", "skip_connect", "avg_pool_3x3", "conv_3x3"))
RATE = 0.1


def drawn(space: Cells, seed: int, spread: float = 1.0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(edges(space)), len(space.operations))
    return {kind: spread * torch.randn(shape, generator=generator, dtype=torch.float64) for kind in KINDS}


class Problem:
    """Two batches of random images for the tiny space, with weights and alphas in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shared = {name: weight.double() for name, weight in TINY.initial_weights(generator).items()}
        self.weights: Weights = {name: shared[name] for name, _ in TINY.relaxed().named_parameters()}
        head = torch.randn(3, TINY.width << TINY.reductions, generator=generator, dtype=torch.float64)
        self.weights |= dict(zip(HEAD, (head, torch.zeros(3, dtype=torch.float64)), strict=True))
        self.alphas = drawn(TINY, 1)
        self.training, self.validation = (
            relaxed_loss(
                TINY,
                torch.rand(6, 1, 6, 6, generator=generator, dtype=torch.float64),
                torch.arange(6) % 3,
                temperature=0.7,
            )
            for _ in range(2)
        )

    def unrolled(self, alphas: Weights) -> Tensor:
        """The validation loss after one step of all weights, differentiable by alphas throughout."""
        leaves = {name: weight.detach().requires_grad_() for name, weight in self.weights.items()}
        loss = self.training(leaves, alphas)
        found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        ahead = {name: leaf - RATE * g for (name, leaf), g in zip(leaves.items(), found, strict=True)}
        return self.validation(ahead, alphas)

    def exact(self) -> Weights:
        leaves = {kind: alpha.clone().requires_grad_() for kind, alpha in self.alphas.items()}
        return dict(zip(leaves, torch.autograd.grad(self.unrolled(leaves), list(leaves.values())), strict=True))

    def gradient(self, order: int) -> Weights:
        return architecture_gradient(order, self.training, self.validation, self.weights, self.alphas, RATE)


@pytest.fixture
def problem() -> Problem:
    return Problem()


@pytest.mark.parametrize("seed", range(5))
def test_the_first_order_gradient_equals_the_slope_of_the_validation_loss(problem: Problem, seed: int) -> None:
    found = problem.gradient(1)
    direction = direction_like(problem.alphas, seed)
    expected = slope(lambda a: float(problem.validation(problem.weights, a)), problem.alphas, direction)
    assert inner_product(found, direction) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_second_order_gradient_equals_the_slope_of_the_unrolled_loss(
    problem: Problem, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metanas.search.relaxation.DIFFERENCE", 1e-5)
    direction = direction_like(problem.alphas, seed)
    expected = slope(lambda a: float(problem.unrolled(a).detach()), problem.alphas, direction)
    assert inner_product(problem.gradient(2), direction) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_second_order_tends_to_the_exact_unrolled_gradient_and_first_order_is_another(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, first = problem.exact(), problem.gradient(1)
    scale = max(float(g.abs().max()) for g in exact.values())
    for step, tolerance in ((1e-4, 1e-5), (1e-5, 1e-7)):
        monkeypatch.setattr("metanas.search.relaxation.DIFFERENCE", step)
        second = problem.gradient(2)
        for kind in KINDS:
            torch.testing.assert_close(second[kind], exact[kind], rtol=0, atol=tolerance * scale)
    assert max(float((first[kind] - exact[kind]).abs().max()) for kind in KINDS) > 0.5 * scale


def test_second_order_of_a_quadratic_problem_is_its_closed_form_at_any_step() -> None:
    """With L = wAw / 2 + aBw and V = |w - t|^2 / 2 + da, it is d - rate B (w - rate (Aw + Ba) - t)."""
    generator = torch.Generator().manual_seed(0)
    root, b, w, a, t, d = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(5, 5), (3, 5), 5, 3, 5, 3]
    )
    hessian = root @ root.T
    found = architecture_gradient(
        2,
        lambda weights, alphas: weights["w"] @ hessian @ weights["w"] / 2 + alphas["a"] @ b @ weights["w"],
        lambda weights, alphas: (weights["w"] - t).square().sum() / 2 + d @ alphas["a"],
        {"w": w},
        {"a": a},
        RATE,
    )
    ahead = w - RATE * (hessian @ w + b.T @ a)
    torch.testing.assert_close(found["a"], d - RATE * b @ (ahead - t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_the_gradient_leaves_weights_and_alphas_as_they_were(problem: Problem, order: int) -> None:
    before = {name: t.clone() for name, t in (problem.weights | problem.alphas).items()}
    problem.gradient(order)
    for name, tensor in (problem.weights | problem.alphas).items():
        assert torch.equal(tensor, before[name])
        assert not tensor.requires_grad


@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 5.0]))
@settings(max_examples=20, deadline=None)
def test_shares_are_the_softmax_of_each_edge_without_none(seed: int, temperature: float) -> None:
    alphas = drawn(TINY, seed, spread=3.0)
    shares = mixing(TINY, alphas, temperature)
    for kind in KINDS:
        row = 0
        for node in range(TINY.nodes):
            expected = []
            for _ in range(node + 2):
                powers = [math.exp(float(alpha) / temperature) for alpha in alphas[kind][row]]
                expected += [power / sum(powers) for power in powers[1:]]
                row += 1
            assert shares[kind][node].tolist() == pytest.approx(expected)


def test_with_all_of_a_share_on_its_paths_the_relaxed_network_is_the_architecture() -> None:
    """Where every node reads the cell's inputs, no node is used, so that both networks put all nodes out."""
    space = Cells(nodes=3, width=4, reductions=1, operations=("none", "skip_connect", "max_pool_3x3", "conv_3x3"))
    supernet = SuperNet(space, space.initial_weights(torch.Generator().manual_seed(0)))
    for operations in itertools.islice(itertools.permutations((1, 2, 3, 1, 2, 3)), 0, 720, 97):
        cell = tuple(g for node in range(3) for g in (0, operations[2 * node], 1, operations[2 * node + 1], 0))
        architecture = cell * 2
        alphas = {kind: torch.full((sum(edges(space)), 4), 0.0) for kind in KINDS}
        for kind in KINDS:
            alphas[kind][:, 0] = 200.0  # all to "none"
            for node, first in enumerate((0, 2, 5)):
                for state in (0, 1):
                    alphas[kind][first + state, operations[2 * node + state]] = 400.0
        assert discretise(space, alphas) == architecture
        relaxed = space.relaxed()
        with torch.no_grad():
            for name, parameter in relaxed.named_parameters():
                parameter.copy_(supernet.shared[name])
            images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
            plain = supernet.features(architecture, supernet.weights(architecture), images, 5)
            torch.testing.assert_close(relaxed(images, 5, mixing(space, alphas)), plain, rtol=1e-4, atol=1e-5)


def slow_discretise(space: Cells, alphas: Weights) -> tuple[int, ...]:
    """The best of all ways to give a node two different inputs with an operation each."""
    genes: list[int] = []
    none = space.operations.index("none")
    for kind in KINDS:
        row = 0
        for node in range(space.nodes):
            shares = alphas[kind][row : row + node + 2].softmax(1)
            row += node + 2
            paths = [(s, o) for s in range(node + 2) for o in range(len(space.operations)) if o != none]
            pairs = [(a, b) for a, b in itertools.combinations(paths, 2) if a[0] != b[0]]
            (a, f), (b, g) = max(pairs, key=lambda pair: sum(float(shares[path]) for path in pair))
            genes += [a, f, b, g, 0]
    return tuple(genes)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_discretisation_keeps_the_two_strongest_inputs_of_a_node(seed: int) -> None:
    space = Cells(nodes=3, operations=("skip_connect", "none", "conv_3x3"))
    alphas = drawn(space, seed)
    found = discretise(space, alphas)
    space.check(found)
    assert found == slow_discretise(space, alphas)


def test_equal_inputs_go_to_the_lower_number() -> None:
    alphas = {kind: torch.zeros(sum(edges(TINY)), 4) for kind in KINDS}
    assert discretise(TINY, alphas) == (0, 1, 1, 1, 0) * 4


def test_skip_connections_are_those_of_the_normal_cell() -> None:
    skip, conv = 1, 3
    normal = (0, skip, 1, conv, 0, 1, skip, 2, skip, 0)
    reduction = (0, conv, 1, conv, 0, 0, conv, 1, conv, 0)
    assert skip_connections(TINY, normal + reduction) == 3
    assert skip_connections(TINY, reduction + normal) == 0
    without = Cells(nodes=2, operations=("none", "conv_3x3"))
    assert skip_connections(without, (0, 1, 1, 1, 0) * 4) == 0


def test_the_dominant_eigenvalue_equals_that_of_the_whole_hessian(problem: Problem) -> None:
    shapes = [alpha.shape for alpha in problem.alphas.values()]
    flat = torch.cat([alpha.flatten() for alpha in problem.alphas.values()])

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        alphas = {kind: part.view(s) for kind, part, s in zip(KINDS, parts, shapes, strict=True)}
        return problem.validation(problem.weights, alphas)

    hessian = torch.autograd.functional.hessian(loss, flat)
    expected = float(torch.linalg.eigvalsh(hessian)[-1])
    found = dominant_eigenvalue(lambda alphas: problem.validation(problem.weights, alphas), problem.alphas)
    assert expected > 0
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ([0, 1, 1, 0], None),
        ([0, 1, 2, 2], None),  # only two epochs above
        ([0, 1, 2, 3, 2], 1),
        ([3, 1, 2, 3, 2, 4], 1),
        ([0, 2, 2, 1, 2, 2], None),  # it came back
        ([2, 2, 2, 2, 2], None),  # nothing from before to go back to
        ([], None),
    ],
)
def test_collapse_by_skip_connections(counts: list[int], kept: int | None) -> None:
    assert kept_by_skips(counts, most=1, window=3) == kept


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1.0, 1.0, 1.0], None),  # too few for two windows
        ([1.0, 1.0, 1.2, 1.2], None),  # 1 / 1.2 is above 0.75
        ([1.0, 1.0, 1.5, 1.5], 1),
        ([5.0, 5.0, 1.0, 1.0, 1.0, 2.0], 3),
        ([-1.0, -1.0, -2.0, -2.0], None),
    ],
)
def test_collapse_by_the_eigenvalue(values: list[float], kept: int | None) -> None:
    assert kept_by_eigenvalue(values, window=2, growth=0.75) == kept


def test_a_sharper_temperature_makes_the_strongest_share_larger() -> None:
    alphas = drawn(TINY, 3)
    shares = [
        np.array([s.max().item() for s in mixing(TINY, alphas, temperature)["normal"]]) for temperature in (2.0, 0.5)
    ]
    assert (shares[1] > shares[0]).all()
