"""What a space says of an architecture tells networks apart: between versions of a space, and within one."""

import numpy as np
import pytest

from metanas.spaces.cells import DARTS, Cells
from metanas.spaces.genes import neighbours
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages

VERSIONS = [
    (Stages(), Stages(norms=("sample", "support"))),
    (Stages(), Stages(widths=((32, 64, 96), (48, 64, 96), (48, 64, 96), (64, 96, 128)))),
    (Mobile(), Mobile(norm="sample")),
    (Cells(nodes=2), Cells(nodes=2, operations=DARTS[::-1])),
    (Cells(nodes=2, combine=("sum", "concat")), Cells(nodes=2, combine=("concat", "sum"))),
]


@pytest.mark.parametrize("versions", VERSIONS, ids=lambda pair: pair[0].name)
def test_the_same_genes_are_described_alike_where_they_build_the_same_network(versions: tuple[Space, Space]) -> None:
    one, other = versions
    rng = np.random.default_rng(0)
    differ = 0
    for _ in range(15):
        architecture = one.sample(rng)
        same = repr(one.build(architecture)) == repr(other.build(architecture))
        assert (one.describe(architecture) == other.describe(architecture)) == same
        differ += not same
    assert differ > 0


@pytest.mark.parametrize("space", [Stages(), Mobile(), Cells(nodes=2, combine=("sum", "concat"))], ids=lambda s: s.name)
def test_neighbours_that_are_described_alike_are_one_network(space: Space) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        architecture = space.sample(rng)
        for other in neighbours(space, architecture):
            if space.describe(other) == space.describe(architecture):
                assert space.canonical(other) == space.canonical(architecture)
