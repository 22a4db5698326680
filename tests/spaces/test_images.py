"""Convolutions of images against PyTorch's: values, gradients, gradients of gradients, and where they are taken."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from metanas import native
from metanas.learning.executor import one_thread
from metanas.spaces import images
from metanas.spaces.images import convolve
from metanas.spaces.winograd import Convolution

pytestmark = pytest.mark.usefixtures("compiler")


def random(*size: int, seed: int = 0, numbers: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(numbers)


Case = tuple[Tensor, Tensor, Tensor | None, Tensor]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images of any size, weight and bias, and a gradient by what they make."""
    height, width = draw(st.tuples(*[st.integers(1, 10)] * 2))
    samples, c, d = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])), draw(st.sampled_from([16, 48, 80]))
    kernel, seed = draw(st.sampled_from([3, 5])), draw(st.integers(0, 2**31))
    weight, bias = random(d, c, kernel, kernel, seed=seed + 1), random(d, seed=seed + 2)
    return (
        random(samples, c, height, width, seed=seed),
        weight.requires_grad_(),
        bias.requires_grad_() if draw(st.booleans()) else None,
        random(samples, d, height, width, seed=seed + 3).requires_grad_(),
    )


@given(case=cases())
def test_it_is_a_convolution_with_gradients_of_both_orders(case: Case) -> None:
    x, weight, bias, g = case
    parameters = [weight] if bias is None else [weight, bias]
    found, plain = convolve(x, weight, bias), F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(y, parameters, g, create_graph=True) for y in (found, plain))
    by_g = [torch.autograd.grad(sum(each.sin().sum() for each in first), g) for first in (ours, theirs)]
    for one, other in zip((*ours, *by_g[0]), (*theirs, *by_g[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


class TestConvolution:
    X = random(8, 1, 28, 28, numbers=torch.float32)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
        """The sizes of what was convolved here, by one thread."""
        called = list[tuple[int, ...]]()

        def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            called.append(tuple(x.shape))
            return convolve(x, weight, bias)

        monkeypatch.setattr(images, "convolve", counted)
        with one_thread(), torch.random.fork_rng():
            torch.manual_seed(0)  # weights are drawn from it
            yield called

    @pytest.mark.parametrize("bias", [True, False])
    def test_the_first_layer_takes_it(self, calls: list[tuple[int, ...]], bias: bool) -> None:
        module = Convolution(1, 64, 3, padding=1, bias=bias)
        found, plain = module(self.X), F.conv2d(self.X, module.weight, module.bias, padding=1)
        torch.testing.assert_close(found, plain)
        assert found.is_contiguous(memory_format=torch.channels_last)
        g = random(*plain.shape, seed=1, numbers=torch.float32)
        for one, other in zip(
            torch.autograd.grad(found, list(module.parameters()), g),
            torch.autograd.grad(plain, list(module.parameters()), g),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
        assert calls == [(8, 1, 28, 28)]

    def test_a_gradient_by_the_image_is_plain(self, calls: list[tuple[int, ...]]) -> None:
        x = self.X.clone().requires_grad_()
        (found,) = torch.autograd.grad(Convolution(1, 64, 3, padding=1)(x).sum(), x)
        assert found.abs().sum() > 0
        assert not calls

    @pytest.mark.parametrize(
        "module",
        [
            Convolution(1, 40, 3, padding=1),
            Convolution(1, 64, 3),
            Convolution(1, 64, 7, padding=3),
            Convolution(1, 64, 3, stride=2, padding=1),
            Convolution(1, 64, 3, padding=1).double(),
        ],
        ids=str,
    )
    def test_others_are_plain(self, calls: list[tuple[int, ...]], module: Convolution) -> None:
        x = self.X.to(module.weight.dtype)
        assert torch.equal(module(x), torch.nn.Conv2d._conv_forward(module, x, module.weight, module.bias))
        assert not calls

    def test_two_channels_and_bfloat16_are_plain(self, calls: list[tuple[int, ...]]) -> None:
        assert Convolution(2, 64, 3, padding=1)(torch.cat([self.X, self.X], 1)).shape[1] == 64
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Convolution(1, 64, 3, padding=1)(self.X).dtype == torch.bfloat16
        assert not calls

    def test_more_threads_share_a_plain_one(self, calls: list[tuple[int, ...]]) -> None:
        torch.set_num_threads(2)
        Convolution(1, 64, 3, padding=1)(self.X)
        assert not calls

    def test_without_a_compiler_it_is_plain(
        self, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(native, "compiled", lambda source, numbers: "no compiler")
        Convolution(1, 64, 3, padding=1)(self.X)
        assert not calls
