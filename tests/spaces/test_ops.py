import pytest
import torch
from torch.nn import functional as F

from metanas.spaces.norm import SupportNorm
from metanas.spaces.ops import DARTS, NASNET, OPERATIONS, drop_path, scheduled_drop_path


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_registry_holds_what_the_papers_name() -> None:
    assert len(set(DARTS)) == 8
    assert len(set(NASNET)) == 14
    assert set(DARTS) | set(NASNET) == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 7, 8])
def test_size_and_channels(name: str, stride: int, size: int) -> None:
    operation = OPERATIONS[name](4, stride)
    side = -(-size // stride)
    assert operation(images(3, 4, size, size), 2).shape == (3, 4, side, side)


# With C = 4 channels a k x k convolution has k^2 C^2 weights, a separable one k^2 C + C^2, a normalisation 2 C.
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("none", 0),
        ("skip_connect", 0),
        ("max_pool_7x7", 0),
        ("avg_pool_5x5", 0),
        ("conv_1x1", 16 + 8),
        ("conv_3x3", 9 * 16 + 8),
        ("conv_3x3_dilated", 9 * 16 + 8),
        ("conv_1x3_3x1", 2 * 3 * 16 + 8),
        ("conv_1x7_7x1", 2 * 7 * 16 + 8),
        ("sep_conv_3x3", 2 * (9 * 4 + 16 + 8)),
        ("sep_conv_7x7", 2 * (49 * 4 + 16 + 8)),
        ("dil_conv_5x5", 25 * 4 + 16 + 8),
    ],
)
def test_number_of_weights(name: str, weights: int) -> None:
    assert sum(weight.numel() for weight in OPERATIONS[name](4, 1).parameters()) == weights


# The side of the square of output pixels that one input pixel can reach.
@pytest.mark.parametrize(
    ("name", "reach"),
    [
        ("skip_connect", 1),
        ("conv_1x1", 1),
        ("conv_3x3", 3),
        ("conv_3x3_dilated", 5),
        ("conv_1x3_3x1", 3),
        ("conv_1x7_7x1", 7),
        ("avg_pool_5x5", 5),
        ("sep_conv_3x3", 5),
        ("sep_conv_5x5", 9),
        ("sep_conv_7x7", 13),
        ("dil_conv_3x3", 5),
        ("dil_conv_5x5", 9),
    ],
)
def test_receptive_field(name: str, reach: int) -> None:
    operation = OPERATIONS[name](2, 1)
    for weight in operation.parameters():
        torch.nn.init.ones_(weight)
    # Recorded statistics of ever so many positions: the sample's own, which couple all positions, do not count.
    for module in operation.modules():
        if isinstance(module, SupportNorm):
            module.positions.fill_(1e30)
    x = torch.ones(1, 2, 21, 21, requires_grad=True)
    operation(x, 0)[0, 0, 10, 10].backward()
    rows, columns = x.grad[0].sum(0).nonzero(as_tuple=True)
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == reach


def test_pools_leave_the_outside_out() -> None:
    ones = torch.ones(1, 1, 5, 5)
    for name in ("avg_pool_3x3", "avg_pool_5x5", "max_pool_3x3"):
        torch.testing.assert_close(OPERATIONS[name](1, 1)(-ones, 0), -ones)


def test_relu_comes_first_and_normalisation_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metanas.spaces.norm.SHRINKAGE", 0.0)
    operation = OPERATIONS["conv_3x3"](4, 1)
    x = images(5, 4, 6, 6)
    y = operation(x, 5)
    torch.testing.assert_close(operation(F.relu(x), 5), y)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_drop_path_zeroes_samples_and_keeps_the_mean() -> None:
    x = torch.ones(20000, 2, 1, 1)
    y = drop_path(x, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(y[:, 0], y[:, 1])
    values = y[:, 0, 0, 0].unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.7]))
    # The mean of n draws has a deviation of sqrt(0.3 / 0.7 / n) = 0.0046.
    assert y.mean().item() == pytest.approx(1, abs=0.02)


def test_drop_path_of_zero_draws_nothing() -> None:
    x = images(3, 2, 4, 4)
    assert drop_path(x, 0.0, None) is x


def test_drop_path_never_uses_the_global_generator() -> None:
    with pytest.raises(ValueError, match="`generator` must be given"):
        drop_path(images(3, 2), 0.5, None)


def test_the_schedule_is_linear_and_stays_at_its_end() -> None:
    assert [scheduled_drop_path(0.4, step, 100) for step in (0, 25, 100, 150)] == [0, 0.1, 0.4, 0.4]
