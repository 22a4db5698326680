"""The blocks that the architectures of a space give, each against what it is made from."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.samples import Samples
from metanas.measuring.cost import cost
from metanas.measuring.features import ArchitectureFeatures, blocks_of, chosen_blocks
from metanas.measuring.measures import ZeroCost
from metanas.measuring.scores import naswot, randomise, synflow
from metanas.measuring.standalone import make_classifier
from metanas.measuring.untrained import UntrainedScores
from metanas.seeding import torch_stream
from metanas.spaces.cells import Cells
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages

STAGES: Space = Stages(channels=1, size=8, widths=((4, 8), (4, 8)))
CELLS: Space = Cells(channels=1, nodes=2, width=4, reductions=1)


def drawn(space: Space, count: int = 4) -> list[Architecture]:
    return [space.sample(np.random.default_rng(seed)) for seed in range(count)]


def batch() -> Samples:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Samples(images, torch.tensor([0, 1, 2] * 2), 3)


@pytest.mark.parametrize(
    ("space", "plain"),
    [(STAGES, ("architecture", "costs")), (CELLS, ("architecture", "paths", "graph", "costs"))],
    ids=["stages", "cells"],
)
def test_blocks_are_those_of_the_space_and_leaving_out_changes_no_other(space: Space, plain: Sequence[str]) -> None:
    architectures = drawn(space)
    whole = ArchitectureFeatures(space, 8).table(architectures)
    assert whole.names == plain
    np.testing.assert_array_equal(whole.block("architecture"), [space.encode(a) for a in architectures])
    costs = [cost(space, a, 8) for a in architectures]
    np.testing.assert_array_equal(whole.block("costs"), np.log([(c.params, c.macs) for c in costs]))
    for name in plain:
        less = ArchitectureFeatures(space, 8, [other for other in plain if other != name]).table(architectures)
        assert less.layout == whole.without(name).layout
        np.testing.assert_array_equal(less.values, whole.without(name).values)


def test_the_adjacency_is_given_to_who_asks() -> None:
    table = ArchitectureFeatures(CELLS, 8, ["adjacency", "architecture"]).table(drawn(CELLS))
    assert table.names == ("architecture", "adjacency"), "in their own order"
    assert table.block("adjacency")[:, 1:].any(1).all()


@pytest.mark.parametrize("blocks", [["latency"], ["costs", "latency"], ["costs"]])
def test_the_latency_is_a_block_of_its_own(blocks: list[str]) -> None:
    architectures = drawn(STAGES)

    def latency(architecture: Architecture) -> float:
        return 1e-3 * (1 + sum(architecture))

    table = ArchitectureFeatures(STAGES, 8, blocks, latency).table(architectures)
    assert table.layout == tuple((name, {"costs": 2, "latency": 1}[name]) for name in blocks)
    if "latency" in blocks:
        np.testing.assert_allclose(table.block("latency"), np.log([[latency(a)] for a in architectures]))


def test_scores_are_those_of_the_untrained_network_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = UntrainedScores(STAGES, batch(), ["naswot", "synflow"], seed=3)
    architectures = drawn(STAGES, 3)
    found = ArchitectureFeatures(STAGES, 8, ["zero-cost"], scores=scores).table(architectures)
    assert found.layout == (("zero-cost", 2),)
    for row, architecture in zip(found.values, architectures, strict=True):
        by_hand = []
        for score in (naswot, synflow):
            network = make_classifier(STAGES, architecture, 3, 8, 3)
            randomise(network, torch_stream(3, "scores"))
            by_hand.append(np.log1p(score(network, batch())))
        np.testing.assert_allclose(row, by_hand, rtol=1e-6)

    def again(measure: ZeroCost, architecture: Architecture, share: float = 1.0) -> float:
        raise AssertionError(f"{architecture} was scored already")

    monkeypatch.setattr(ZeroCost, "__call__", again)
    np.testing.assert_array_equal(
        ArchitectureFeatures(STAGES, 8, ["zero-cost"], scores=scores)(architectures), found.values
    )


def test_images_that_cannot_be_told_apart_have_a_score_all_the_same() -> None:
    """NASWOT is minus infinity there, with which no model could be fitted."""
    same = Samples(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1] * 2), 2)
    assert UntrainedScores(STAGES, same, ["naswot"], 0)(STAGES.default).tolist() == [0.0]


def test_blocks_that_a_space_cannot_give_are_named() -> None:
    assert blocks_of(STAGES) == ("architecture", "costs", "latency", "zero-cost")
    assert "latency" not in blocks_of(CELLS), "whose networks are no chains of blocks"
    with pytest.raises(MetanasError, match=r"predictor\.blocks: the space 'stages' gives no block 'paths'; choose"):
        chosen_blocks(STAGES, ["costs", "paths"], "predictor.blocks")
    with pytest.raises(MetanasError, match=r"predictor\.blocks: no block is left to see architectures by"):
        chosen_blocks(STAGES, [], "predictor.blocks")
