"""Convolutions of 3x3 and 5x5 by Winograd's algorithm: a fourth to a sixth of the multiplications.

A tile of 4 x 4 outputs is a product of polynomials, which is computed at (kernel + 3)^2 points: inputs and weights are
brought there, multiplied point by point (a matrix product over channels each), and outputs are interpolated (Lavin and
Gray 2016, section 4). PyTorch's libraries have it for few processors and layouts. Rounding errors are some 1e-5 of the
largest output, ten times those of a plain convolution, so it serves single precision. It is used where it pays, which
depends on the batch, too, and where a process has one thread, as workers have: more share the work of a plain one. What
is no number spreads over its tile.
"""

import ctypes
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from metanas.native import address, laid_out, library, takes
from metanas.spaces import images

SOURCE = Path(__file__).with_name("winograd.c")
KERNELS = (3, 5)
SIDE = 4  # of a tile of outputs
LANES = 16  # channels must be a multiple of what the widest vectors hold

# Measured, in multiplications of a matrix product: a number brought to its points or back, a weight in tiles, and how
# much longer a plain gradient by the weight takes than a plain convolution.
TRANSFORM, WEIGHT, BY_WEIGHT = 16, 10, 3


class Convolution(nn.Conv2d):
    """A convolution that takes the faster way: this one, that of `metanas/spaces/images.py`, or PyTorch's."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._suits(input, weight):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        if _of_images(input):
            return images.convolve(input, weight, bias)
        y = convolve(input, weight)
        return y if bias is None else y + bias[:, None, None]

    def _suits(self, x: Tensor, weight: Tensor) -> bool:
        d, c, *kernel = weight.shape
        half = (kernel[0] // 2,) * 2
        keeps_size = kernel[0] in KERNELS and kernel[0] == kernel[1] and self.padding == half
        ordinary = self.stride == self.dilation == (1, 1) and self.groups == 1 and self.padding_mode == "zeros"
        whole = x.dim() == 4 and x.shape[1] == c and d % LANES == 0 and (c % LANES == 0 or _of_images(x))
        single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        alone = single and torch.get_num_threads() == 1
        return keeps_size and ordinary and whole and alone and takes(images.SOURCE if _of_images(x) else SOURCE, x)


def _of_images(x: Tensor) -> bool:
    """As images are: of few channels, and without a gradient."""
    return x.shape[1] in images.CHANNELS and not x.requires_grad


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """x (N, C, H, W) with weight (D, C, kernel, kernel), half a kernel padded: (N, D, H, W)."""
    y: Tensor = _Convolve.apply(laid_out(x), laid_out(weight))
    return y


def by_input(g: Tensor, weight: Tensor) -> Tensor:
    """The gradient by x (N, C, H, W) of `convolve(x, weight)`, g (N, D, H, W) being that by it."""
    found: Tensor = _ByInput.apply(laid_out(g), laid_out(weight))
    return found


def by_weight(x: Tensor, g: Tensor, kernel: int) -> Tensor:
    """The gradient by the weight (D, C, kernel, kernel) of `convolve(x, weight)`, g (N, D, H, W) being that by it."""
    found: Tensor = _ByWeight.apply(laid_out(x), laid_out(g), kernel)
    return found


class _Convolve(torch.autograd.Function):
    """This and the two below are the gradients of one number, sum(g * convolve(x, weight)), linear in all three.

    So the gradients of each are the other two, to any order.
    """

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
        return by_input(g, weight) if of_x else None, by_weight(x, g, weight.shape[2]) if of_weight else None


class _ByInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(g, weight)
        c, kernel = weight.shape[1:3]
        plain, ours = _multiplications(g, c, kernel, tiles_more=WEIGHT)
        with _as_they_are():
            if ours < plain:
                return input_gradient(g, weight)
            shape = (len(g), c, *g.shape[2:])
            found: Tensor = conv2d_input(shape, weight, g, padding=kernel // 2)  # type: ignore[no-untyped-call]
            return found

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        of_g, of_weight = ctx.needs_input_grad
        return convolve(h, weight) if of_g else None, by_weight(h, g, weight.shape[2]) if of_weight else None


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
        return by_input(g, h) if of_x else None, convolve(x, h) if of_g else None, None


def _as_they_are() -> torch.autocast:
    """Numbers stay in their precision, even where a gradient is made while autocast is on."""
    return torch.autocast("cpu", enabled=False)


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
    shape = _Shape(kernel, n, h, w, c, d)
    return _call("forward", shape, x, _points(shape, weight, turned=False), _empty(x, n, d, h, w))


def input_gradient(g: Tensor, weight: Tensor) -> Tensor:
    """`by_input` by Winograd's algorithm, without gradients."""
    (n, d, h, w), (_, c, kernel, _) = g.shape, weight.shape
    shape = _Shape(kernel, n, h, w, c, d)
    return _call("by_input", shape, g, _points(shape, weight, turned=True), _empty(g, n, c, h, w))


def weight_gradient(x: Tensor, g: Tensor, kernel: int) -> Tensor:
    """`by_weight` by Winograd's algorithm, without gradients."""
    (n, c, h, w), d = x.shape, g.shape[1]
    shape = _Shape(kernel, n, h, w, c, d)
    return _call("by_weight", shape, x, g, _room(shape, x), _empty(x, d, c, kernel, kernel))


_KEPT: ContextVar[Mapping[Hashable, dict[bool, Tensor]]] = ContextVar("kept", default=MappingProxyType({}))


@contextmanager
def keeping_points(weights: Iterable[Tensor]) -> Iterator[None]:
    """While entered, each of these weights is brought to its points once. None may change or be freed meanwhile."""
    token = _KEPT.set({_place(weight): {} for weight in weights})
    try:
        yield
    finally:
        _KEPT.reset(token)


def _place(weight: Tensor) -> Hashable:
    """Where its numbers lie, the same for all tensors that look at them; a slice may begin where the whole does."""
    return weight.data_ptr(), weight.shape, weight.stride()


def _points(shape: "_Shape", weight: Tensor, *, turned: bool) -> Tensor:
    kept = _KEPT.get().get(_place(weight), {})
    if turned not in kept:
        name = "turned_points" if turned else "weight_points"
        kept[turned] = _call(name, shape, weight, _room(shape, weight))
    return kept[turned]


class _Shape(ctypes.Structure):
    """As `Shape` of the C file."""

    _fields_ = [(name, ctypes.c_long) for name in ("kernel", "n", "h", "w", "c", "d")]


def _empty(like: Tensor, n: int, c: int, h: int, w: int) -> Tensor:
    """Room for numbers like those of another, in the layout of the C file."""
    return like.new_empty((n, h, w, c)).permute(0, 3, 1, 2)


def _room(shape: _Shape, like: Tensor) -> Tensor:
    """For the points of a weight."""
    return like.new_empty((shape.kernel + SIDE - 1) ** 2 * shape.c * shape.d)


def _call(name: str, shape: _Shape, *arrays: Tensor) -> Tensor:
    """What a function of the C file writes into the last of its arrays."""
    getattr(library(SOURCE, arrays[0].dtype), name)(ctypes.byref(shape), *map(address, arrays))
    return arrays[-1]
