"""The prototype head and the inner loop, against brute force."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from metanas.learning.inner import SHRINKAGE, apply_head, discriminant_head, inner_loop, prototype_head
from tests.reference import Weights, adapted, nearest_prototype


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(ways=st.integers(2, 30), width=st.integers(1, 20), extra=st.integers(0, 12), seed=st.integers(0, 999))
def test_the_head_is_the_nearest_prototype(ways: int, width: int, extra: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(ways), torch.randint(ways, (extra,), generator=generator)])
    labels = labels[torch.randperm(len(labels), generator=generator)]
    support, queries = normal(len(labels), width, seed=seed), normal(7, width, seed=seed + 1)
    logits = apply_head(prototype_head(support, labels, ways, scale=3.0), queries)
    distances = nearest_prototype(support, labels, ways, queries)
    assert logits.shape == (7, ways)
    assert torch.equal(logits.argmax(1), distances.argmin(1))
    expected = F.log_softmax(-3 / width**0.5 * distances, 1)
    torch.testing.assert_close(F.log_softmax(logits, 1), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(ways=st.integers(2, 5), width=st.integers(2, 20), shots=st.integers(2, 4), seed=st.integers(0, 1000))
def test_the_discriminant_is_scikit_learns(ways: int, width: int, shots: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(ways * shots, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(ways).repeat(shots)
    head = discriminant_head(features, features.new_empty(0, *features.shape), labels, ways)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=np.full(ways, 1 / ways))
    reference.fit(features.numpy(), labels.numpy())
    level = np.trace(reference.covariance_) / width
    theirs = np.linalg.solve(reference.covariance_, reference.means_.T) * 2 * level / width**0.5
    np.testing.assert_allclose(head["head.weight"].numpy(), theirs.T, rtol=1e-6, atol=1e-8)
    answers = apply_head(head, features).argmax(1)
    np.testing.assert_array_equal(answers.numpy(), reference.predict(features.numpy()))


def test_copies_tell_along_which_direction_classes_spread() -> None:
    """Two classes apart in both features; copies differ in the first, so the second decides."""
    features, labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1])
    none = features.new_empty(0, 2, 2)
    torch.testing.assert_close(discriminant_head(features, none, labels, 2), prototype_head(features, labels, 2))
    copies = features + torch.tensor([[3.0, 0.0], [-3.0, 0.0]])[:, None]
    query = torch.tensor([[0.9, 0.2]])
    assert apply_head(prototype_head(features, labels, 2), query).argmax() == 1
    assert apply_head(discriminant_head(features, copies, labels, 2), query).argmax() == 0


def quadratic(weights: Weights) -> Tensor:
    """A loss that couples its weights: the sum of (a * a * b) and squares."""
    return (weights["a"].square() * weights["b"]).sum() + weights["a"].square().sum() + weights["c"].sum() ** 2


@pytest.fixture
def weights() -> Weights:
    return {name: normal(3, seed=seed).requires_grad_() for seed, name in enumerate("abc")}


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("names", [("a", "b", "c"), ("b",)])
def test_steps_are_gradient_descent(weights: Weights, names: tuple[str, ...], second_order: bool) -> None:
    fast = inner_loop(quadratic, weights, names, lambda name, step: 0.1, 3, second_order)
    expected = adapted(quadratic, weights, names, 0.1, 3)
    for name in weights:
        torch.testing.assert_close(fast[name].detach(), expected[name], rtol=1e-12, atol=1e-12)
        assert torch.equal(fast[name], weights[name]) == (name not in names)


def test_every_weight_and_step_has_its_own_rate(weights: Weights) -> None:
    rates = {("a", 0): 0.1, ("b", 0): 0.0, ("c", 0): 0.2, ("a", 1): 0.0, ("b", 1): 0.3, ("c", 1): 0.0}
    fast = inner_loop(quadratic, weights, ("a", "b", "c"), lambda name, step: rates[name, step], 2, False)
    after_one = {name: w.detach().clone() for name, w in weights.items()}
    gradient = dict(zip("abc", torch.autograd.grad(quadratic(weights), [weights[n] for n in "abc"]), strict=True))
    after_one |= {"a": after_one["a"] - 0.1 * gradient["a"], "c": after_one["c"] - 0.2 * gradient["c"]}
    leaf = after_one["b"].clone().requires_grad_()
    (second,) = torch.autograd.grad(quadratic(after_one | {"b": leaf}), leaf)
    torch.testing.assert_close(fast["a"].detach(), after_one["a"])
    torch.testing.assert_close(fast["c"].detach(), after_one["c"])
    torch.testing.assert_close(fast["b"].detach(), after_one["b"] - 0.3 * second)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_weight_computed_from_another_counts_as_its_own(weights: Weights, second_order: bool) -> None:
    """The head comes from the body's prototypes; the inner gradient of the body must not run through it."""
    start = {**weights, "c": weights["a"] * 2}
    fast = inner_loop(quadratic, start, ("a", "b", "c"), lambda name, step: 0.1, 2, second_order)
    expected = adapted(quadratic, start, ("a", "b", "c"), 0.1, 2)
    for name in start:
        torch.testing.assert_close(fast[name].detach(), expected[name], rtol=1e-12, atol=1e-12)
    # Yet the result depends on the body through the head that it started from.
    (through,) = torch.autograd.grad(fast["c"].sum(), weights["a"])
    assert torch.all(through != 0)


def test_first_order_counts_inner_gradients_as_constants(weights: Weights) -> None:
    fast = inner_loop(quadratic, weights, ("a", "b", "c"), lambda name, step: 0.1, 4, second_order=False)
    for name in weights:
        found = torch.autograd.grad(fast[name].sum(), list(weights.values()), allow_unused=True, retain_graph=True)
        own = found["abc".index(name)]
        assert own is not None
        assert torch.equal(own, torch.ones(3, dtype=torch.float64))
        assert sum(g is not None for g in found) == 1
    twice = inner_loop(quadratic, weights, ("a", "b", "c"), lambda name, step: 0.1, 4, second_order=True)
    through = torch.autograd.grad(twice["a"].sum(), weights["a"])
    assert not torch.allclose(through[0], torch.ones(3, dtype=torch.float64))


def alive_after(weights: Weights, steps: int, second_order: bool) -> int:
    """How many tensors saved for a backward pass outlive the inner loop."""

    class Held:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Held:
        kept = Held(tensor)
        held.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        fast = inner_loop(quadratic, weights, ("a", "b", "c"), lambda name, step: 0.1, steps, second_order)
    gc.collect()
    assert fast
    return len(held)


def test_first_order_keeps_no_graph_of_the_inner_steps(weights: Weights) -> None:
    assert alive_after(weights, 5, second_order=False) == 0
    assert alive_after(weights, 5, second_order=True) > alive_after(weights, 1, second_order=True) > 0
