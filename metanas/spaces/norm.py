"""Normalisations whose answer for one sample does not depend on the other samples asked about."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from metanas.spaces.fused import Form, Pool, moments, normalise, pooled, positions_left

SHRINKAGE = 100.0
"""How many positions of the support set weigh as much as the sample's own statistics."""


class SupportNorm(nn.Module):
    """Batch normalisation with the statistics of the support set, shrunk towards those of the sample itself.

    As TaskNorm (Bronskill et al. 2020, section 4), but with the weight n / (n + SHRINKAGE) for n support positions in
    place of a learned one: a map of one position and five support images has only five numbers a channel, too
    few to be divided by.

    `forward(x, reference)` takes x (N, C, H, W) whose first `reference` rows are the support set. With
    `reference=0` the statistics last recorded (`record_statistics`) are used: an adapted network answers one image at
    a time with what it has seen while adapting. Where asked to, it pools before and rectifies after, in one operation.
    """

    mean: Tensor
    variance: Tensor
    positions: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("positions", torch.zeros(()))
        self.recording = False

    def forward(self, x: Tensor, reference: int, pool: Pool | None = None, relu: bool = False) -> Tensor:
        if self.recording:
            self._record(x[:reference] if pool is None else pooled(x[:reference], pool))
        support = None if reference else torch.stack([self.mean, self.variance + self.mean.square()])
        positions = reference * positions_left(x, pool) if reference else float(self.positions)
        form = Form(1, reference, positions / (positions + SHRINKAGE), pool, relu)
        return normalise(x, self.weight, self.bias, support, form)

    @torch.no_grad()
    def _record(self, x: Tensor) -> None:
        self.mean, square = moments(x).mean(1)
        self.variance = (square - self.mean.square()).clamp_min(0)
        self.positions = torch.tensor(float(x[:, 0].numel()))


class SampleNorm(nn.Module):
    """Group normalisation (Wu and He, 2018): each sample by its own statistics, eight channels a group or more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = next(groups for groups in range(max(1, channels // 8), 0, -1) if channels % groups == 0)

    def forward(self, x: Tensor, reference: int, pool: Pool | None = None, relu: bool = False) -> Tensor:
        return normalise(x, self.weight, self.bias, None, Form(self.groups, pool=pool, relu=relu))


NORMS: Mapping[str, Callable[[int], nn.Module]] = {"support": SupportNorm, "sample": SampleNorm}
"""By the names that spaces and configurations use: from channels to the module."""


def asks_support(network: nn.Module) -> bool:
    """Whether what it says of a sample depends on the support set."""
    return any(isinstance(module, SupportNorm) for module in network.modules())


def record_statistics(network: nn.Module, recording: bool) -> None:
    """Switches the recording of support statistics on or off in the whole of `network`."""
    for module in network.modules():
        if isinstance(module, SupportNorm):
            module.recording = recording
