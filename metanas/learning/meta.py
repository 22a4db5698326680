"""Meta-updates: the gradient of the query loss after the inner loop, by five methods.

All take the same problem and return a gradient for every weight, so a strategy of training is one word of the
configuration. `Problem` hides what an episode is: the tests put a textbook network behind it and compare with
learn2learn and with finite differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metanas.learning.inner import Loss, Rates, Weights, inner_loop

Method = Literal["maml", "fomaml", "difference", "reptile", "anil"]


@dataclass(frozen=True)
class Problem:
    """One episode as the meta-update sees it.

    `prepare` adds, differentiably, what the inner loop starts from beside the meta-learned weights (the head from
    the prototypes). `support_loss` and `query_loss` take the prepared weights. "difference" moves all weights together
    by the length `difference`.
    """

    prepare: Callable[[Mapping[str, Tensor]], Weights]
    support_loss: Loss
    query_loss: Loss
    difference: float
    head: tuple[str, ...] = ()  # names that `prepare` adds


@dataclass(frozen=True)
class MetaGradient:
    """Gradients by name, of the weights and of whatever other parameters were asked for, with the query loss."""

    weights: Weights
    parameters: Weights
    loss: float


def meta_gradient(
    method: Method,
    problem: Problem,
    weights: Mapping[str, Tensor],
    rates: Rates,
    steps: int,
    parameters: Mapping[str, Tensor] | None = None,
) -> MetaGradient:
    """The meta-gradient at `weights`.

    `parameters` are further leaves (learned rates, the head's scale) that `rates` and the problem use; their
    gradients come back too, except from "reptile", which has none.
    """
    parameters = dict(parameters or {})
    if method == "reptile":
        return _reptile(problem, weights, rates, steps, parameters)
    if method == "difference" and steps:
        return _difference(problem, weights, rates, steps, parameters)
    leaves = _leaves(weights)
    start = problem.prepare(leaves)
    adapted = problem.head if method == "anil" else tuple(start)
    fast = inner_loop(problem.support_loss, start, adapted, rates, steps, second_order=method in ("maml", "anil"))
    loss = problem.query_loss(fast)
    return _collect(
        loss, torch.autograd.grad(loss, [*leaves.values(), *parameters.values()], allow_unused=True), leaves, parameters
    )


def _reptile(
    problem: Problem, weights: Mapping[str, Tensor], rates: Rates, steps: int, parameters: Weights
) -> MetaGradient:
    """The way from the weights to the adapted ones, as a gradient (Nichol et al. 2018, section 3)."""
    start = _leaves(problem.prepare(_leaves(weights)))
    fast = inner_loop(problem.support_loss, start, tuple(start), rates, steps, second_order=False)
    with torch.no_grad():
        loss = problem.query_loss(fast)
    # Where the fast weights are those of several tasks, their ways add up.
    way = {n: (weights[n] - fast[n]).detach().sum_to_size(weights[n].shape) for n in weights}
    return MetaGradient(way, {n: torch.zeros_like(p) for n, p in parameters.items()}, float(loss))


def _difference(
    problem: Problem, weights: Mapping[str, Tensor], rates: Rates, steps: int, parameters: Weights
) -> MetaGradient:
    """MAML with Hessian-vector products by central differences (DARTS, Liu et al. 2019, equation 8).

    Walks the inner loop back: v <- v - rate * H v, one step at a time, so memory does not grow with the steps.
    """
    leaves = _leaves(weights)
    prepared = problem.prepare(leaves)
    names = tuple(prepared)
    states = [{n: prepared[n].detach() for n in names}]
    inner: list[list[Tensor]] = []
    for step in range(steps):
        inner.append(_gradient(problem.support_loss, states[-1]))
        states.append({n: states[-1][n] - _value(rates(n, step)) * g for n, g in zip(names, inner[-1], strict=True)})
    last = {n: w.requires_grad_() for n, w in states[-1].items()}
    loss = problem.query_loss(last)
    found = torch.autograd.grad(loss, [*(last[n] for n in names), *parameters.values()], allow_unused=True)
    vector = [torch.zeros_like(last[n]) if g is None else g for n, g in zip(names, found, strict=False)]
    extra = {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(parameters.items(), found[len(names) :], strict=True)
    }
    for step in reversed(range(steps)):
        extra = _rate_gradients(extra, parameters, rates, names, step, inner[step], vector)
        scaled = [_value(rates(n, step)) * v for n, v in zip(names, vector, strict=True)]
        products, mixed = _hessian_vector(problem, states[step], scaled, parameters)
        vector = [v - p for v, p in zip(vector, products, strict=True)]
        extra = {n: e - p for (n, e), p in zip(extra.items(), mixed, strict=True)}
    outputs = [prepared[n] for n in names]
    through = torch.autograd.grad(outputs, [*leaves.values(), *parameters.values()], vector, allow_unused=True)
    collected = _collect(loss, through, leaves, parameters)
    return MetaGradient(collected.weights, {n: extra[n] + collected.parameters[n] for n in extra}, collected.loss)


def _rate_gradients(
    extra: Weights,
    parameters: Weights,
    rates: Rates,
    names: Sequence[str],
    step: int,
    inner: list[Tensor],
    vector: list[Tensor],
) -> Weights:
    """Adds d loss / d rate = -<inner gradient, vector> of one step to the gradients of the learned rates."""
    terms = [
        -(rate * (g * v).sum())
        for n, g, v in zip(names, inner, vector, strict=True)
        if isinstance(rate := rates(n, step), Tensor) and rate.requires_grad
    ]
    if not terms:
        return extra
    found = torch.autograd.grad(torch.stack(terms).sum(), list(parameters.values()), allow_unused=True)
    return {n: extra[n] if g is None else extra[n] + g for n, g in zip(parameters, found, strict=True)}


def _hessian_vector(
    problem: Problem, weights: Weights, vector: list[Tensor], parameters: Weights
) -> tuple[list[Tensor], list[Tensor]]:
    """The derivatives of <d support loss / d weights, vector> by the weights, and by the parameters that it uses."""
    norm = torch.stack([v.square().sum() for v in vector]).sum().sqrt() + torch.finfo(vector[0].dtype).tiny
    step = problem.difference / norm
    ahead = {n: w + step * v for (n, w), v in zip(weights.items(), vector, strict=True)}
    behind = {n: w - step * v for (n, w), v in zip(weights.items(), vector, strict=True)}
    sides = [_gradient(problem.support_loss, side, parameters) for side in (ahead, behind)]
    products = [(a - b) / (2 * step) for a, b in zip(*sides, strict=True)]
    return products[: len(weights)], products[len(weights) :]


def _gradient(loss: Loss, weights: Weights, parameters: Mapping[str, Tensor] | None = None) -> list[Tensor]:
    """By the weights, then by the parameters."""
    leaves = _leaves(weights)
    wanted = [*leaves.values(), *(parameters or {}).values()]
    return [
        torch.zeros_like(w) if g is None else g
        for w, g in zip(wanted, torch.autograd.grad(loss(leaves), wanted, allow_unused=True), strict=True)
    ]


def _value(rate: Tensor | float) -> Tensor | float:
    return rate.detach() if isinstance(rate, Tensor) else rate


def _leaves(weights: Mapping[str, Tensor]) -> Weights:
    return {n: w.detach().requires_grad_() for n, w in weights.items()}


def _collect(loss: Tensor, found: Sequence[Tensor | None], leaves: Weights, parameters: Weights) -> MetaGradient:
    named = [
        (n, torch.zeros_like(w) if g is None else g)
        for (n, w), g in zip([*leaves.items(), *parameters.items()], found, strict=True)
    ]
    return MetaGradient(dict(named[: len(leaves)]), dict(named[len(leaves) :]), float(loss.detach()))
