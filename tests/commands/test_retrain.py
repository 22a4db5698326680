"""What stores say of a run's space: differences to the default network, on the same episodes and weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.commands.gathering import gather, observed_together
from metanas.commands.training import train
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.run import RunFolder
from metanas.store import Store
from tests.runs import TINY, tiny_config

ONE = Evaluation(
    architecture=(), space="stages", generation=0, weights_version=9, split="validation", task="digits",
    episode=0, seed=0, params=10, macs=100, seconds=0.5, status="ok",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny_config(), resume=False)
    return folder


def of(run: RunFolder, architecture: Architecture, **fields: object) -> Evaluation:
    """An evaluation of that network of a run's space, at its costs."""
    own = cost(make_space(run.config), architecture, run.config.image.size)
    return replace(ONE, architecture=architecture, params=own.params, macs=own.macs, **fields)  # type: ignore[arg-type]


def pair(run: RunFolder) -> tuple[Architecture, Architecture]:
    """The default network and another."""
    space = make_space(run.config)
    return space.default, space.mutate(space.default, np.random.default_rng(0))


def write(path: Path, *evaluations: Evaluation, run: str = "run") -> str:
    url = f"sqlite:///{path}"
    with Store(url) as store:
        store.add(run, evaluations)
    return url


def test_differences_are_taken_on_the_same_episodes_of_one_run(run: RunFolder, tmp_path: Path) -> None:
    """Two runs of one seed in one store, whose episodes and numbers of weights are alike, but not their weights."""
    anchor, other = pair(run)
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    gaps = {"first": [0.1, 0.3], "second": [0.2, 0.5]}
    with Store(url) as store:
        for level, (name, own) in enumerate(gaps.items()):
            for episode, gap in enumerate(own):
                base = of(run, anchor, episode=episode, accuracy=0.1 + 0.3 * level + 0.05 * episode)
                assert base.accuracy is not None
                store.add(name, [base, of(run, other, episode=episode, accuracy=base.accuracy + gap)])
        failed = of(run, anchor, episode=2, status="failed", error="Traceback")
        store.add("second", [failed, of(run, other, episode=2, accuracy=0.9)])
    empty = write(tmp_path / "empty.sqlite")
    rows, (bare, refused) = gather(run, [url, empty])
    assert bare.startswith(f"the store '{url}' holds 1 evaluations on episodes on which the default network")
    assert refused == f"the store '{empty}' holds no evaluations; look at its URL, or search first."
    assert [target for architecture, _, target in rows if architecture == anchor] == [0.0, 0.0]
    found = [target for architecture, task, target in rows if architecture == other and task == "digits"]
    assert found == pytest.approx([0.2, 0.35])


def test_networks_of_another_version_of_the_space_are_left_out_and_named(run: RunFolder, tmp_path: Path) -> None:
    """Wider stages and larger images, with as many genes and values: without a form only their costs tell."""
    anchor, other = pair(run)
    wider = RunFolder(tmp_path / "wider")
    wider.begin(tiny_config(space={"options": {"widths": [[8, 16], [8, 16]]}}), resume=False)
    larger = RunFolder(tmp_path / "larger")
    larger.begin(tiny_config(image={"size": 16}), resume=False)
    for foreign in (wider, larger):
        rows = [of(foreign, anchor, accuracy=0.5), of(foreign, other, accuracy=0.9)]
        url = write(foreign.path / "store.sqlite", *rows)
        with pytest.raises(MetanasError, match="2 evaluations of another version of the space 'stages'"):
            gather(run, [url])
        own = [replace(row, params=e.params, macs=e.macs) for row, e in ((r, of(run, r.architecture)) for r in rows)]
        kept, (refused,) = gather(run, [url, write(foreign.path / "own.sqlite", *own)])
        assert [target for _, _, target in kept] == pytest.approx([0.0, 0.4])
        assert f"of {rows[0].architecture} with {rows[0].params} parameters and {rows[0].macs} multiply-" in refused


def test_networks_that_cost_the_same_are_told_apart_by_their_form(tmp_path: Path) -> None:
    """Two runs whose `norms` stand in another order, and whose stores hold what their searches measured."""
    runs = []
    for norms in (["support", "sample"], ["sample", "support"]):
        space = TINY["space"]["options"] | {"norms": norms}
        train(tiny_config(space={"options": space}, workers=0), tmp_path / norms[0])
        runs.append(RunFolder(tmp_path / norms[0]))
    one, turned = runs
    with turned.store() as store:
        foreign = store.evaluations()
    space, size = make_space(one.config), one.config.image.size
    assert {(e.params, e.macs) == (cost(space, e.architecture, size).params, cost(space, e.architecture, size).macs)
            for e in foreign} == {True}  # fmt: skip
    with pytest.raises(
        MetanasError, match=rf"{len(foreign)} evaluations of another version of the space 'stages'.*3x3"
    ):
        gather(one, [turned.store_url])
    kept, (refused,) = gather(one, [one.store_url, turned.store_url])
    assert kept == gather(one, [one.store_url])[0]
    assert f"({make_space(turned.config).describe(foreign[0].architecture)}) with" in refused


def test_evaluations_without_the_default_network_are_counted(run: RunFolder, tmp_path: Path) -> None:
    anchor, other = pair(run)
    lone = write(tmp_path / "lone.sqlite", of(run, other, accuracy=0.5), of(run, other, episode=1, accuracy=0.6))
    with pytest.raises(
        MetanasError, match=r"lone\.sqlite' holds 2 evaluations on episodes on which the default network"
    ):
        gather(run, [lone])
    whole = write(tmp_path / "whole.sqlite", of(run, anchor, accuracy=0.2), of(run, other, accuracy=0.3))
    rows, (refused,) = gather(run, [whole, lone])
    assert len(rows) == 2
    assert "lone.sqlite" in refused


def test_what_is_read_twice_counts_once(run: RunFolder, tmp_path: Path) -> None:
    """A store that is named twice, and its copy."""
    anchor, other = pair(run)
    url = write(tmp_path / "one.sqlite", of(run, anchor, accuracy=0.2), of(run, other, accuracy=0.3))
    shutil.copyfile(tmp_path / "one.sqlite", tmp_path / "copy.sqlite")
    once, _ = gather(run, [url])
    rows, refused = gather(run, [url, url, f"sqlite:///{tmp_path / 'copy.sqlite'}"])
    assert rows == once
    assert [sentence.partition(" holds ")[2] for sentence in refused] == [
        "2 evaluations that were read before it: they count once."
    ] * 2


def test_together_are_means_over_tasks_one_a_generation(run: RunFolder, tmp_path: Path) -> None:
    anchor, other = pair(run)
    url = write(
        tmp_path / "tasks.sqlite",
        *(of(run, anchor, task=task, episode=i, accuracy=0.1) for i, task in enumerate("ab")),
        *(of(run, other, task=task, episode=i, accuracy=0.2 + 0.2 * i) for i, task in enumerate("ab")),
        of(run, anchor, generation=1, episode=5, accuracy=0.3),
        of(run, other, generation=1, episode=5, accuracy=0.3),
    )
    rows, _ = gather(run, [url], observed_together)
    assert {task for _, task, _ in rows} == {"all"}
    assert [target for architecture, _, target in rows if architecture == other] == pytest.approx([0.2, 0.0])
    assert len(gather(run, [url])[0]) == 6, "by task"


def test_the_named_runs_must_be_runs(tmp_path: Path, run: RunFolder) -> None:
    from metanas.commands.retrain import retrain_predictor

    with pytest.raises(MetanasError, match="is no run: it has no config"):
        retrain_predictor([run, RunFolder(tmp_path)])
    assert not (tmp_path / "store.sqlite").exists()
    other = RunFolder(tmp_path / "other")
    other.begin(
        tiny_config(space={"options": TINY["space"]["options"] | {"norms": ["sample", "support"]}}), resume=False
    )
    write(run.path / "store.sqlite", of(run, pair(run)[1], accuracy=0.4))
    with pytest.raises(MetanasError, match="holds 1 evaluations"):
        retrain_predictor([run, other])
    assert not (other.path / "store.sqlite").exists(), "other networks, though their costs are the same"
