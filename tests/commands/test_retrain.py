"""What stores say of a run's space: differences to the default network, on the same episodes and weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metanas.api import Evaluation
from metanas.assembly import make_space
from metanas.commands.retrain import gather
from metanas.run import RunFolder
from metanas.store import Store
from tests.runs import tiny_config

ONE = Evaluation(
    architecture=(), space="stages", generation=0, weights_version=9, split="validation", task="digits",
    episode=0, seed=0, params=10, macs=100, seconds=0.5, status="ok",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny_config(), resume=False)
    return folder


def test_differences_are_taken_on_the_same_episodes_of_one_run(run: RunFolder, tmp_path: Path) -> None:
    """Two runs of one seed in one store, whose episodes and numbers of weights are alike, but not their weights."""
    space = make_space(run.config)
    anchor, other = space.default, space.mutate(space.default, np.random.default_rng(0))
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    gaps = {"first": [0.1, 0.3], "second": [0.2, 0.5]}
    with Store(url) as store:
        for level, (name, own) in enumerate(gaps.items()):
            for episode, gap in enumerate(own):
                base = replace(ONE, architecture=anchor, episode=episode, accuracy=0.1 + 0.3 * level + 0.05 * episode)
                assert base.accuracy is not None
                store.add(name, [base, replace(base, architecture=other, accuracy=base.accuracy + gap)])
        failed = replace(ONE, architecture=anchor, episode=2, status="failed", error="Traceback")
        store.add("second", [failed, replace(ONE, architecture=other, episode=2, accuracy=0.9)])
    empty = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    rows, (refused,) = gather(run, [url, empty])
    assert refused == f"the store '{empty}' holds no evaluations; look at its URL, or search first."
    assert [target for architecture, _, target in rows if architecture == anchor] == [0.0, 0.0]
    found = [target for architecture, task, target in rows if architecture == other and task == "digits"]
    assert found == pytest.approx([0.2, 0.35])
