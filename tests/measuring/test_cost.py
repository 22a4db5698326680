from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metanas.api import Cost
from metanas.measuring.cost import cost, costs
from metanas.native import elementary
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
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
        Mobile(3, widths=((8, 12), (16, 24)), strides=(1, 2), depths=(1, 2), stem=8, features=16),
    ],
)
def test_every_convolution_and_matrix_is_counted(space: Space) -> None:
    """As PyTorch counts them, to whom a multiply-accumulate is two operations, on a network that really runs."""
    rng = np.random.default_rng(0)
    for architecture in (space.default, *(space.sample(rng) for _ in range(3))):
        network, counter = space.build(architecture), FlopCounterMode(display=False)
        with torch.no_grad(), elementary(), counter:
            network(torch.rand(1, space.channels, 32, 32), 1)
        params = sum(weight.numel() for weight in network.parameters())
        assert cost(space, architecture, 32) == Cost(params, counter.get_total_flops() // 2)


def test_seconds_stand_where_they_are_given() -> None:
    space = Stages(size=8, widths=((4, 8), (4, 8)))
    own = cost(space, space.default, 8)
    assert costs(space, 8)(space.default) == own
    assert costs(space, 8, lambda architecture: 0.0)(space.default) == replace(own, latency=0.0)


def test_it_computes_with_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    run = nn.Conv2d.forward

    def noted(module: nn.Conv2d, inputs: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        return run(module, inputs)

    before = torch.get_num_threads()
    monkeypatch.setattr(nn.Conv2d, "forward", noted)
    torch.set_num_threads(2)
    try:
        cost(Stages(size=20), Stages(size=20).default, 20)
        assert threads
        assert set(threads) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
