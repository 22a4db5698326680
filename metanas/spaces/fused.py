"""Max pooling, normalisation and ReLU as one operation: each alone waits for memory, and together they wait once.

A normalisation here takes its statistics from a mixture of moments: those of the sample's own groups of channels, and
with weight `share` those of the support set, by channel. `normalise` is the operation; on a processor it runs as
compiled C (`normalise.c`), elsewhere as the tensor operations of `by_tensors`, which say the same.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from metanas.native import address, laid_out, library, takes

SOURCE = Path(__file__).with_name("normalise.c")
EPS = 1e-5

Pool = Literal["ceil", "floor"]
"""The largest of each 2 x 2 window; of those that the border cuts too, or of whole ones only."""


@dataclass(frozen=True)
class Form:
    """What to do beside the numbers: whether to pool first, and whether a ReLU comes last.

    `groups` are of channels; the first `reference` rows are the support set, whose moments have the weight `share`.
    """

    groups: int = 1
    reference: int = 0
    share: float = 0.0
    pool: Pool | None = None
    relu: bool = False


def normalise(x: Tensor, weight: Tensor, bias: Tensor, support: Tensor | None, form: Form) -> Tensor:
    """x (N, C, H, W) pooled, normalised, scaled by `weight` and shifted by `bias` (C), rectified.

    `support` (2, C) are first and second moments to take in place of those of the `reference` rows.
    """
    if not takes(SOURCE, x):
        return by_tensors(x, weight, bias, support, form)
    y: Tensor = _Normalise.apply(laid_out(x), weight, bias, support, form)[0]
    return y


def by_tensors(x: Tensor, weight: Tensor, bias: Tensor, support: Tensor | None, form: Form) -> Tensor:
    """The same of elementary operations: `torch.func.vmap` over `batch_norm` gives wrong second derivatives."""
    return _normalised(x if form.pool is None else pooled(x, form.pool), weight, bias, support, form)


def pooled(x: Tensor, pool: Pool) -> Tensor:
    """(N, C, H / 2, W / 2), rounded as `pool` says."""
    return F.max_pool2d(x, 2, ceil_mode=pool == "ceil")


def positions_left(x: Tensor, pool: Pool | None) -> int:
    """How many positions of x (N, C, H, W) there are to a channel and sample after pooling."""
    height, width = size_left(x, pool)
    return height * width


def size_left(x: Tensor, pool: Pool | None) -> tuple[int, int]:
    """Height and width of x (N, C, H, W) after pooling."""
    height, width = x.shape[2:]
    cut = int(pool == "ceil")
    return (height, width) if pool is None else ((height + cut) // 2, (width + cut) // 2)


def moments(x: Tensor) -> Tensor:
    """First and second (2, N, C) of every channel of x (N, C, H, W), in single precision at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.stack([x.mean((2, 3)), x.square().mean((2, 3))])


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, support: Tensor | None, form: Form) -> Tensor:
    mean, square = _mixture(moments(x), support, form)
    scale = weight * _inverse_deviation(mean, square)
    shift = bias - mean * scale  # (N, C)
    # In the precision of x: else all from here to the next convolution would be float32, twice the traffic.
    y = x * scale[:, :, None, None].to(x.dtype) + shift[:, :, None, None].to(x.dtype)
    return torch.relu(y) if form.relu else y


def _mixture(channels: Tensor, support: Tensor | None, form: Form) -> Tensor:
    """First and second moments (2, N, C) that maps whose channels have those moments are normalised with."""
    mixture = (1 - form.share) * _group_means(channels, form)
    if form.share:
        support = channels[:, : form.reference].mean(1) if support is None else support
        mixture = mixture + form.share * support[:, None]
    return mixture


def _group_means(channels: Tensor, form: Form) -> Tensor:
    """Every channel's entry of (..., C) replaced by the mean over its group."""
    groups = channels.reshape(*channels.shape[:-1], form.groups, -1)
    return groups.mean(-1, keepdim=True).expand_as(groups).flatten(-2)


def _inverse_deviation(mean: Tensor, square: Tensor) -> Tensor:
    variance = square - mean.square() + 0 * square  # no number where the sum overflowed, as then nothing is known
    return torch.rsqrt(variance.clamp_min(0) + EPS)


class _Shape(ctypes.Structure):
    """As `Shape` of the C file."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("n", "h", "w", "c", "oh", "ow", "groups", "reference")),
        *((name, ctypes.c_int) for name in ("pooled", "relu")),
        *((name, ctypes.c_double) for name in ("share", "eps")),
    ]


class _Normalise(torch.autograd.Function):
    """Gives what pooling left as well, as the gradient's gradient goes through it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, support: Tensor | None, form: Form
    ) -> tuple[Tensor, Tensor | None]:
        n, c, h, w = x.shape
        pools = form.pool is not None
        oh, ow = size_left(x, form.pool)
        reference = 0 if support is not None else form.reference
        shape = _Shape(n, h, w, c, oh, ow, form.groups, reference, pools, form.relu, form.share, EPS)
        real = torch.promote_types(x.dtype, torch.float32)
        y = torch.empty((n, c, oh, ow), dtype=x.dtype, memory_format=torch.channels_last)
        left, place = (torch.empty_like(y), torch.empty_like(y, dtype=torch.uint8)) if pools else (x, None)
        support_moments = torch.empty((2, c), dtype=real) if support is None else support.to(real).contiguous()
        mixture, scale = torch.empty((2, n, c), dtype=real), torch.empty((n, c), dtype=real)
        gain, offset = (parameter.to(real).contiguous() for parameter in (weight, bias))
        arrays = (x, gain, offset, left, place, y, support_moments, mixture, scale)
        library(SOURCE, x.dtype).forward(ctypes.byref(shape), *map(address, arrays))
        ctx.shape = shape
        ctx.save_for_backward(left, y, place, weight, mixture, scale)
        ctx.set_materialize_grads(False)
        return y, left if pools else None

    @staticmethod
    def backward(ctx: Any, by_y: Tensor | None, by_left: Tensor | None) -> tuple[Tensor | None, ...]:
        left, y, *saved = ctx.saved_tensors
        by_y = torch.zeros_like(y) if by_y is None else by_y
        by_x, by_weight, by_bias = _Gradients.apply(by_y, by_left, left, y, *saved, ctx.shape)
        return by_x, by_weight, by_bias, None, None


class _Gradients(torch.autograd.Function):
    """Those of `_Normalise`, whose own gradients are compiled, too, and have none."""

    @staticmethod
    def forward(
        ctx: Any,
        by_y: Tensor,
        by_left: Tensor | None,
        left: Tensor,
        y: Tensor,
        place: Tensor | None,
        weight: Tensor,
        mixture: Tensor,
        scale: Tensor,
        shape: _Shape,
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_y, extra = laid_out(by_y), None if by_left is None else laid_out(by_left)
        size = (shape.n, shape.c, shape.h, shape.w)
        by_x = torch.empty(size, dtype=y.dtype, memory_format=torch.channels_last)
        by_weight, by_bias = torch.zeros((2, shape.c), dtype=torch.float64)
        gain = weight.to(scale.dtype).contiguous()
        arrays = (by_y, y, left, extra, place, gain, mixture, scale, by_x, by_weight, by_bias)
        library(SOURCE, y.dtype).backward(ctypes.byref(shape), *map(address, arrays))
        ctx.shape = shape
        ctx.save_for_backward(by_y, left, y, place, weight, mixture, scale)
        return by_x, by_weight.to(weight.dtype), by_bias.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_by_x: Tensor, by_by_weight: Tensor, by_by_bias: Tensor) -> tuple[Tensor | None, ...]:
        by_y, left, y, place, weight, mixture, scale = ctx.saved_tensors
        shape, functions = ctypes.byref(ctx.shape), library(SOURCE, y.dtype)
        at_left = laid_out(by_by_x)
        if place is not None:
            whole, at_left = at_left, torch.empty_like(y)
            functions.pick(shape, *map(address, (whole, place, at_left)))
        by_by_y, by_left = torch.empty_like(y), torch.empty_like(y)
        by_weight = torch.zeros(len(weight), dtype=torch.float64)
        gain, u, v = (each.to(scale.dtype).contiguous() for each in (weight, by_by_weight, by_by_bias))
        arrays = (at_left, by_y, y, left, gain, mixture, scale, u, v, by_by_y, by_left, by_weight)
        functions.second(shape, *map(address, arrays))
        by_extra = at_left if ctx.needs_input_grad[1] else None
        return by_by_y, by_extra, by_left, None, None, by_weight.to(weight.dtype), None, None, None
