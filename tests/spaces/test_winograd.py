"""Winograd's convolution against PyTorch's: values, gradients, gradients of gradients, and where it is not taken."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from metanas import native
from metanas.learning.executor import one_thread
from metanas.learning.supernet import SuperNet, channels_last
from metanas.native import elementary
from metanas.spaces import winograd
from metanas.spaces.stages import Stages
from metanas.spaces.winograd import (
    Convolution,
    by_input,
    by_weight,
    convolve,
    input_gradient,
    keeping_points,
    outputs,
    weight_gradient,
)

pytestmark = pytest.mark.usefixtures("compiler")


def plainly(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=weight.shape[2] // 2)


def random(*size: int, seed: int = 0, numbers: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(numbers)
    return values.contiguous(memory_format=torch.channels_last)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """A map of any size, a weight, and a gradient by what they make."""
    height, width = draw(st.tuples(*[st.integers(1, 10)] * 2))
    samples, c, d = draw(st.integers(1, 7)), draw(st.sampled_from([16, 32, 48])), draw(st.sampled_from([16, 80]))
    kernel, seed = draw(st.sampled_from([3, 5])), draw(st.integers(0, 2**31))
    return (
        random(samples, c, height, width, seed=seed),
        random(d, c, kernel, kernel, seed=seed + 1),
        random(samples, d, height, width, seed=seed + 2),
    )


@given(case=cases())
def test_it_is_a_convolution_and_its_gradients(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, g = case
    torch.testing.assert_close(outputs(x, weight), plainly(x, weight), rtol=1e-9, atol=1e-9)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    by_x, by_its_weight = torch.autograd.grad(plainly(*leaves), leaves, g)
    torch.testing.assert_close(input_gradient(g, weight), by_x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(weight_gradient(x, g, weight.shape[2]), by_its_weight, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize(("kernel", "size"), [(3, (8, 5)), (5, (3, 9)), (5, (1, 1))])
def test_gradients_of_gradients_are_the_same(
    monkeypatch: pytest.MonkeyPatch, kernel: int, size: tuple[int, int], ours: bool
) -> None:
    monkeypatch.setattr(winograd, "_multiplications", lambda *_, **__: (1, 0) if ours else (0, 1))
    tensors = random(3, 16, *size) / 4, random(32, 16, kernel, kernel, seed=1) / 4

    def gradients(operation: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        first = torch.autograd.grad(operation(*leaves).sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum((f.sin().sum() for f in first), torch.zeros(())), leaves, create_graph=True)
        return *first, *second, *torch.autograd.grad(sum((s.sin().sum() for s in second), torch.zeros(())), leaves)

    for one, other in zip(gradients(convolve), gradients(plainly), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_gradients_have_gradients() -> None:
    x, g = random(2, 16, 6, 6).requires_grad_(), random(2, 32, 6, 6, seed=1).requires_grad_()
    weight, h = random(32, 16, 3, 3, seed=2).requires_grad_(), random(32, 16, 3, 3, seed=3)
    by_x, by_its_weight = torch.autograd.grad(plainly(x, weight), (x, weight), g, create_graph=True)
    for found, expected, leaves, by in (
        (by_input(g, weight), by_x, (g, weight), x.detach()),
        (by_weight(x, g, 3), by_its_weight, (x, g), h),
    ):
        ours, theirs = (torch.autograd.grad(made, leaves, by, retain_graph=True) for made in (found, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", [3, 5])
def test_single_precision_is_kept(kernel: int) -> None:
    x, weight = random(40, 64, 14, 14, numbers=torch.float32), random(96, 64, kernel, kernel, numbers=torch.float32)
    g = random(40, 96, 14, 14, seed=2, numbers=torch.float32)
    exact = plainly(x.double(), weight.double())
    assert (outputs(x, weight) - exact).abs().max() < 3e-5 * exact.abs().max()
    leaves = x.double().requires_grad_(), weight.double().requires_grad_()
    exact, exact_by_weight = torch.autograd.grad(plainly(*leaves), leaves, g.double())
    assert (input_gradient(g, weight) - exact).abs().max() < 3e-5 * exact.abs().max()
    assert (weight_gradient(x, g, kernel) - exact_by_weight).abs().max() < 1e-4 * exact_by_weight.abs().max()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (4, 9)])
def test_multiplications_are_those_with_what_is_not_padding(kernel: int, size: tuple[int, int]) -> None:
    x = torch.ones(2, 16, *size)
    ones = F.conv2d(x, torch.ones(32, 16, kernel, kernel), padding=kernel // 2)
    assert winograd._multiplications(x, 32, kernel, tiles_more=0)[0] == ones.sum()


def assert_as_close_as_rounding(found: Tensor, plain: Tensor) -> None:
    assert (found - plain).abs().max() < 1e-4 * plain.abs().max()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the functions of the C file, as they are called by one thread."""
    called = list[str]()
    call = winograd._call

    def counted(name: str, *arguments: Any) -> Tensor:
        called.append(name)
        return call(name, *arguments)

    monkeypatch.setattr(winograd, "_call", counted)
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(0)  # weights are drawn from it
        yield called


class TestConvolution:
    X = random(8, 64, 14, 14, numbers=torch.float32)

    @pytest.mark.parametrize("bias", [True, False])
    def test_it_is_taken_and_changes_nothing(self, calls: list[str], bias: bool) -> None:
        module, x = Convolution(64, 48, 3, padding=1, bias=bias), self.X.clone().requires_grad_()
        found, plain = module(x), F.conv2d(x, module.weight, module.bias, padding=1)
        assert_as_close_as_rounding(found, plain)
        wanted = (x, *module.parameters())
        g = random(8, 48, 14, 14, seed=1, numbers=torch.float32)
        for one, other in zip(
            torch.autograd.grad(found, wanted, g), torch.autograd.grad(plain, wanted, g), strict=True
        ):
            assert_as_close_as_rounding(one, other)
        assert calls == ["weight_points", "forward", "turned_points", "by_input", "by_weight"]

    @pytest.mark.parametrize(
        "module",
        [
            Convolution(64, 48, 1),
            Convolution(64, 48, 3),
            Convolution(64, 40, 3, padding=1),
            Convolution(64, 48, (3, 5), padding=(1, 2)),
            Convolution(64, 48, 3, stride=2, padding=1),
            Convolution(64, 48, 3, padding=2, dilation=2),
            Convolution(64, 64, 3, padding=1, groups=64),
            Convolution(64, 48, 3, padding=1, padding_mode="reflect"),
            Convolution(64, 48, 3, padding="same"),
        ],
        ids=str,
    )
    def test_others_are_plain(self, calls: list[str], module: Convolution) -> None:
        plain = nn.Conv2d._conv_forward(module, self.X, module.weight, module.bias)
        assert torch.equal(module(self.X), plain)
        assert not calls

    def test_what_does_not_go_together_is_refused_as_ever(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        with pytest.raises(RuntimeError, match="to have 64 channels, but got 80 channels"):
            module(random(8, 80, 14, 14, numbers=torch.float32))
        with pytest.raises(RuntimeError, match="should be the same"):
            torch.func.functional_call(module, {"weight": module.weight.double()}, (self.X,))
        assert not calls

    def test_where_it_does_not_pay_it_is_plain(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        module(self.X[:1, :, :7, :7])
        module(self.X[:, :, :2, :2])
        assert not calls

    def test_it_is_plain_where_numbers_are_others(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(self.X).dtype == torch.bfloat16
        module.double()(self.X.double())
        assert not calls

    def test_a_backward_under_autocast_is_in_single_precision(self, calls: list[str]) -> None:
        module, x = Convolution(64, 48, 3, padding=1), self.X.clone().requires_grad_()
        y = module(x)
        expected = torch.autograd.grad(y.square().sum(), (x, module.weight), retain_graph=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = torch.autograd.grad(y.square().sum(), (x, module.weight))
        assert calls == ["weight_points", "forward", *["turned_points", "by_input", "by_weight"] * 2]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)

    def test_it_is_plain_for_who_looks_at_each_operation(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        with elementary():
            module(self.X)
        weights = torch.stack([module.weight.detach(), 2 * module.weight.detach()])
        mapped = torch.func.vmap(lambda weight: torch.func.functional_call(module, {"weight": weight}, (self.X,)))
        assert mapped(weights).shape == (2, 8, 48, 14, 14)
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            assert module(fake.from_tensor(self.X)).shape == (8, 48, 14, 14)
        assert not calls

    def test_more_threads_share_a_plain_one(self, calls: list[str]) -> None:
        torch.set_num_threads(2)
        Convolution(64, 48, 3, padding=1)(self.X)
        assert not calls

    def test_without_a_compiler_it_is_plain(self, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "compiled", lambda source, numbers: "no compiler")
        Convolution(64, 48, 3, padding=1)(self.X)
        assert not calls

    def test_a_map_in_any_layout_gives_the_same(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        assert torch.equal(module(self.X.contiguous()), module(self.X))
        assert calls == ["weight_points", "forward"] * 2

    def test_a_sample_is_answered_by_itself(self, calls: list[str]) -> None:
        module = Convolution(64, 48, 3, padding=1)
        assert torch.equal(module(self.X)[3:], module(self.X[3:]))
        assert calls == ["weight_points", "forward"] * 2

    def test_what_is_no_number_stays_none(self, calls: list[str]) -> None:
        x = self.X.clone()
        x[1, 3, 7, 7] = torch.nan
        found = Convolution(64, 48, 3, padding=1)(x)
        assert found[1, :, 6:9, 6:9].isnan().all()
        assert not found[0].isnan().any()
        assert calls


def test_slices_of_shared_weights_compute_what_the_extracted_network_does(calls: list[str]) -> None:
    space, images = Stages(size=32), channels_last(random(12, 1, 32, 32, numbers=torch.float32))
    supernet = SuperNet(space, space.initial_weights(torch.Generator().manual_seed(0)))
    for seed in range(3):
        architecture = space.sample(np.random.default_rng(seed))
        shared = supernet.features(architecture, supernet.weights(architecture), images, 4)
        assert torch.equal(supernet.extract(architecture)(images, 4), shared)
    assert "forward" in calls


class TestKeepingPoints:
    def test_a_weight_is_brought_to_its_points_once(self, calls: list[str]) -> None:
        x, weight = TestConvolution.X, random(48, 64, 3, 3, seed=1, numbers=torch.float32)

        def gradients() -> tuple[Tensor, ...]:
            leaves = x.clone().requires_grad_(), weight.detach().requires_grad_()
            return torch.autograd.grad(convolve(*leaves).square().sum(), leaves)

        expected = gradients()
        calls.clear()
        with keeping_points([weight]):
            found = [gradients(), gradients()]
        assert [calls.count(name) for name in ("weight_points", "turned_points", "forward", "by_input")] == [1, 1, 2, 2]
        for each in found:
            assert all(torch.equal(one, other) for one, other in zip(each, expected, strict=True))

    def test_a_part_that_begins_where_the_whole_does_has_its_own(self, calls: list[str]) -> None:
        x, whole = TestConvolution.X, random(48, 64, 5, 5, seed=1, numbers=torch.float32)
        part = whole[:32]
        assert part.data_ptr() == whole.data_ptr()
        expected = [convolve(x, weight) for weight in (whole, part)]
        with keeping_points([whole, part]):
            assert all(torch.equal(convolve(x, w), e) for w, e in zip((whole, part), expected, strict=True))
        with keeping_points([whole]):
            assert torch.equal(convolve(x, whole), expected[0])
            assert torch.equal(convolve(x, part), expected[1])

    def test_afterwards_a_weight_may_change(self, calls: list[str]) -> None:
        x, weight = TestConvolution.X, random(48, 64, 3, 3, seed=1, numbers=torch.float32)
        with keeping_points([weight]):
            before = convolve(x, weight)
        weight.mul_(2)
        with keeping_points([weight]):
            assert_as_close_as_rounding(convolve(x, weight), 2 * before)
        assert_as_close_as_rounding(convolve(x, weight), 2 * before)

    def test_other_weights_are_not_kept(self, calls: list[str]) -> None:
        x, weight = TestConvolution.X, random(48, 64, 3, 3, seed=1, numbers=torch.float32)
        with keeping_points([weight]):
            fast = weight.clone()
            convolve(x, fast)
            fast.mul_(2)
            assert_as_close_as_rounding(convolve(x, fast), 2 * convolve(x, weight))
        assert calls.count("weight_points") == 3
