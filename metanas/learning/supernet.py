"""Every architecture of a space, on one set of weights.

The SuperNet holds no network of its own. An architecture runs as its plain module (`space.build`) on views of
the shared weights (`space.slices`), so running one costs what that one costs, and `extract` cannot differ.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.func import functional_call

from metanas.api import Architecture
from metanas.learning.inner import Weights
from metanas.spaces.space import IN_TURN, Family, Features


def channels_last(tensor: Tensor) -> Tensor:
    """The same tensor laid out as convolutions are fastest with, where it has four dimensions (thrice, on a CPU).

    The strides are written out: of one channel any strides count as channels last, and a convolution of a plain
    tensor gives a plain tensor, whose pooling takes four times as long.
    """
    if tensor.ndim != 4:
        return tensor
    _, channels, height, width = tensor.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return tensor.contiguous(memory_format=torch.channels_last).as_strided(tensor.shape, strides)


class SuperNet:
    """A space and its shared weights."""

    def __init__(self, space: Family, weights: Weights) -> None:
        self.space = space
        self.shared = {name: channels_last(weight) for name, weight in weights.items()}
        self.network = lru_cache(maxsize=IN_TURN)(self._network)

    def _network(self, architecture: Architecture) -> Features:
        # Without numbers of its own: it runs on weights that are given, and many are kept.
        with torch.device("meta"):
            return self.space.build(architecture).requires_grad_(False)

    def weights(self, architecture: Architecture) -> Weights:
        """Views of the shared weights that `architecture` uses, under the names of its plain module."""
        return {name: self.shared[name][index] for name, index in self.space.slices(architecture).items()}

    def features(
        self, architecture: Architecture, weights: Mapping[str, Tensor], inputs: Tensor, reference: int
    ) -> Tensor:
        """Features (N, D) of inputs (N, C, H, W) with `weights` in place of the shared ones (fast weights)."""
        output: Tensor = functional_call(self.network(architecture), dict(weights), (inputs, reference))
        return output

    def extract(self, architecture: Architecture) -> Features:
        """A plain module with its own copy of the weights; its outputs equal the SuperNet's."""
        network = self.space.build(architecture)
        weights = self.weights(architecture)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(weights[name])
        return network
