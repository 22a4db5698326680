"""Convolutions of 3x3 and 5x5 by Winograd's algorithm: a fourth to a sixth of the multiplications.

A tile of 4 x 4 outputs is a product of polynomials, which is computed at (kernel + 3)^2 points: inputs and weights are
brought there, multiplied point by point (a matrix product over channels each), and outputs are interpolated (Lavin and
Gray 2016, section 4). PyTorch's libraries have it for few processors and layouts. Rounding errors are some 1e-5 of the
largest output, ten times those of a plain convolution, so it serves single precision. It is used where it pays, which
depends on the batch, too, and where a process has one thread, as workers have: more share the work of a plain one. What
is no number spreads over its tile.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from metanas.native import address, library, takes
from metanas.spaces.maps import laid_out

SOURCE = Path(__file__).with_name("winograd.c")
POINTS = {3: (0.0, 1.0, -1.0, 2.0, -2.0), 5: (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)}
"""By kernel, beside infinity; as in the C file."""
SIDE = 4  # of a tile of outputs
LANES = 16  # channels must be a multiple of what the widest vectors hold

# Measured, in multiplications of a matrix product: a number brought to its points or back, a weight in tiles, and how
# much longer a plain gradient by the weight takes than a plain convolution.
TRANSFORM, WEIGHT, BY_WEIGHT = 16, 30, 3


class Convolution(nn.Conv2d):
    """A convolution that takes the faster way."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._suits(input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        y = convolve(input, weight)
        return y if bias is None else y + bias[:, None, None]

    def _suits(self, x: Tensor) -> bool:
        kernel = self.kernel_size[0]
        keeps_size = self.kernel_size == (kernel, kernel) and self.padding == (kernel // 2, kernel // 2)
        ordinary = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        whole = self.in_channels % LANES == self.out_channels % LANES == 0
        single = x.dtype == torch.float32 and x.dim() == 4 and not torch.is_autocast_enabled("cpu")
        suits = kernel in POINTS and keeps_size and ordinary and whole and single and torch.get_num_threads() == 1
        return suits and takes(SOURCE, x)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, C, H, W) with weight (D, C, kernel, kernel), half a kernel padded: (N, D, H, W)."""
    y: Tensor = _Convolve.apply(laid_out(x), weight)
    return y


def by_weight(x: Tensor, g: Tensor, kernel: int) -> Tensor:
    """The gradient by the weight (D, C, kernel, kernel) of `convolve(x, weight)`, g (N, D, H, W) being that by it."""
    found: Tensor = _ByWeight.apply(laid_out(x), laid_out(g), kernel)
    return found


class _Convolve(torch.autograd.Function):
    """Bilinear, as `_ByWeight` is: the gradients of either are made of both, to any order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        kernel = weight.shape[2]
        plain, ours = _multiplications(x, len(weight), kernel, tiles_more=WEIGHT)
        with _as_they_are():
            return outputs(x, weight) if ours < plain else F.conv2d(x, weight, padding=kernel // 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return (
            convolve(g, _turned(weight)) if of_x else None,
            by_weight(x, g, weight.shape[2]) if of_weight else None,
        )


class _ByWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, kernel: int) -> Tensor:
        ctx.save_for_backward(x, g)
        plain, ours = _multiplications(x, g.shape[1], kernel, tiles_more=0)
        shape = (g.shape[1], x.shape[1], kernel, kernel)
        with _as_they_are():
            if ours < BY_WEIGHT * plain:
                return weight_gradient(x, g, kernel)
            found: Tensor = conv2d_weight(x, shape, g, padding=kernel // 2)  # type: ignore[no-untyped-call]
            return found

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        x, g = ctx.saved_tensors
        of_x, of_g, _ = ctx.needs_input_grad
        return convolve(g, _turned(h)) if of_x else None, convolve(x, h) if of_g else None, None


def _as_they_are() -> torch.autocast:
    """Numbers stay in their precision, even where a gradient is made while autocast is on."""
    return torch.autocast("cpu", enabled=False)


def _turned(weight: Tensor) -> Tensor:
    """The weight (C, D, kernel, kernel) with which the gradient goes back through a convolution."""
    return weight.flip(2, 3).transpose(0, 1)


def _multiplications(x: Tensor, d: int, kernel: int, tiles_more: int) -> tuple[int, int]:
    """Of a plain convolution, which leaves out what is padded, and of ours with its transforms in their like.

    Bringing the weight to its points is like `tiles_more` tiles.
    """
    n, c, h, w = x.shape
    padded = kernel // 2 * (kernel // 2 + 1)
    down, along = (max(size, kernel * size - padded) for size in (h, w))
    plain = n * down * along * c * d
    tiles = n * -(-h // SIDE) * -(-w // SIDE) + tiles_more
    return plain, (kernel + SIDE - 1) ** 2 * tiles * (c * d + TRANSFORM * (c + d))


def outputs(x: Tensor, weight: Tensor) -> Tensor:
    """`convolve` by Winograd's algorithm, without gradients."""
    (n, c, h, w), (d, _, kernel, _) = x.shape, weight.shape
    u = _to_points(kernel, x.dtype) @ weight.permute(2, 3, 1, 0).reshape(kernel**2, c * d)
    y = x.new_empty((n, h, w, d)).permute(0, 3, 1, 2)
    _call("convolve", _Shape(kernel, n, h, w, c, d), x, u, y)
    return y


def weight_gradient(x: Tensor, g: Tensor, kernel: int) -> Tensor:
    """`by_weight` by Winograd's algorithm, without gradients."""
    (n, c, h, w), d = x.shape, g.shape[1]
    to_points = _to_points(kernel, x.dtype)
    u = x.new_zeros((len(to_points), c * d))
    _call("by_weight", _Shape(kernel, n, h, w, c, d), x, g, u)
    return (to_points.T @ u).view(kernel, kernel, c, d).permute(3, 2, 0, 1)


class _Shape(ctypes.Structure):
    """As `Shape` of the C file."""

    _fields_ = [(name, ctypes.c_long) for name in ("kernel", "n", "h", "w", "c", "d")]


def _call(name: str, shape: _Shape, x: Tensor, *arrays: Tensor) -> None:
    """A function of the C file."""
    getattr(library(SOURCE, x.dtype), name)(ctypes.byref(shape), *map(address, (x, *arrays)))


@cache
def _to_points(kernel: int, numbers: torch.dtype) -> Tensor:
    """What brings a weight to its points: (points, kernel^2)."""
    points = torch.tensor(POINTS[kernel], dtype=torch.float64, device="cpu")
    apart = (points[:, None] - points).fill_diagonal_(1).prod(1)
    powers = torch.stack([points**power for power in range(kernel)], 1) / apart[:, None]
    infinity = points.new_tensor([[0] * (kernel - 1) + [1]])
    return torch.kron(*[torch.cat([powers, infinity])] * 2).to(numbers)
