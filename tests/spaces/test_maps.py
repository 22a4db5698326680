"""Sums and affine functions of maps: against tensor operations, and their gradients of any order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metanas.spaces.maps import affine, scattered, sums

pytestmark = pytest.mark.usefixtures("compiler")


Case = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Two maps (N, C, H, W) and three coefficients (N, C), in double precision and with gradients."""
    n, c, h, w = (draw(st.integers(1, most)) for most in (3, 5, 3, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    u, v = torch.randn(2, n, c, h, w, dtype=torch.float64, generator=generator)
    p, q, s = torch.randn(3, n, c, dtype=torch.float64, generator=generator)
    for tensor in (u, v, p, q, s):
        tensor.requires_grad_()
    return (u, v), (p, q, s)


@given(case=cases())
def test_both_are_what_tensor_operations_give(case: Case) -> None:
    (u, v), (p, q, s) = case
    wide = [coefficient[:, :, None, None] for coefficient in (p, q, s)]
    torch.testing.assert_close(affine(u, p, v, q, s), wide[0] * u + wide[1] * v + wide[2])
    torch.testing.assert_close(affine(u, p), wide[0] * u)
    found = sums(u, v, v)
    for one, other in zip(found, (u, u * v, u * v), strict=True):
        torch.testing.assert_close(one, other.sum((2, 3)))


@settings(max_examples=10)
@given(case=cases())
def test_gradients_of_both_orders_are_finite_differences(case: Case) -> None:
    (u, v), (p, q, s) = case
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(affine, (u, p, v, q, s))
        assert check(affine, (u, p))
        assert check(sums, (u, v, (u + v).detach().requires_grad_()))
        assert check(lambda map_: sums(map_, map_), (u,))


@settings(max_examples=20)
@given(size=st.tuples(st.integers(2, 5), st.integers(2, 5)), ceil=st.booleans(), seed=st.integers(0, 2**31))
def test_scattering_undoes_pooling(size: tuple[int, int], ceil: bool, seed: int) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    left, index = torch.nn.functional.max_pool2d(x, 2, ceil_mode=ceil, return_indices=True)
    height, width = size
    place = (2 * (index // width % 2) + index % width % 2).to(torch.uint8)
    place = place.contiguous(memory_format=torch.channels_last)
    whole = scattered(left, place, height, width)
    assert torch.equal(whole, torch.zeros_like(x).flatten(2).scatter(2, index.flatten(2), left.flatten(2)).view_as(x))
    left.requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda kept: scattered(kept, place, height, width), (left,))


@pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float32])
def test_coefficients_are_in_single_precision_at_least(numbers: torch.dtype) -> None:
    maps = torch.full((2, 40, 9, 9), 1.0, dtype=numbers)
    total, products = sums(maps, maps)
    assert total.dtype == products.dtype == torch.float32
    assert torch.equal(total, torch.full((2, 40), 81.0))
    third = torch.full((2, 40), 1 / 3)
    mapped = affine(maps, third, maps, third, third)
    assert mapped.dtype == numbers
    torch.testing.assert_close(mapped, maps, rtol=1e-6, atol=0)
