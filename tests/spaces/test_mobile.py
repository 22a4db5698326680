"""The mobile space: its networks by hand, what they start as, and a whole run on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metanas.api import Cost
from metanas.assembly import CONV4, make_family, make_space
from metanas.commands.training import train
from metanas.errors import MetanasError
from metanas.learning.supernet import SuperNet
from metanas.measuring.cost import cost
from metanas.spaces.conv4 import Conv4
from metanas.spaces.mobile import GENES, Mobile
from tests.runs import tiny_config

SMALL = Mobile(channels=3, widths=((4, 8), (8, 12)), strides=(1, 2), expansions=(2, 3), stem=8, features=16)
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def genes(**changes: int) -> tuple[int, ...]:
    """The default of SMALL with genes of the last stage changed."""
    changed = list(SMALL.default)
    for name, value in changes.items():
        changed[len(GENES) + GENES.index(name)] = value
    return tuple(changed)


def initial_features(space: Mobile, architecture: tuple[int, ...]) -> Tensor:
    supernet = SuperNet(space, space.initial_weights(torch.Generator().manual_seed(1)))
    with torch.no_grad():
        return supernet.extract(architecture)(IMAGES, 3)


def test_cost_by_hand() -> None:
    """The stem at 8x8 pixels, stage 1 (two layers of 8) at 8x8, stage 2 (one layer of 12, squeezed) at 4x4."""
    architecture = (0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0)
    stem, stem_macs = 8 * 3 * 9, 64 * 8 * 3 * 9
    layer = 8 * 16 + 16 * 9 + 16 * 8  # expansion 2
    last = 8 * 24 + 24 * 25 + 24 * 12  # expansion 3, 5x5
    last_macs = 64 * 8 * 24 + 16 * (24 * 25 + 24 * 12)
    gate = 24 * 2 + 2 * 24
    head = 12 * 16
    norms = 2 * (8 + 2 * (16 + 16 + 8) + (24 + 24 + 12) + 16)
    params = stem + 2 * layer + last + gate + (2 + 24) + head + norms
    macs = stem_macs + 2 * 64 * layer + last_macs + gate + 16 * head
    assert cost(SMALL, architecture, 16) == Cost(params, macs)


@pytest.mark.parametrize("changes", [{"depth": 2}, {"squeeze": 1}, {"kernel": 1}, {"depth": 1, "squeeze": 1}])
def test_what_was_never_trained_begins_where_the_trained_network_stands(changes: dict[str, int]) -> None:
    """More layers with skips, attention and a larger kernel do nothing before they learn."""
    plain, more = genes(depth=0), genes(**({"depth": 0} | changes))
    assert more != plain
    torch.testing.assert_close(initial_features(SMALL, more), initial_features(SMALL, plain), rtol=0, atol=1e-6)


def test_layers_without_skips_are_no_identity() -> None:
    assert not torch.allclose(initial_features(SMALL, genes(depth=1, skip=1)), initial_features(SMALL, genes(depth=0)))


def test_small_layers_are_a_part_of_the_large_ones() -> None:
    shared = SMALL.initial_weights(torch.Generator().manual_seed(0))
    supernet = SuperNet(SMALL, {name: torch.arange(w.numel()).reshape(w.shape) for name, w in shared.items()})
    small, large = supernet.weights(genes(kernel=0)), supernet.weights(genes(kernel=1, expansion=1))
    name = "stages.1.0.depthwise.weight"
    assert (small[name].shape, large[name].shape) == ((16, 1, 3, 3), (24, 1, 5, 5))
    assert torch.equal(small[name], large[name][:16, :, 1:4, 1:4])
    assert small[name].untyped_storage().data_ptr() == large[name].untyped_storage().data_ptr()


def test_strides_set_the_resolution() -> None:
    network, shapes = SMALL.build(genes(depth=2)), []
    for stage in network.stages:
        for layer in stage:
            layer.register_forward_hook(lambda module, arguments, output: shapes.append(output.shape[1:]))
    assert network(IMAGES, 3).shape == (5, 16)
    assert shapes == [(8, 8, 8)] * 2 + [(12, 4, 4)] * 3


def test_dropped_layers_leave_their_input() -> None:
    """Only layers with a skip are dropped: at a probability near 1 nothing is left of them."""
    deep, shallow = SMALL.build(genes(depth=2)), SMALL.build((0, 0, 0, 0, 1, 0, *genes(depth=0)[6:]))
    shallow.load_state_dict(deep.state_dict(), strict=False)
    with torch.no_grad():
        full = deep(IMAGES, 3)
        deep.drop_path, deep.generator = 1 - 1e-6, torch.Generator().manual_seed(0)
        torch.testing.assert_close(deep(IMAGES, 3), shallow(IMAGES, 3))
        assert not torch.allclose(full, shallow(IMAGES, 3))


def test_a_run_searches_it(tmp_path: Path) -> None:
    options = {"widths": [[4, 8], [8]], "strides": [1, 2], "depths": [1, 2], "stem": 4, "features": 16}
    config = tiny_config(
        space={"name": "mobile", "options": options},
        budget={"warmup_steps": 2, "widening_steps": 2, "generation_steps": [2], "settling_steps": []},
    )
    run = train(config, tmp_path / "run")
    space = make_space(config)
    assert space.name == "mobile"
    members = run.members
    assert len({space.canonical(member.architecture) for member in members}) == len(members) > 1
    for member in members:
        space.check(member.architecture)
        assert cost(space, member.architecture, config.image.size) == member.cost


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (1, 2)}, "4 stages need as many strides, but strides is \\[1, 2\\]"),
        ({"norm": "batch"}, "norm 'batch' must be one of support, sample"),
        ({"depths": (0, 1)}, "depths \\[0, 1\\] must be whole numbers of 1 or more, the smallest first"),
        ({"expansions": ()}, "expansions \\[\\] must be"),
        ({"widths": ((16, 8),) * 4}, "widths of stage 1 \\[16, 8\\] must be"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        Mobile(**settings)


def test_conv4_beside_it_normalises_as_it_does() -> None:
    config = tiny_config(space={"name": "mobile", "options": {"norm": "sample"}})
    family = make_family(config, CONV4)
    assert isinstance(family, Conv4)
    assert family.norm == "sample"


def test_samples_of_the_default_space_run() -> None:
    space, rng = Mobile(), np.random.default_rng(0)
    for _ in range(3):
        assert space.build(space.sample(rng))(torch.rand(2, 1, 9, 9), 2).shape == (2, 128)
