"""Meta-gradients: against learn2learn, against finite differences, and against their definitions.

In float64. Tolerances are relative: 1e-10 against learn2learn and closed forms (the same numbers in another order),
1e-6 against central differences of step 1e-5, 1e-3 for the method that itself differentiates by differences.
"""

import importlib
import os
import warnings
from types import ModuleType
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metanas.learning.inner import Weights
from metanas.learning.meta import MetaGradient, Method, Problem, meta_gradient
from tests.reference import adapted, direction_like, inner_product, slope

EXACT, DIFFERENCES, HESSIAN_BY_DIFFERENCES = 1e-10, 1e-6, 1e-3
RATE, STEPS = 0.3, 3
DIFFERENCE = 1e-2  # short enough for smooth networks


def textbook_network() -> nn.Sequential:
    """Convolution, nonlinearity, linear head: smooth, so that differences are accurate."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(*layers).double()


class Textbook:
    """One episode for that network; its last layer is meta-learned like the rest."""

    def __init__(self, seed: int = 0) -> None:
        self.network = textbook_network()
        generator = torch.Generator().manual_seed(seed)
        self.support = torch.randn(9, 1, 4, 4, generator=generator, dtype=torch.float64)
        self.queries = torch.randn(12, 1, 4, 4, generator=generator, dtype=torch.float64)
        self.support_labels, self.query_labels = torch.arange(9) % 3, torch.arange(12) % 3
        self.weights: Weights = {name: w.detach() for name, w in self.network.named_parameters()}
        self.problem = Problem(dict, self.support_loss, self.query_loss, DIFFERENCE)

    def loss(self, weights: Weights, inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(self.network, dict(weights), (inputs,)), labels)

    def support_loss(self, weights: Weights) -> Tensor:
        return self.loss(weights, self.support, self.support_labels)

    def query_loss(self, weights: Weights) -> Tensor:
        return self.loss(weights, self.queries, self.query_labels)

    def adapted_loss(self, weights: Weights, names: tuple[str, ...] | None = None) -> float:
        """The query loss after the inner loop, by the slow reference."""
        return float(self.query_loss(adapted(self.support_loss, weights, names or tuple(weights), RATE, STEPS)))

    def gradient(self, method: Method, steps: int = STEPS) -> MetaGradient:
        return meta_gradient(method, self.problem, self.weights, lambda name, step: RATE, steps)


@pytest.fixture
def textbook() -> Textbook:
    return Textbook()


@pytest.fixture(scope="module")
def learn2learn() -> ModuleType:
    """The reference; where it could not be built its tests are skipped, but not in CI."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not os.environ.get("CI"):
            pytest.importorskip("learn2learn", reason="learn2learn could not be built here, see `make setup`")
        return importlib.import_module("learn2learn.algorithms")


def assert_close(found: Weights, expected: Weights, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(w.abs().max()) for w in expected.values())
    assert scale > 0
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("method", "first_order"), [("maml", False), ("fomaml", True)])
def test_maml_and_fomaml_equal_learn2learn(
    textbook: Textbook, learn2learn: ModuleType, method: Method, first_order: bool, steps: int
) -> None:
    maml = learn2learn.MAML(textbook.network, lr=RATE, first_order=first_order)
    clone = maml.clone()
    for _ in range(steps):
        clone.adapt(F.cross_entropy(clone(textbook.support), textbook.support_labels))
    loss = F.cross_entropy(clone(textbook.queries), textbook.query_labels)
    loss.backward()
    expected = {name: w.grad for name, w in textbook.network.named_parameters()}
    found = textbook.gradient(method, steps)
    assert_close(found.weights, expected, EXACT)
    assert found.loss == pytest.approx(loss.item(), rel=EXACT)


@pytest.mark.parametrize(("method", "tolerance"), [("maml", DIFFERENCES), ("difference", HESSIAN_BY_DIFFERENCES)])
def test_second_order_methods_equal_the_slope_of_the_adapted_loss(
    textbook: Textbook, method: Method, tolerance: float
) -> None:
    found = textbook.gradient(method).weights
    for seed in range(5):
        direction = direction_like(textbook.weights, seed)
        expected = slope(textbook.adapted_loss, textbook.weights, direction)
        assert inner_product(found, direction) == pytest.approx(expected, rel=tolerance, abs=tolerance * 0.1)


def test_finite_difference_second_order_is_close_to_maml_and_fomaml_is_not(textbook: Textbook) -> None:
    exact = textbook.gradient("maml").weights
    assert_close(textbook.gradient("difference").weights, exact, HESSIAN_BY_DIFFERENCES)
    with pytest.raises(AssertionError):
        assert_close(textbook.gradient("fomaml").weights, exact, 0.05)


def test_fomaml_is_the_query_gradient_at_the_adapted_weights(textbook: Textbook) -> None:
    last = adapted(textbook.support_loss, textbook.weights, tuple(textbook.weights), RATE, STEPS)
    leaves = {name: w.requires_grad_() for name, w in last.items()}
    expected = torch.autograd.grad(textbook.query_loss(leaves), list(leaves.values()))
    assert_close(textbook.gradient("fomaml").weights, dict(zip(leaves, expected, strict=True)), EXACT)


def test_reptile_is_the_way_to_the_adapted_weights(textbook: Textbook) -> None:
    last = adapted(textbook.support_loss, textbook.weights, tuple(textbook.weights), RATE, STEPS)
    expected = {name: w - last[name] for name, w in textbook.weights.items()}
    found = textbook.gradient("reptile")
    assert_close(found.weights, expected, EXACT)
    assert found.loss == pytest.approx(float(textbook.query_loss(last)), rel=EXACT)


def test_anil_is_maml_with_a_frozen_body_in_the_inner_loop(textbook: Textbook) -> None:
    head = ("4.weight", "4.bias")
    problem = Problem(dict, textbook.support_loss, textbook.query_loss, DIFFERENCE, head)
    found = meta_gradient("anil", problem, textbook.weights, lambda name, step: RATE, STEPS).weights
    frozen = meta_gradient(
        "maml", problem, textbook.weights, lambda name, step: RATE if name in head else 0.0, STEPS
    ).weights
    assert_close(found, frozen, EXACT)
    for seed in range(3):
        direction = direction_like(textbook.weights, seed)
        expected = slope(lambda w: textbook.adapted_loss(w, head), textbook.weights, direction)
        assert inner_product(found, direction) == pytest.approx(expected, rel=DIFFERENCES, abs=1e-7)


class WithRates(Textbook):
    """The same with learned rates, one for every weight and step."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.linspace(0.1, 0.4, STEPS, dtype=torch.float64)
        self.rates = {name: start.roll(i).clone() for i, name in enumerate(self.weights)}

    def gradient(self, method: Method, steps: int = STEPS) -> MetaGradient:
        rates = {name: rate.detach().requires_grad_() for name, rate in self.rates.items()}
        return meta_gradient(
            method, self.problem, self.weights, lambda name, step: rates[name][step], steps, parameters=rates
        )

    def run(self, rates: Weights) -> tuple[list[Weights], list[Weights]]:
        """The weights before every step and after the last, and the inner gradients of every step."""
        states, gradients = [self.weights], []
        for step in range(STEPS):
            leaves = {name: w.detach().clone().requires_grad_() for name, w in states[-1].items()}
            self.support_loss(leaves).backward()
            gradients.append({name: w.grad for name, w in leaves.items()})
            states.append({name: w.detach() - rates[name][step] * w.grad for name, w in leaves.items()})
        return states, gradients

    def loss_at(self, rates: Weights) -> float:
        return float(self.query_loss(self.run(rates)[0][-1]))


@pytest.mark.parametrize(("method", "tolerance"), [("maml", DIFFERENCES), ("difference", HESSIAN_BY_DIFFERENCES)])
def test_the_gradients_of_learned_rates_equal_slopes(method: Method, tolerance: float) -> None:
    case = WithRates()
    found = case.gradient(method).parameters
    for name in case.rates:
        for step in range(STEPS):
            one = torch.zeros(STEPS, dtype=torch.float64)
            one[step] = 1
            expected = slope(case.loss_at, case.rates, {name: one})
            assert float(found[name][step]) == pytest.approx(expected, rel=tolerance, abs=tolerance * 0.1)


class WithScale(Textbook):
    """The same with a parameter that only the support loss uses: what its logits are multiplied by."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = {"scale": torch.tensor(1.5, dtype=torch.float64)}

    def scaled_loss(self, weights: Weights, scale: Tensor) -> Tensor:
        logits = functional_call(self.network, dict(weights), (self.support,))
        return F.cross_entropy(scale * logits, self.support_labels)

    def gradient(self, method: Method, steps: int = STEPS) -> MetaGradient:
        leaf = self.scale["scale"].clone().requires_grad_()
        problem = Problem(dict, lambda w: self.scaled_loss(w, leaf), self.query_loss, DIFFERENCE)
        return meta_gradient(method, problem, self.weights, lambda name, step: RATE, steps, parameters={"scale": leaf})

    def loss_at(self, scale: Weights) -> float:
        last = adapted(lambda w: self.scaled_loss(w, scale["scale"]), self.weights, tuple(self.weights), RATE, STEPS)
        return float(self.query_loss(last))


@pytest.mark.parametrize(("method", "tolerance"), [("maml", DIFFERENCES), ("difference", HESSIAN_BY_DIFFERENCES)])
def test_the_gradient_of_a_parameter_of_the_support_loss_equals_the_slope(method: Method, tolerance: float) -> None:
    case = WithScale()
    expected = slope(case.loss_at, case.scale, {"scale": torch.ones((), dtype=torch.float64)})
    assert abs(expected) > 1e-3
    assert float(case.gradient(method).parameters["scale"]) == pytest.approx(expected, rel=tolerance)
    assert float(case.gradient("fomaml").parameters["scale"]) == 0


def test_first_order_gradients_of_rates_are_products_of_inner_and_query_gradients() -> None:
    """With inner gradients g as constants, w' = w - sum of rate * g, so d loss / d rate = -<g, d loss / d w'>."""
    case = WithRates()
    states, inner = case.run(case.rates)
    last = {name: w.requires_grad_() for name, w in states[-1].items()}
    outer = dict(zip(last, torch.autograd.grad(case.query_loss(last), list(last.values())), strict=True))
    expected = {name: torch.stack([-(g[name] * outer[name]).sum() for g in inner]) for name in case.rates}
    found = case.gradient("fomaml")
    assert_close(found.parameters, expected, EXACT)
    assert_close(found.weights, outer, EXACT)


def test_reptile_has_no_gradient_for_rates() -> None:
    found = WithRates().gradient("reptile").parameters
    assert all(torch.equal(rate, torch.zeros(STEPS, dtype=torch.float64)) for rate in found.values())


@pytest.mark.parametrize("method", [m for m in get_args(Method) if m != "reptile"])
def test_without_inner_steps_all_methods_give_the_plain_gradient(textbook: Textbook, method: Method) -> None:
    leaves = {name: w.requires_grad_() for name, w in textbook.weights.items()}
    expected = torch.autograd.grad(textbook.query_loss(leaves), list(leaves.values()))
    textbook.weights = {name: w.detach() for name, w in leaves.items()}
    assert_close(textbook.gradient(method, steps=0).weights, dict(zip(leaves, expected, strict=True)), EXACT)


@pytest.mark.parametrize("method", [m for m in get_args(Method) if m != "anil"])  # this network has no head to adapt
def test_weights_and_parameters_are_left_as_they_were(method: Method) -> None:
    case = WithRates()
    before = {name: w.clone() for name, w in case.weights.items()}
    found = case.gradient(method)
    assert all(torch.equal(w, before[name]) and not w.requires_grad for name, w in case.weights.items())
    assert not any(g.requires_grad for g in (*found.weights.values(), *found.parameters.values()))
