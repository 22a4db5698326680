"""What an architecture costs to run."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metanas.api import Architecture, Cost
from metanas.learning.executor import one_thread
from metanas.spaces.space import Space

CostOf = Callable[[Architecture], Cost]


@lru_cache(maxsize=65536)  # a search asks again and again for the same architectures
@one_thread()  # a single image is too little for more: where the cores have other work they wait for one another
def cost(space: Space, architecture: Architecture, size: int) -> Cost:
    """Parameters, and multiply-accumulates of the features of one `size` x `size` image, both exact.

    Convolutions and linear layers count; normalisation, pooling and activations do not, as is usual. The network really
    runs, once, on zeros: on shapes alone PyTorch takes twice as long, and so does its counter of operations.
    """
    with torch.device("meta"):  # draws no weights
        network = space.build(architecture)
    params = sum(weight.numel() for weight in network.parameters())
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d | nn.Linear)
        macs += output.numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    # Of `to_empty` the first call in a process would import a library of algebra.
    tensors = (*network.named_parameters(), *network.named_buffers())
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors}
    with torch.no_grad():
        functional_call(network, zeros, (torch.zeros(1, space.channels, size, size), 1))
    return Cost(params, macs)


def costs(space: Space, size: int, latency: Callable[[Architecture], float] | None = None) -> CostOf:
    """The `cost` of architectures of `space`, with seconds where `latency` gives them."""

    def of(architecture: Architecture) -> Cost:
        found = cost(space, architecture, size)
        return found if latency is None else replace(found, latency=latency(architecture))

    return of
