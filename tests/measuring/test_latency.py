"""The latency table against whole networks, on a clock that tests can read; and the objective by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import metanas.measuring.latency
from metanas.api import Candidate, Cost
from metanas.commands.candidates import candidates
from metanas.commands.retrain import retrain_predictor
from metanas.commands.training import train
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.measuring.latency import LatencyTable, check, foretell, measure
from metanas.parsing import parse
from metanas.search.objective import LatencyReward
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from predictors.saved import read_predictor
from predictors.versions import IN_USE
from tests.runs import TINY, tiny_config

SPACES: dict[str, Space] = {
    "mobile": Mobile(channels=3, widths=((4, 8), (8, 12)), strides=(1, 2), stem=8, features=16),
    "stages": Stages(channels=3, size=16, widths=((4, 8), (8, 12))),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes a nanosecond a multiply-accumulate of convolutions, and now and then does something else."""
    now, rng, convolve = [0.0], np.random.default_rng(0), nn.Conv2d.forward

    def forward(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
        output = convolve(layer, inputs)
        now[0] += 1e-9 * output.numel() * layer.weight[0].numel()
        now[0] += 1.0 if rng.random() < 0.01 else 0.0
        return output

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    monkeypatch.setattr(metanas.measuring.latency, "PASSES", 6)
    monkeypatch.setattr(metanas.measuring.latency, "FASTEST", 2)
    monkeypatch.setattr(metanas.measuring.latency.time, "thread_time", lambda: now[0])


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "space",
    [
        Mobile(channels=3, widths=((8,), (12,)), strides=(1, 2), expansions=(2,), depths=(1, 2), stem=8, features=16),
        Stages(channels=3, size=16, widths=((4,), (8,)), norms=("sample",), depths=(0, 1)),
    ],
    ids=["mobile", "stages"],
)
def test_the_blocks_of_some_networks_foretell_others(space: Space, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = list(dict.fromkeys(space.canonical(space.sample(rng)) for _ in range(60)))
    table = LatencyTable(space, 16, tmp_path / "latency.json")
    for architecture in drawn[:15]:
        table(architecture)
    known = dict(table.seconds)
    found = foretell(table, drawn[15:])
    assert 5 < len(found.measured) <= len(drawn) - 15
    assert len(set(found.measured.round(12))) > 3
    assert found.error < 1e-6
    assert abs(found.bias) < 1e-6
    assert table.seconds == known  # nothing of those networks was learned by heart
    again = LatencyTable(space, 16, tmp_path / "latency.json")
    assert again.seconds == known
    assert again(drawn[0]) == table(drawn[0])


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", SPACES)
def test_a_kept_table_says_how_far_off_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is a tenth slower whenever a network is measured whole."""
    whole = metanas.measuring.latency.measure
    monkeypatch.setattr(metanas.measuring.latency, "measure", lambda *asked: 1.1 * whole(*asked))
    space, path = SPACES[name], tmp_path / "latency.json"
    LatencyTable(space, 16, path)
    assert not path.exists()  # as a run is made before its folder is
    table = LatencyTable(space, 16, path)
    table(space.default)
    found = json.loads(path.read_text())
    assert found["check"] == table.checked
    assert found["check"]["networks"] >= 6
    assert found["check"]["median"] == pytest.approx(1 - 1 / 1.1)
    assert found["check"]["bias"] == pytest.approx(1 / 1.1 - 1)
    assert found["seconds"] == table.seconds
    again = LatencyTable(space, 16, path)
    assert again.checked == table.checked
    monkeypatch.setattr(metanas.measuring.latency, "check", None)
    assert again(space.default) == table(space.default)


@pytest.mark.usefixtures("clock")
def test_the_blocks_of_a_network_that_a_table_is_held_against_are_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    space, timed, whole = SPACES["mobile"], set(), set()
    ask = LatencyTable.__call__

    def noted(table: LatencyTable, architecture: tuple[int, ...]) -> float:
        (whole if table.knows(architecture) else timed).add(architecture)
        return ask(table, architecture)

    monkeypatch.setattr(LatencyTable, "__call__", noted)
    found = check(LatencyTable(space, 16), np.random.default_rng(0))
    assert len(found.measured) == len(found.predicted) >= 6
    assert found.median < 1e-6
    drawn = {space.canonical(space.sample(rng)) for rng in [np.random.default_rng(0)] for _ in range(8)}
    assert drawn & whole
    assert not drawn & timed


@pytest.mark.usefixtures("clock")
def test_what_is_in_the_table_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SPACES["mobile"]
    three_layers = tuple(2 if gene % 6 == 3 else value for gene, value in enumerate(space.default))
    table = LatencyTable(space, 16)
    first = table(three_layers)
    monkeypatch.setattr(metanas.measuring.latency, "_passes", None)
    assert (
        table(three_layers)
        == table(space.default[:6] + three_layers[6:])
        + table.seconds[next(key for key in table.seconds if key.startswith("8x8x8 MBConv") and "residual" in key)]
    )
    assert sum(table.seconds.values()) < first  # two layers of a stage are one block


@pytest.mark.usefixtures("clock")
def test_an_image_of_another_size_is_another_shape() -> None:
    space = SPACES["stages"]
    assert measure(space, space.default, 32) == pytest.approx(4 * measure(space, space.default, 16), rel=0.01)
    small, large = LatencyTable(space, 16), LatencyTable(space, 32)
    assert large(space.default) > 3 * small(space.default)
    assert not small.seconds.keys() & large.seconds.keys()


def test_a_real_network_takes_time() -> None:
    space = SPACES["mobile"]
    table = LatencyTable(space, 16)
    assert table(space.default) > 0
    assert all(seconds > 0 for seconds in table.seconds.values())


def test_bad_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match="space 'cells' are not; take the space stages or mobile"):
        LatencyTable(Cells(), 28)
    path = tmp_path / "latency.json"
    for broken in ("{", "[]", json.dumps({"seconds": {}})):
        path.write_text(broken)
        with pytest.raises(MetanasError, match="is no latency table"):
            LatencyTable(SPACES["mobile"], 16, path)
    path.write_text(json.dumps({"device": "a telephone", "seconds": {}}))
    with pytest.raises(MetanasError, match="was measured on 'a telephone'"):
        LatencyTable(SPACES["mobile"], 16, path)


@pytest.mark.parametrize(
    ("latency", "below", "above", "expected"),
    [
        (0.080, -0.07, -0.07, 0.75),
        (0.160, -0.07, -0.07, 0.75 * 2**-0.07),
        (0.040, -0.07, -0.07, 0.75 * 2**0.07),
        (0.040, 0.0, -1.0, 0.75),
        (0.160, 0.0, -1.0, 0.375),
    ],
)
def test_the_objective_by_hand(latency: float, below: float, above: float, expected: float) -> None:
    candidate = Candidate((1,), 0.75, Cost(1, 2, latency))
    rewarded = LatencyReward(0.080, below, above)(candidate)
    assert rewarded.accuracy == pytest.approx(expected)
    assert (rewarded.architecture, rewarded.cost) == (candidate.architecture, candidate.cost)
    assert LatencyReward(0.080, below, above).undo(rewarded).accuracy == pytest.approx(0.75)


def test_the_objective_needs_a_latency_and_a_target() -> None:
    with pytest.raises(ValueError, match="latency of \\(1,\\) was not measured"):
        LatencyReward(0.08)(Candidate((1,), 0.75, Cost(1, 2)))
    with pytest.raises(MetanasError, match=r"objective\.target must be above 0"):
        parse(RunConfig, TINY | {"objective": {"target": 0}}, "tiny")


OPTIONS = {"widths": [[4, 8], [8, 12]], "strides": [1, 2], "depths": [1, 2], "stem": 4, "features": 16}
SHORT = {"warmup_steps": 2, "widening_steps": 2, "generation_steps": [2], "settling_steps": []}


def searched(options: dict[str, Any]) -> Mobile:
    """The space of a run with these options."""
    return Mobile(**{key: tuple(map(tuple, v)) if key == "widths" else v for key, v in options.items()})


@pytest.mark.usefixtures("clock")
def test_a_run_maximises_the_reward(tmp_path: Path) -> None:
    """Finalists stand in the order of MnasNet's equation, by what the table says; what is shown is their accuracy."""
    space = searched(OPTIONS)
    target = 1e-9 * cost(space, space.default, 8).macs
    config = tiny_config(
        space={"name": "mobile", "options": OPTIONS},
        budget=SHORT,
        objective={"target": target, "below": 0.0, "above": -3.0},
    )
    run = train(config, tmp_path / "run")
    with run.store() as store:
        rows = [row for row in store.evaluations(run=run.id) if row.generation == 1]
    assert any(row.macs * 1e-9 > 1.1 * target for row in rows)
    table = LatencyTable(space, 8, run.path / "latency.json")
    for member in run.members:
        accuracies = [row.accuracy for row in rows if row.architecture == member.architecture]
        assert member.cost.latency == table(member.architecture)
        assert member.accuracy == pytest.approx(np.mean(accuracies))
    finalists = run.read_json("population.json")["finalists"]
    rewards = [row["accuracy"] * min(1.0, (row["latency"] / target) ** -3.0) for row in finalists]
    assert rewards == sorted(rewards, reverse=True)
    (best,) = [line["best"] for line in run.log() if line["event"] == "generation" and line["generation"] == 1]
    assert any(best == pytest.approx(np.mean([r.accuracy for r in rows if r.architecture == a])) for a in {
        row.architecture for row in rows})  # fmt: skip


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("rewarded", [False, True])
def test_a_limit_of_latency_holds_in_the_search_and_for_a_new_task(rewarded: bool, tmp_path: Path) -> None:
    space = searched(OPTIONS)
    most = 1.2e-9 * cost(space, space.default, 8).macs
    config = tiny_config(
        space={"name": "mobile", "options": OPTIONS},
        budget=SHORT,
        search=TINY["search"] | {"limits": {"latency": most}},
        objective={"target": most} if rewarded else None,
        adaptation=TINY["adaptation"] | {"candidates": 100},
    )
    run = train(config, tmp_path / "run")
    found = candidates(run, run.config).best()
    assert len(found) > len(run.members) > 1
    table = LatencyTable(space, 8, run.path / "latency.json")
    layout = dict(read_predictor(run.path / "predictor.safetensors")[0].data.table.layout)
    assert layout["latency"] == 1, "the predictor sees what the table says"
    assert all(table(architecture) <= most for architecture in (*found, *run.population))
    uniform = [space.sample(np.random.default_rng(seed)) for seed in range(20)]
    assert any(table(architecture) > most for architecture in uniform)


@pytest.mark.usefixtures("clock")
def test_a_predictor_may_ask_for_latency_that_nothing_else_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictors.choice.FEWEST", 5)
    config = tiny_config(
        space={"name": "mobile", "options": OPTIONS},
        budget=SHORT,
        predictor={"floor": -1.0, "blocks": ["architecture", "latency"]},
    )
    run = train(config, tmp_path / "run")
    saved = read_predictor(run.path / "predictor.safetensors")[0]
    assert saved.data.table.names == ("architecture", "latency")
    table = LatencyTable(searched(OPTIONS), 8, run.path / "latency.json")
    assert np.log(table(run.chosen)) in saved.data.table.block("latency")
    assert all(member.cost.latency == table(member.architecture) for member in run.members)
    assert candidates(run, run.config).table.names == ("architecture", "latency")
    for without, blocks in (((), ("architecture", "costs", "latency")), (("latency",), ("architecture", "costs"))):
        left_out = ["task", "zero-cost", *without]
        found = retrain_predictor([run], models=("bayesian ridge",), without=left_out)
        assert read_predictor(run.path / "predictors" / str(found.version) / IN_USE)[0].data.table.names == blocks


@pytest.mark.usefixtures("clock")
def test_latency_is_measured_where_a_strategy_counts_it_among_the_costs(tmp_path: Path) -> None:
    config = tiny_config(
        space={"name": "mobile", "options": OPTIONS},
        budget=SHORT,
        search=TINY["search"] | {"strategy": {"name": "evolution", "costs": ["latency"]}},
    )
    run = train(config, tmp_path / "run")
    table = LatencyTable(searched(OPTIONS), 8, run.path / "latency.json")
    assert all(member.cost.latency == table(member.architecture) for member in run.members)
