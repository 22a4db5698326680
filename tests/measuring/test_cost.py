import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metanas.api import Cost
from metanas.measuring.cost import cost
from metanas.spaces.cells import Cells
from metanas.spaces.norm import SupportNorm
from metanas.spaces.ops import NASNET
from metanas.spaces.space import Features, Space
from metanas.spaces.stages import Stages


class Conv4(Features):
    """The hand-made network of few-shot learning: four times 3x3 convolution, normalisation, ReLU, 2x2 max pool."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inputs = (channels, width, width, width)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, width, 3, padding=1, bias=False) for i in inputs)
        self.norms = nn.ModuleList(SupportNorm(width) for _ in inputs)

    def forward(self, inputs: Tensor, reference: int) -> Tensor:
        x = inputs
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.functional.max_pool2d(torch.relu(norm(convolution(x), reference)), 2)
        return x.flatten(1)


class Conv4Space(Stages):
    def build(self, architecture: tuple[int, ...]) -> Features:
        return Conv4(self.channels, 64)


def test_conv4_by_hand() -> None:
    sides = (28, 14, 7, 3)
    params = 9 * 64 * (1 + 3 * 64) + 4 * 2 * 64
    macs = 9 * 64 * (sides[0] ** 2 + 64 * sum(side**2 for side in sides[1:]))
    space = Conv4Space()
    assert cost(space, space.default, 28) == Cost(params, macs)


@pytest.mark.parametrize(
    "space",
    [
        Cells(channels=3, width=4),
        Cells(nodes=5, width=8, stack=2, operations=NASNET, combine=("sum", "concat")),
        Stages(channels=3, size=32),
    ],
)
def test_every_convolution_and_matrix_is_counted(space: Space) -> None:
    """Against a count by layer, on a network that really runs."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        architecture = space.sample(rng)
        network, macs = space.build(architecture), []

        def count(layer: nn.Module, arguments: tuple[Tensor], output: Tensor, macs: list[int] = macs) -> None:
            # Each output value is a sum over the weights that lead to its channel.
            macs.append(output.numel() * layer.weight[0].numel())

        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        with torch.no_grad():
            network(torch.rand(1, space.channels, 32, 32), 1)
        assert cost(space, architecture, 32) == Cost(sum(weight.numel() for weight in network.parameters()), sum(macs))
