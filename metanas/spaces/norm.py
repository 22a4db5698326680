"""Normalisations whose answer for one sample does not depend on the other samples asked about."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

SHRINKAGE = 100.0
"""How many positions of the support set weigh as much as the sample's own statistics."""


class SupportNorm(nn.Module):
    """Batch normalisation with the statistics of the support set, shrunk towards those of the sample itself.

    As TaskNorm (Bronskill et al. 2020, section 4), but with the weight n / (n + SHRINKAGE) for n support positions in
    place of a learned one: a map of one position and five support images has only five numbers a channel, too
    few to be divided by.

    `forward(x, reference)` takes x (N, C, H, W) whose first `reference` rows are the support set. With
    `reference=0` the statistics last recorded (`record_statistics`) are used: an adapted network answers one image at
    a time with what it has seen while adapting.

    Written out of elementary operations: `torch.func.vmap` over `batch_norm` gives wrong second derivatives.
    """

    mean: Tensor
    variance: Tensor
    positions: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("positions", torch.zeros(()))
        self.eps = eps
        self.recording = False

    def forward(self, x: Tensor, reference: int) -> Tensor:
        if reference:
            support_variance, support_mean = torch.var_mean(x[:reference], dim=(0, 2, 3), correction=0)  # (C,)
            positions = torch.tensor(float(reference * x.shape[2] * x.shape[3]), dtype=x.dtype)
            if self.recording:
                self.mean, self.variance = support_mean.detach(), support_variance.detach()
                self.positions = positions
        else:
            support_mean, support_variance, positions = self.mean, self.variance, self.positions
        own_variance, own_mean = torch.var_mean(x, dim=(1, 2, 3), correction=0)  # (N,)
        share = positions / (positions + SHRINKAGE)
        own_mean, own_variance = own_mean[:, None], own_variance[:, None]
        mean = share * support_mean + (1 - share) * own_mean  # (N, C), of the mixture of both
        variance = share * (support_variance + (support_mean - mean).square()) + (1 - share) * (
            own_variance + (own_mean - mean).square()
        )
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        # In the precision of x: else all from here to the next convolution would be float32, twice the traffic.
        return x * scale[:, :, None, None].to(x.dtype) + shift[:, :, None, None].to(x.dtype)


class SampleNorm(nn.Module):
    """Group normalisation (Wu and He, 2018): each sample by its own statistics, eight channels a group or more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = next(groups for groups in range(max(1, channels // 8), 0, -1) if channels % groups == 0)

    def forward(self, x: Tensor, reference: int) -> Tensor:
        return nn.functional.group_norm(x, self.groups, self.weight, self.bias)


NORMS: Mapping[str, Callable[[int], nn.Module]] = {"support": SupportNorm, "sample": SampleNorm}
"""By the names that spaces and configurations use: from channels to the module."""


def record_statistics(network: nn.Module, recording: bool) -> None:
    """Switches the recording of support statistics on or off in the whole of `network`."""
    for module in network.modules():
        if isinstance(module, SupportNorm):
            module.recording = recording
