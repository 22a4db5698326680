"""What a run found, in a larger network on a larger data set."""

import pytest
import torch
from sklearn.datasets import load_digits

from metanas.commands.enlarging import enlarge
from metanas.commands.training import train
from metanas.learning.samples import Samples
from metanas.measuring.cost import cost
from metanas.measuring.standalone import Training
from metanas.run import RunFolder
from metanas.seeding import stream
from metanas.spaces.cells import Cells
from tests.runs import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Cells searched on grey images of 8 pixels."""
    config = tiny_config(
        space={"name": "cells", "options": {"nodes": 2, "width": 4, "reductions": 1}},
        budget={"warmup_steps": 1, "widening_steps": 1, "generation_steps": [], "settling_steps": []},
        search={"population": 2, "offspring": 2, "proposals": 2, "episodes": 1, "finalists": 1, "final_episodes": 1},
    )
    return train(config, tmp_path_factory.mktemp("runs") / "small")


def colour_digits() -> tuple[Samples, Samples]:
    """Digits of 10 pixels in colours that tell nothing."""
    found = load_digits(n_class=3)
    grey = torch.nn.functional.pad(torch.from_numpy(found.images).float()[:, None] / 16, (1, 1, 1, 1))
    tints = torch.rand(len(grey), 3, 1, 1, generator=torch.Generator().manual_seed(0))
    samples = Samples(grey * (0.5 + tints / 2), torch.from_numpy(found.target).long(), 3)
    part, rest = samples.split(0.3, stream(0, "split"))
    return part, rest


def test_cells_are_stacked_and_learn_a_larger_task(run: RunFolder) -> None:
    part, rest = colour_digits()
    larger = enlarge(run, part, rest, Training(epochs=3, batch=32, rate=1e-2), depth=2, width=2)
    assert isinstance(larger.space, Cells)
    assert larger.architecture == run.chosen
    assert (larger.space.stack, larger.space.width, larger.space.channels) == (2, 8, 3)
    small = Cells(nodes=2, width=4, reductions=1)
    assert larger.space.graphs(larger.architecture) == small.graphs(run.chosen)
    assert len(larger.network.features.cells) == 2 * 2 + 1
    before, after = cost(small, run.chosen, 10), cost(larger.space, run.chosen, 10)
    assert after.macs > 4 * before.macs
    assert len(larger.accuracies) == 3
    assert larger.accuracies[-1] > 0.6


def test_another_architecture_of_the_run_can_be_asked_for(run: RunFolder) -> None:
    part, rest = colour_digits()
    other = next(member.architecture for member in run.members if member.architecture != run.chosen)
    assert enlarge(run, part, rest, Training(epochs=1), architecture=other).architecture == other
