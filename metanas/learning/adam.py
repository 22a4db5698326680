"""Adam (Kingma and Ba 2015, algorithm 1), on whole tensors or on the entries in use.

PyTorch's own has no such thing for slices, and loads a compiler at its first step, for seconds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass
class Moments:
    """The running means of a gradient and of its square, and how many steps they have seen."""

    first: Tensor
    second: Tensor
    steps: int = 0

    @staticmethod
    def of(weight: Tensor) -> "Moments":
        """Before the first step."""
        return Moments(torch.zeros_like(weight), torch.zeros_like(weight))


@torch.no_grad()
def adam_step(
    weight: Tensor,
    moments: Moments,
    gradient: Tensor,
    rate: float,
    box: tuple[slice, ...] = (),
    used: Tensor | None = None,
) -> None:
    """One step down `gradient`, in place, on the `used` entries (all by default) of a `box` of the weight.

    `gradient` and `used` have the box's shape.
    """
    moments.steps += 1
    part, first, second = weight[box], moments.first[box], moments.second[box]
    share = 1.0 if used is None else used.to(gradient.dtype)  # of a step that an entry makes: none or a whole one
    first.lerp_(gradient, share * (1 - BETAS[0]))
    second.lerp_(gradient.square(), share * (1 - BETAS[1]))
    spread = (second / (1 - BETAS[1] ** moments.steps)).sqrt_().add_(EPSILON)
    part.addcdiv_(first if used is None else first * share, spread, value=-rate / (1 - BETAS[0] ** moments.steps))
