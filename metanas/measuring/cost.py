"""What an architecture costs to run."""

from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from metanas.api import Architecture, Cost
from metanas.spaces.space import Space


@lru_cache(maxsize=65536)  # a search asks again and again for the same architectures
def cost(space: Space, architecture: Architecture, size: int) -> Cost:
    """Parameters, and multiply-accumulates of the features of one `size` x `size` image, both exact.

    Convolutions and matrix products count; normalisation, pooling and activations do not, as is usual. The network
    really runs, once: on shapes alone PyTorch takes twice as long.
    """
    network = space.build(architecture)
    image = torch.zeros(1, space.channels, size, size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(image, reference=1)
    # PyTorch counts a multiply-accumulate as two operations.
    return Cost(sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2)
