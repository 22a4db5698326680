"""Pooling, normalisation and ReLU as one operation: compiled against tensor operations, and without a compiler."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from metanas import native
from metanas.native import compiled, elementary
from metanas.spaces import fused
from metanas.spaces.fused import Form, by_tensors, moments, normalise, pooled

Operation = Callable[[Tensor, Tensor, Tensor, Tensor | None, Form], Tensor]

pytestmark = pytest.mark.usefixtures("compiler")


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[Tensor, ...], Tensor | None, Form]:
    """Maps of any size, odd ones too, with every kind of statistics."""
    pool = draw(st.sampled_from([None, "ceil", "floor"]))
    least = 2 if pool == "floor" else 1
    height, width = draw(st.tuples(*[st.integers(least, 7)] * 2))
    samples, groups, channels = draw(st.sampled_from([(1, 1, 3), (3, 1, 4), (4, 2, 6), (2, 2, 2), (3, 1, 40)]))
    kind = draw(st.sampled_from(["own", "support", "recorded"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(samples, channels, height, width, dtype=torch.float64, generator=generator) + 0.5
    weight, bias = torch.randn(2, channels, dtype=torch.float64, generator=generator)
    mean, variance = torch.rand(2, channels, dtype=torch.float64, generator=generator)
    recorded = torch.stack([mean, variance + mean.square()]) if kind == "recorded" else None
    share = 0.0 if kind == "own" else draw(st.sampled_from([0.1, 0.75]))
    reference = 0 if kind == "recorded" else draw(st.integers(1, samples))
    return (x, weight, bias), recorded, Form(groups, reference, share, pool, draw(st.booleans()))


@given(case=cases())
def test_the_compiled_code_says_the_same(case: tuple[tuple[Tensor, ...], Tensor | None, Form]) -> None:
    (x, weight, bias), support, form = case
    torch.testing.assert_close(
        normalise(x, weight, bias, support, form), by_tensors(x, weight, bias, support, form), rtol=1e-9, atol=1e-9
    )


@given(case=cases())
def test_gradients_and_theirs_are_the_same(case: tuple[tuple[Tensor, ...], Tensor | None, Form]) -> None:
    tensors, support, form = case
    left = tensors[0] if form.pool is None else pooled(tensors[0], form.pool)
    mean, square = fused._mixture(moments(left), support, form)
    # Next to none, as that of a single number, its rounding errors are all that the gradients hold.
    assume(float((square - mean.square()).min()) > 1e-2)

    def gradients(operation: Operation) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        x, weight, bias = leaves
        loss = operation(x, weight, bias, support, form).sin().sum()
        plain = torch.autograd.grad(loss, leaves, retain_graph=True)
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        for one, other in zip(plain, first, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)
        return first, torch.autograd.grad(sum((g * g.detach().cos()).sum() for g in first), leaves)

    for ours, theirs in zip(gradients(normalise), gradients(by_tensors), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("numbers", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_group_normalisation_after_pooling(numbers: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(5, 64, 15, 14, generator=generator) + 1).to(numbers).requires_grad_()
    weight, bias = torch.randn(2, 64, generator=generator).requires_grad_()
    ours = normalise(x, weight, bias, None, Form(groups=8, pool="ceil", relu=True))
    exact = x.double()
    theirs = torch.relu(
        F.group_norm(F.max_pool2d(exact, 2, ceil_mode=True), 8, weight.double(), bias.double(), eps=fused.EPS)
    )
    assert ours.dtype == numbers
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
    back = torch.randn(ours.shape, generator=generator).to(numbers)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight, bias), back),
        torch.autograd.grad(theirs, (x, weight, bias), back.double()),
        strict=True,
    ):
        scale = float(other.abs().max())
        torch.testing.assert_close(one.double() / scale, other.double() / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("place", [(0, 0), (4, 2), (3, 4)])
def test_what_is_no_number_stays_none(place: tuple[int, int]) -> None:
    x = torch.zeros(2, 8, 5, 5)
    x[1, 3, *place] = torch.nan
    answered = normalise(x, torch.ones(8), torch.zeros(8), None, Form(groups=2, pool="ceil", relu=True))
    assert answered[1, :4].isnan().all()
    assert not answered[0].isnan().any()
    assert not answered[1, 4:].isnan().any()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_overflow_is_no_number_either(share: float) -> None:
    x = torch.rand(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    x[0] *= 3e19  # a diverged network, whose squares are beyond single precision
    support = Form(groups=1, reference=2, share=share)
    for form in (support, replace(support, relu=True, pool="ceil")):
        answered = normalise(x, torch.ones(8), torch.zeros(8), None, form)
        with elementary():
            expected = normalise(x, torch.ones(8), torch.zeros(8), None, form)
        assert torch.equal(answered.isnan(), expected.isnan())
        assert answered[0].isnan().all()
        assert answered[2:].isnan().any() == (share > 0)


def test_a_map_in_any_layout_gives_the_same() -> None:
    x = torch.randn(3, 16, 9, 8, generator=torch.Generator().manual_seed(0))
    weight, bias, form = torch.ones(16), torch.zeros(16), Form(groups=2, pool="floor")
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(x, weight, bias, None, form), normalise(last, weight, bias, None, form))


def test_who_looks_at_each_operation_sees_them() -> None:
    x, weight, bias = torch.randn(2, 4, 3, 3, requires_grad=True), torch.ones(4), torch.zeros(4)
    with elementary():
        seen = normalise(x, weight, bias, None, Form(relu=True))
    assert type(seen.grad_fn).__name__ == "ReluBackward0"
    assert type(normalise(x, weight, bias, None, Form(relu=True)).grad_fn).__name__ != "ReluBackward0"


class TestCompiled:
    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file of its own, as what was compiled once is kept."""
        monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "cache"))
        source = tmp_path / "twice.c"
        source.write_text('__attribute__((visibility("default"))) int bytes(void) { return 2 * sizeof(REAL); }\n')
        return source

    def test_it_is_made_once_for_each_type_and_kept(self, source: Path, tmp_path: Path) -> None:
        libraries = [compiled(source, numbers) for numbers in (torch.float32, torch.float64)]
        assert all(isinstance(library, ctypes.CDLL) for library in libraries)
        assert [library.bytes() for library in libraries if not isinstance(library, str)] == [8, 16]
        kept = sorted((tmp_path / "cache" / "native").iterdir())
        assert len(kept) == 2
        compiled.cache_clear()
        compiled(source, torch.float32)
        assert sorted((tmp_path / "cache" / "native").iterdir()) == kept

    def test_a_changed_source_is_compiled_again(self, source: Path, tmp_path: Path) -> None:
        compiled(source, torch.float32)
        source.write_text(source.read_text().replace("2 *", "3 *"))
        compiled.cache_clear()
        library = compiled(source, torch.float32)
        assert isinstance(library, ctypes.CDLL)
        assert library.bytes() == 12

    @pytest.mark.parametrize(
        ("compiler", "reason"), [("no-such-compiler", "no-such-compiler"), ("false", "exit status")]
    )
    def test_without_a_compiler_the_reason_is_told(
        self, source: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
    ) -> None:
        monkeypatch.setenv("CC", compiler)
        found = compiled(source, torch.float32)
        assert isinstance(found, str)
        assert reason in found

    def test_what_does_not_compile_says_where(self, source: Path) -> None:
        source.write_text("int bytes(void) { return }\n")
        found = compiled(source, torch.float32)
        assert isinstance(found, str)
        assert "twice.c" in found

    def test_a_folder_that_cannot_be_written_is_a_reason(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("METANAS_CACHE", str(source))
        assert isinstance(compiled(source, torch.float32), str)

    def test_normalising_goes_on_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x = torch.randn(2, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        weight, bias, form = torch.ones(8).double(), torch.zeros(8).double(), Form(2, 1, 0.3, "ceil", True)
        expected = normalise(x, weight, bias, None, form)
        monkeypatch.setattr(native, "compiled", lambda source, numbers: "no compiler")
        torch.testing.assert_close(normalise(x, weight, bias, None, form), expected)
