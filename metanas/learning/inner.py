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
SHRINKAGE = 0.7
"""How much of the discriminant's covariance is a sphere: of 0.3 to 0.9, on tasks of meta-validation."""


def prototype_head(features: Tensor, labels: Tensor, ways: int, scale: Tensor | float = 1.0) -> Weights:
    """The linear head that scores by squared distance to the class means (Proto-MAML; Triantafillou et al. 2020).

    With features (S, D) and prototypes c_k, logits are -a |z - c_k|^2 up to a term common to all classes, where
    a = scale / sqrt(D) keeps their spread comparable between architectures of different width. Takes any number of
    classes; each needs at least one support sample.
    """
    prototypes = class_means(features, labels, ways)
    sharpness = scale / math.sqrt(features.shape[1])
    return {"head.weight": 2 * sharpness * prototypes, "head.bias": -sharpness * prototypes.square().sum(1)}


def discriminant_head(
    features: Tensor, copies: Tensor, labels: Tensor, ways: int, scale: Tensor | float = 1.0
) -> Weights:
    """The prototype head with distances in units of the spread within classes: Fisher's linear discriminant.

    `features` (S, D) give the class means; they and the features `copies` (C, S, D) of augmented copies of the same
    samples give the covariance around them, one for all classes and shrunk towards a sphere (Friedman 1989; per class
    in Simple CNAPS, Bateni et al. 2020, section 4). Where nothing differs within classes it is the prototype head.
    """
    prototypes = class_means(features, labels, ways)
    residuals = torch.cat([features[None], copies]).sub(prototypes[labels]).flatten(0, 1)
    covariance = residuals.T @ residuals / len(residuals)
    level = covariance.diagonal().mean()
    sphere = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    metric = (1 - SHRINKAGE) * covariance / level + SHRINKAGE * sphere if level > 0 else sphere
    directions = torch.linalg.solve(metric, prototypes.T).T
    sharpness = scale / math.sqrt(features.shape[1])
    return {"head.weight": 2 * sharpness * directions, "head.bias": -sharpness * (prototypes * directions).sum(1)}


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """(K, D) of features (S, D)."""
    membership = (labels[:, None] == torch.arange(ways, device=labels.device)).to(features.dtype)  # (S, K)
    return membership.T @ features / membership.sum(0)[:, None]


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
