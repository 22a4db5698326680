"""Sums over maps and affine functions of maps, compiled: the gradients of either are made of both.

So gradients of any order go through them, each map read once: of tensor operations every product would be a map of its
own. Maps are (N, C, H, W), channels last, and coefficients (N, C), in single precision at least.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metanas.native import address, library

SOURCE = Path(__file__).with_name("normalise.c")


def affine(u: Tensor, p: Tensor, v: Tensor | None = None, q: Tensor | None = None, s: Tensor | None = None) -> Tensor:
    """p * u + q * v + s: maps u and v with coefficients p, q and s."""
    mapped: Tensor = _Affine.apply(laid_out(u), p, None if v is None else laid_out(v), q, s)
    return mapped


def sums(g: Tensor, u: Tensor, v: Tensor | None = None) -> tuple[Tensor, ...]:
    """Over the positions of maps: of g, of g * u, and where there is a v of g * v; each (N, C)."""
    found: Tensor = _Sums.apply(laid_out(g), laid_out(u), None if v is None else laid_out(v))
    return found.unbind()


def scattered(left: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """What pooling left (N, C, h, w) put back at its places (0 to 3 of each window) among zeros."""
    whole: Tensor = _Scatter.apply(left, place, height, width)
    return whole


def laid_out(map_: Tensor) -> Tensor:
    """The same, in the layout that the compiled code reads."""
    return map_.contiguous(memory_format=torch.channels_last)


def _call(name: str, of: Tensor, *arrays: Tensor | None) -> None:
    """A function of the C file, on maps as large as `of`."""
    n, c, h, w = of.shape
    getattr(library(SOURCE, of.dtype), name)(*map(ctypes.c_long, (n, h * w, c)), *map(address, arrays))


class _Affine(torch.autograd.Function):
    """Of maps in their layout: one that was copied here would be another than the one that has a gradient."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, p: Tensor, v: Tensor | None, q: Tensor | None, s: Tensor | None) -> Tensor:
        mapped = torch.empty_like(u)
        coefficients = [None if k is None else k.contiguous() for k in (p, q, s)]
        _call("affine", u, u, v, *coefficients, mapped)
        ctx.save_for_backward(u, p, v, q)
        return mapped

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, p, v, q = ctx.saved_tensors
        of_u, by_p, by_v, by_q, by_s = ctx.needs_input_grad
        found = sums(g, u, v) if by_p or by_q or by_s else None
        return (
            affine(g, p) if of_u else None,
            found[1] if found and by_p else None,
            affine(g, q) if by_v else None,
            found[2] if found and by_q else None,
            found[0] if found and by_s else None,
        )


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
        real = torch.promote_types(g.dtype, torch.float32)
        found = torch.empty((2 if v is None else 3, *g.shape[:2]), dtype=real)
        _call("products", g, g, u, v, found)
        ctx.save_for_backward(g, u, v)
        return found

    @staticmethod
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor | None, ...]:
        g, u, v = ctx.saved_tensors
        of_g, of_u, of_v = ctx.needs_input_grad
        by_sum, by_first, *by_second = by_found.unbind()
        second = by_second[0] if by_second else None
        return (
            affine(u, by_first, v, second, by_sum) if of_g else None,
            affine(g, by_first) if of_u else None,
            affine(g, second) if of_v and second is not None else None,
        )


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, place: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(place)
        return _pick("spread", left, place, (height, width))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _Gather.apply(g, *ctx.saved_tensors), None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        ctx.size = whole.shape[2:]
        return _pick("pick", whole, place, place.shape[2:])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _Scatter.apply(g, *ctx.saved_tensors, *ctx.size), None


def _pick(name: str, map_: Tensor, place: Tensor, size: Sequence[int]) -> Tensor:
    """To or from the places of windows: a map of `size`."""
    map_ = laid_out(map_)
    found = torch.empty((*map_.shape[:2], *size), dtype=map_.dtype, memory_format=torch.channels_last)
    whole = found if name == "spread" else map_
    (n, c, h, w), (oh, ow) = whole.shape, place.shape[2:]
    sizes = map(ctypes.c_long, (n, h, w, c, oh, ow))
    getattr(library(SOURCE, map_.dtype), name)(*sizes, address(map_), address(place), address(found))
    return found
