"""Slow and obvious versions of what the project computes, and small inputs to compare on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metanas.learning.samples import Classification, Samples

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class SmallEpisode:
    """Random images with a class-dependent mean, in the form that the learner takes."""

    support_inputs: Tensor
    support_labels: Tensor
    query_inputs: Tensor
    query_labels: Tensor
    ways: int
    task: str = "noise"


def small_episode(
    seed: int,
    ways: int = 3,
    shots: int = 2,
    queries: int = 4,
    size: int = 8,
    channels: int = 1,
    dtype: torch.dtype = torch.float32,
) -> SmallEpisode:
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, size, size)
    means = torch.rand(ways, *shape, generator=generator, dtype=dtype)

    def draw(each: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(ways).repeat_interleave(each)
        noise = torch.rand(len(labels), *shape, generator=generator, dtype=dtype)
        return (means[labels] + noise) / 2, labels

    return SmallEpisode(*draw(shots), *draw(queries), ways)


def nearest_prototype(support: Tensor, labels: Tensor, ways: int, queries: Tensor) -> Tensor:
    """Squared distances (Q, K) of queries to class means, one pair at a time."""
    distances = torch.empty(len(queries), ways, dtype=support.dtype)
    for k in range(ways):
        mean = torch.stack([z for z, label in zip(support, labels, strict=True) if label == k]).mean(0)
        for q, query in enumerate(queries):
            distances[q, k] = ((query - mean) ** 2).sum()
    return distances


def adapted(
    loss: Callable[[Mapping[str, Tensor]], Tensor], weights: Weights, names: tuple[str, ...], rate: float, steps: int
) -> Weights:
    """Gradient descent on `names`, with every weight cut from its history at each step."""
    for _ in range(steps):
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
        loss(weights).backward()
        weights = {n: w - rate * w.grad if n in names else w for n, w in weights.items()}
    return {name: weight.detach() for name, weight in weights.items()}


def slope(f: Callable[[Weights], float], at: Weights, direction: Weights, step: float = 1e-5) -> float:
    """The derivative of `f` at `at` along `direction`, by a central difference."""
    ahead = {name: w + step * direction[name] if name in direction else w for name, w in at.items()}
    behind = {name: w - step * direction[name] if name in direction else w for name, w in at.items()}
    return (f(ahead) - f(behind)) / (2 * step)


def direction_like(weights: Mapping[str, Tensor], seed: int) -> Weights:
    """A random direction of unit length."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {n: torch.randn(w.shape, generator=generator, dtype=w.dtype) for n, w in weights.items()}
    length = sum(float(d.square().sum()) for d in drawn.values()) ** 0.5
    return {name: d / length for name, d in drawn.items()}


def inner_product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(float((a[name] * b[name]).sum()) for name in b)


def support_norm(x: Tensor, reference: int, shrinkage: float) -> Tensor:
    """What SupportNorm should give with unit weight and no bias, one sample and channel at a time."""
    out = torch.empty_like(x)
    positions = reference * x.shape[2] * x.shape[3]
    share = positions / (positions + shrinkage)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            support, own = x[:reference, c].flatten(), x[n].flatten()
            mean = share * support.mean() + (1 - share) * own.mean()
            # The second moment of the mixture about the mixture's mean.
            variance = share * ((support - mean) ** 2).mean() + (1 - share) * ((own - mean) ** 2).mean()
            out[n, c] = (x[n, c] - mean) / torch.sqrt(variance + 1e-5)
    return out


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(logits, labels))


def spots(count: int, seed: int) -> Samples:
    """Noise with a bright spot, or without: two classes in turn, 8x8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.5 * torch.rand(count, 1, 8, 8, generator=generator)
    images[labels == 1, :, 2:6, 2:6] += 0.5
    return Samples(images, labels, 2)


SPOTS = Classification(spots(64, 0), spots(20, 1), spots(30, 2))
