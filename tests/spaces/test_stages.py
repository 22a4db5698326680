"""Elastic stages: which architectures are one network depends on how large the last map is."""

from typing import Any

import numpy as np
import pytest
import torch

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.spaces.stages import Stages

WIDTHS = ((4,), (4,), (4,), (4, 8))


def features(space: Stages, architecture: Architecture, images: torch.Tensor) -> torch.Tensor:
    """(N, D) with the shared weights that a seed draws."""
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    network = space.build(architecture)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(shared[name][space.slices(architecture)[name]])
        return network(images, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"widths": ((8, 4),) * 4},
            r"widths of stage 1 \[8, 4\] must be whole numbers of 1 or more, the smallest first",
        ),
        ({"widths": ((4,), (0, 4), (4,), (4,))}, r"widths of stage 2 \[0, 4\]"),
        ({"widths": (("a",),) * 4}, r"widths of stage 1 \['a'\]"),
        ({"depths": (1, 0)}, r"depths \[1, 0\] must be whole numbers of 0 or more"),
        ({"norms": ("sample", "sample")}, "must be some of support, sample, each once"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        Stages(**settings)


def test_the_default_has_no_more_depth_than_there_is() -> None:
    space = Stages(depths=(0,))
    space.check(space.default)


@pytest.mark.parametrize("size", [16, 17, 24, 28, 31, 32])
def test_readouts_are_one_network_where_they_give_the_same_features(size: int) -> None:
    space, rng = Stages(size=size, widths=WIDTHS), np.random.default_rng(size)
    images = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        grid = (*space.sample(rng)[:-1], 0)
        average = (*grid[:-1], 1)
        same = torch.equal(features(space, grid, images), features(space, average, images))
        assert (space.canonical(grid) == space.canonical(average)) == same == (size == 16)
        assert np.array_equal(space.encode(grid), space.encode(average)) == same
        for architecture in (grid, average):
            representative = space.canonical(architecture)
            torch.testing.assert_close(
                features(space, representative, images), features(space, architecture, images), rtol=0, atol=1e-6
            )
            assert cost(space, representative, size) == cost(space, architecture, size)
