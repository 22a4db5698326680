"""Convolutions of images: of one or three channels, with which PyTorch's libraries are slow in single precision."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metanas.native import address, laid_out, library

SOURCE = Path(__file__).with_name("images.c")
CHANNELS = (1, 3)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, C, H, W) with weight (D, C, kernel, kernel) and bias (D), half a kernel padded: (N, D, H, W).

    There is no gradient by x.
    """
    y: Tensor = _Convolve.apply(laid_out(x), weight, bias)
    return y


class _Convolve(torch.autograd.Function):
    """Linear in weight and bias, as the gradients by them are in that by the map: each gives the other's gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernel = weight.shape[2]
        taps = weight.permute(2, 3, 1, 0).contiguous()
        shift = None if bias is None else bias.contiguous()
        y = torch.empty((len(x), len(weight), *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
        library(SOURCE, x.dtype).forward(_shape(x, y, ctx.kernel), *map(address, (x, taps, shift, y)))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        by_weight, by_bias = _ByWeight.apply(*ctx.saved_tensors, laid_out(g), ctx.kernel)
        return None, by_weight, by_bias if ctx.needs_input_grad[2] else None


class _ByWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        taps, shift = x.new_zeros((kernel, kernel, x.shape[1], g.shape[1])), x.new_zeros(g.shape[1])
        library(SOURCE, x.dtype).by_weight(_shape(x, g, kernel), *map(address, (x, g, taps, shift)))
        return laid_out(taps.permute(3, 2, 0, 1)), shift

    @staticmethod
    def backward(ctx: Any, by_weight: Tensor, by_bias: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return None, convolve(x, by_weight, by_bias), None


class _Shape(ctypes.Structure):
    """As `Shape` of the C file."""

    _fields_ = [(name, ctypes.c_long) for name in ("kernel", "n", "h", "w", "c", "d")]


def _shape(x: Tensor, y: Tensor, kernel: int) -> Any:
    n, c, h, w = x.shape
    return ctypes.byref(_Shape(kernel, n, h, w, c, y.shape[1]))
