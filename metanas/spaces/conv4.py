"""Conv-4, the network that few-shot papers compare with (Vinyals et al. 2016, section 4.1): a family of one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metanas.api import Architecture
from metanas.spaces.norm import NORMS
from metanas.spaces.space import Features, Index, fresh_weights, parameter_shapes, whole_slices
from metanas.spaces.winograd import Convolution

WIDTH = 64


class Conv4Network(Features):
    """Four times 3x3 convolution to 64 channels, normalisation, ReLU and 2x2 max pooling; the last map flattened.

    Pooling comes first, as in the elastic stages: the same result but for the statistics, at twice the speed.
    """

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        inputs = [channels, WIDTH, WIDTH, WIDTH]
        self.convs = nn.ModuleList(Convolution(i, WIDTH, 3, padding=1) for i in inputs)
        self.norms = nn.ModuleList(NORMS[norm](WIDTH) for _ in inputs)

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        x = inputs
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            # An image below 16x16 is down to one position before the last pooling.
            x = norm(x, reference, pool="floor" if min(x.shape[2:]) > 1 else None, relu=True)
        return x.flatten(1)


class Conv4:
    """The family whose only member is Conv-4."""

    name = "conv-4"
    default: Architecture = ()

    def __init__(self, channels: int, norm: str = "support") -> None:
        self.channels, self.norm = channels, norm

    def build(self, architecture: Architecture) -> Features:
        return Conv4Network(self.channels, self.norm)

    def describe(self, architecture: Architecture) -> str:
        return f"4 x 3x3 {WIDTH} max/{self.norm} | grid"

    def initial_weights(self, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.device("meta"):
            network = self.build(self.default)
        return fresh_weights(parameter_shapes(network), generator)

    def slices(self, architecture: Architecture) -> Mapping[str, Index]:
        return whole_slices(self, architecture)
