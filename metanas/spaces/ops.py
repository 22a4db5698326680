"""Operations of the cell space, by name.

`OPERATIONS[name](channels, stride)` makes a module whose `forward(x, reference)` maps (N, channels, H, W) to
(N, channels, ceil(H / stride), ceil(W / stride)); the first `reference` rows are the support set, from which the
normalisation takes its statistics. A user adds an operation by adding a factory to the dictionary.

`DARTS` names the eight of Liu et al. (2019), `NASNET` the fourteen of Zoph et al. (2018); five are in both. The order
is ReLU, convolution, normalisation, and separable convolutions are applied twice, as in both papers' code. Two
choices differ: a skip connection with stride 2 averages 2x2 pixels before its 1x1 convolution (DARTS takes two
shifted samples), and pools are followed by no normalisation of their own, since every node normalises its result.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.spaces.norm import SupportNorm
from metanas.spaces.winograd import Convolution

DARTS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NASNET = (
    "skip_connect",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "conv_3x3_dilated",
    "avg_pool_3x3",
    "avg_pool_5x5",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)


class Identity(nn.Module):
    """Its input. The one path that drop path leaves alone."""

    def forward(self, x: Tensor, reference: int) -> Tensor:
        return x


class Zero(nn.Module):
    """Nothing: zeros of the right shape."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, reference: int) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Pool(nn.Module):
    """The largest or the mean value of a window; what lies outside of the image does not count."""

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, kernel, stride

    def forward(self, x: Tensor, reference: int) -> Tensor:
        if self.kind == "max":
            return F.max_pool2d(x, self.kernel, self.stride, self.kernel // 2)
        return F.avg_pool2d(x, self.kernel, self.stride, self.kernel // 2, count_include_pad=False)


class Attention(nn.Module):
    """Squeeze-and-excitation through `hidden` units (Hu et al. 2018), as a gate that starts at one."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class ReluConvNorm(nn.Module):
    """ReLU, then `layers` (the last one a convolution), then normalisation."""

    def __init__(self, *layers: nn.Module, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.norm = SupportNorm(channels)

    def forward(self, x: Tensor, reference: int) -> Tensor:
        normalised: Tensor = self.norm(self.layers(torch.relu(x)), reference)
        return normalised


class Chain(nn.ModuleList):
    """Operations one after the other."""

    def forward(self, x: Tensor, reference: int) -> Tensor:
        for operation in self:
            x = operation(x, reference)
        return x


def convolution(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Convolution:
    """A convolution without bias that keeps the image's size, but for the stride."""
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    return Convolution(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def pointwise(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """A 1x1 convolution, after the mean of each `stride` x `stride` pixels so that none is thrown away."""
    shrink = () if stride == 1 else (nn.AvgPool2d(stride, ceil_mode=True),)
    return (*shrink, convolution(inputs, outputs, (1, 1)))


def skip(channels: int, stride: int) -> nn.Module:
    """The input itself, or a learned half-size version of it."""
    return Identity() if stride == 1 else ReluConvNorm(*pointwise(channels, channels, stride), channels=channels)


def pool(kind: str, kernel: int) -> Callable[[int, int], nn.Module]:
    """The factory of a pool."""
    return lambda channels, stride: Pool(kind, kernel, stride)


def conv(kernel: int, dilation: int = 1) -> Callable[[int, int], nn.Module]:
    """The factory of a full convolution."""

    def make(channels: int, stride: int) -> nn.Module:
        return ReluConvNorm(convolution(channels, channels, (kernel, kernel), stride, dilation), channels=channels)

    return make


def factorised(length: int) -> Callable[[int, int], nn.Module]:
    """The factory of a 1 x length convolution followed by a length x 1 convolution."""

    def make(channels: int, stride: int) -> nn.Module:
        return ReluConvNorm(
            convolution(channels, channels, (1, length), (1, stride)),
            convolution(channels, channels, (length, 1), (stride, 1)),
            channels=channels,
        )

    return make


def separable(kernel: int, dilation: int = 1, times: int = 1) -> Callable[[int, int], nn.Module]:
    """The factory of a depthwise convolution followed by a 1x1 convolution, `times` over, the first with the stride."""

    def make(channels: int, stride: int) -> nn.Module:
        return Chain(
            ReluConvNorm(
                convolution(channels, channels, (kernel, kernel), step, dilation, channels),
                convolution(channels, channels, (1, 1)),
                channels=channels,
            )
            for step in (stride, *[1] * (times - 1))
        )

    return make


OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda channels, stride: Zero(stride),
    "skip_connect": skip,
    "max_pool_3x3": pool("max", 3),
    "max_pool_5x5": pool("max", 5),
    "max_pool_7x7": pool("max", 7),
    "avg_pool_3x3": pool("avg", 3),
    "avg_pool_5x5": pool("avg", 5),
    "conv_1x1": conv(1),
    "conv_3x3": conv(3),
    "conv_3x3_dilated": conv(3, dilation=2),
    "conv_1x3_3x1": factorised(3),
    "conv_1x7_7x1": factorised(7),
    "sep_conv_3x3": separable(3, times=2),
    "sep_conv_5x5": separable(5, times=2),
    "sep_conv_7x7": separable(7, times=2),
    "dil_conv_3x3": separable(3, dilation=2),
    "dil_conv_5x5": separable(5, dilation=2),
}


def drop_path(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """x (N, ...) with each sample zeroed with `probability` (below 1), the others scaled so that the mean stays.

    Probability 0 gives x itself and needs no generator.
    """
    if probability == 0:
        return x
    if generator is None:
        raise ValueError(f"`generator` must be given when probability > 0, but got (probability={probability}, None).")
    kept = torch.rand(len(x), generator=generator) >= probability
    return x * (kept.to(x) / (1 - probability)).view(-1, *[1] * (x.dim() - 1))


def scheduled_drop_path(final: float, step: int, steps: int) -> float:
    """ScheduledDropPath (Zoph et al. 2018): the probability grows linearly over training to `final`."""
    return final * min(1.0, step / steps)
