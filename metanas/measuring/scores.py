"""Zero-cost scores: what a network before training and one batch say of how well it will learn.

All take logits as `network(inputs)` and the labelled batch. As compared by Abdelfattah et al. (2021, section 3.2),
whose sums over layers we take; higher is better.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from metanas.learning.samples import Samples
from metanas.native import elementary
from metanas.spaces.fused import pooled
from metanas.spaces.norm import SampleNorm, SupportNorm

Score = Callable[[nn.Module, Samples], float]

NORMALISATIONS = (SampleNorm, SupportNorm, nn.BatchNorm2d, nn.GroupNorm)


def randomise(network: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of every layer, with normalisations that scale by one, in place.

    Shared weights start some layers as the identity, which would hide them from gradients.
    """
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)


def synflow(network: nn.Module, batch: Samples) -> float:
    """Synaptic flow (SynFlow, Tanaka et al. 2020): the sum of w dR/dw, where R is what an image of ones gives.

    All weights count by their absolute value, normalisations are left out, and sums are in float64: the product over
    layers is large. Of the batch only the shape matters.
    """
    positive = copy.deepcopy(network).double()
    for module in positive.modules():
        if isinstance(module, NORMALISATIONS):
            module.register_forward_hook(_left_out, with_kwargs=True)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    ones = torch.ones(1, *batch.inputs.shape[1:], dtype=torch.float64)
    weights = _weights(positive)
    gradients = torch.autograd.grad(positive(ones).sum(), weights)
    return sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True))


def naswot(network: nn.Module, batch: Samples) -> float:
    """Neural architecture search without training (Mellor et al. 2021, section 3): log |det K|.

    K_ij counts the ReLUs that are on for both images i and j of the batch or off for both. Minus infinity where two
    images cannot be told apart.
    """
    with torch.no_grad(), elementary(), Activations() as seen:
        network(batch.inputs)
    codes = torch.cat(seen.codes, dim=1).double()  # (N, number of ReLUs)
    kernel = codes @ codes.T + (1 - codes) @ (1 - codes).T
    return float(torch.linalg.slogdet(kernel).logabsdet)


def snip(network: nn.Module, batch: Samples) -> float:
    """Connection sensitivity (SNIP, Lee et al. 2019, section 4.1, unnormalised): the sum of |w dL/dw|."""
    weights, gradients = _loss_gradients(network, batch)
    return sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True))


def gradient_norm(network: nn.Module, batch: Samples) -> float:
    """The sum over layers of the Euclidean norm of the loss's gradient (Abdelfattah et al. 2021, section 3.2)."""
    _, gradients = _loss_gradients(network, batch)
    return sum(float(g.norm()) for g in gradients)


def params(network: nn.Module, batch: Samples) -> float:
    """The number of parameters."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


def flops(network: nn.Module, batch: Samples) -> float:
    """Floating-point operations on one image: two a multiply-accumulate of convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode  # here: it imports a compiler, for which every start waits

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), elementary(), counter:
        network(batch.inputs[:1])
    return float(counter.get_total_flops())


SCORES: Mapping[str, Score] = {
    "synflow": synflow,
    "naswot": naswot,
    "snip": snip,
    "gradient_norm": gradient_norm,
    "params": params,
    "flops": flops,
}
"""By the names that configurations use."""


class Activations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, notes for every ReLU which of its units are on: `codes`, (N, units) of 0 and 1 each."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.codes: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
            self.codes.append((output > 0).flatten(1).float())
        return output


def _left_out(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
    """In place of what a normalisation gives: its input, pooled where that is its part. Nothing is below 0."""
    return args[0] if kwargs.get("pool") is None else pooled(args[0], kwargs["pool"])


def _weights(network: nn.Module) -> list[Tensor]:
    """Of convolutions and matrices; gains and biases are no connections."""
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


def _loss_gradients(network: nn.Module, batch: Samples) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    weights = _weights(network)
    loss = F.cross_entropy(network(batch.inputs), batch.labels)
    return weights, torch.autograd.grad(loss, weights)
