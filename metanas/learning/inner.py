"""The inner loop: a few gradient steps on the support set, and the head that they start from."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Loss = Callable[[Mapping[str, Tensor]], Tensor]
Rates = Callable[[str, int], Tensor | float]
"""The inner learning rate of a weight at a step."""

HEAD = ("head.weight", "head.bias")


def prototype_head(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float = 1.0) -> Weights:
    """The linear head that scores by squared distance to the class means (Proto-MAML; Triantafillou et al. 2020).

    With features (S, D) and prototypes c_k, logits are -a |z - c_k|^2 up to a term common to all classes, where
    a = scale / sqrt(D) keeps their spread comparable between architectures of different width. Takes any number of
    classes; each needs at least one support sample.
    """
    membership = (labels[:, None] == torch.arange(ways, device=labels.device)).to(features.dtype)  # (S, K)
    prototypes = membership.T @ features / membership.sum(0)[:, None]  # (K, D)
    sharpness = scale / math.sqrt(features.shape[1])
    return {"head.weight": 2 * sharpness * prototypes, "head.bias": -sharpness * prototypes.square().sum(1)}


def apply_head(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Logits (N, K) of features (N, D)."""
    return F.linear(features, weights["head.weight"], weights["head.bias"])


def inner_loop(
    loss: Loss,
    weights: Mapping[str, Tensor],
    adapted: Sequence[str],
    rates: Rates,
    steps: int,
    second_order: bool,
) -> Weights:
    """Fast weights after `steps` gradient steps on `adapted` (MAML; Finn et al. 2017, section 2.2).

    Differentiable with respect to weights and rates. Without `second_order` the inner gradients count as
    constants, so no graph of theirs is kept (FOMAML, section 5.2).
    """
    # Views, so that a gradient is the partial one even where one weight was computed from another (head from body).
    fast = {name: weight.view_as(weight) for name, weight in weights.items()}
    for step in range(steps):
        gradients = torch.autograd.grad(loss(fast), [fast[n] for n in adapted], create_graph=second_order)
        for name, gradient in zip(adapted, gradients, strict=True):
            fast[name] = fast[name] - rates(name, step) * gradient
    return fast
