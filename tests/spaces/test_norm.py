"""Normalisations: the formula, independence of the queries, and the recorded statistics."""

import pytest
import torch
from torch import Tensor, nn

from metanas.spaces.norm import SHRINKAGE, SampleNorm, SupportNorm, record_statistics
from metanas.spaces.stages import Stages
from tests.reference import support_norm


def images(count: int, channels: int = 3, size: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.5, 3, count, dtype=torch.float64)[:, None, None, None]
    return scale * torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64) + scale


@pytest.mark.parametrize(("reference", "size"), [(1, 1), (1, 4), (5, 1), (5, 4), (8, 4)])
def test_it_is_the_mixture_of_support_and_own_statistics(reference: int, size: int) -> None:
    x = images(8, size=size)
    norm = SupportNorm(3).double()
    torch.testing.assert_close(norm(x, reference), support_norm(x, reference, SHRINKAGE), rtol=1e-12, atol=1e-12)


def test_with_a_large_support_set_it_is_batch_normalisation() -> None:
    x = images(400, size=16)
    batch = nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(SupportNorm(3).double()(x, len(x)), batch, rtol=0, atol=0.02)


def test_weight_and_bias_scale_and_shift() -> None:
    x, norm = images(6), SupportNorm(3).double()
    plain = norm(x, 4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    expected = plain * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x, 4), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [SupportNorm(3), SampleNorm(3)], ids=["support", "sample"])
def test_a_query_does_not_see_the_other_queries(norm: nn.Module) -> None:
    norm, x = norm.double(), images(9)
    changed = x.clone()
    changed[5:] = 100 * images(4, seed=1)
    assert torch.equal(norm(x, 4)[:5], norm(changed, 4)[:5])
    torch.testing.assert_close(norm(x[:5], 4), norm(x, 4)[:5], rtol=1e-12, atol=1e-12)


def test_only_the_support_norm_sees_the_support_set() -> None:
    x = images(9)
    changed = x.clone()
    changed[:4] = images(4, seed=1)
    assert not torch.allclose(SupportNorm(3).double()(x, 4)[4:], SupportNorm(3).double()(changed, 4)[4:])
    assert torch.equal(SampleNorm(3).double()(x, 4)[4:], SampleNorm(3).double()(changed, 4)[4:])


@pytest.mark.parametrize("normalisation", [0, 1], ids=["support", "sample"])
def test_recorded_statistics_answer_like_the_support_set_in_the_batch(normalisation: int) -> None:
    space = Stages(size=8, widths=((4, 8), (8, 16)))
    architecture = tuple(normalisation if gene in (4, 10) else value for gene, value in enumerate(space.default))
    network = space.build(architecture)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())) / 2)
    support, queries = images(6, 1, 8).float(), images(5, 1, 8, seed=1).float()
    with torch.no_grad():
        untouched = network(queries, 0)
        together = network(torch.cat([support, queries]), len(support))[len(support) :]
        torch.testing.assert_close(network(queries, 0), untouched, rtol=0, atol=0)  # nothing is recorded unasked
        record_statistics(network, True)
        network(support, len(support))
        record_statistics(network, False)
        one_by_one = torch.cat([network(query[None], 0) for query in queries])
        network(queries, len(queries))
        torch.testing.assert_close(network(queries, 0), together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one_by_one, together, rtol=1e-5, atol=1e-5)
    assert torch.allclose(untouched, together) == bool(normalisation)


def test_gradients_pass_through_the_support_statistics() -> None:
    """Second derivatives included: MAML differentiates twice."""
    norm, x = SupportNorm(2).double(), images(4, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, 3), (x,))
    assert torch.autograd.gradgradcheck(lambda x: norm(x, 3), (x,))


def test_sample_norm_takes_any_width() -> None:
    """Groups are of one size, of eight channels or more where eight do not divide the width."""
    assert {width: SampleNorm(width).groups for width in (3, 8, 12, 44, 60, 64)} == {
        3: 1, 8: 1, 12: 1, 44: 4, 60: 6, 64: 8
    }  # fmt: skip
    assert SampleNorm(44)(torch.rand(2, 44, 3, 3), 0).shape == (2, 44, 3, 3)
