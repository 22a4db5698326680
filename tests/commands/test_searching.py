"""`metanas search` and `metanas enlarge`: every kind of search, interrupted and whole, here and on actors."""

import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from metanas.api import Architecture
from metanas.assembly import make_learner
from metanas.cli import main
from metanas.commands.enlarging import enlarge_run
from metanas.commands.searching import search
from metanas.config import EnlargeConfig, SearchConfig, as_yaml, read_config
from metanas.errors import MetanasError
from metanas.found import EnlargedFolder, SearchFolder, read_task
from metanas.learning.state import pack
from metanas.learning.supernet import SuperNet
from metanas.measuring.measures import Alone
from metanas.measuring.oneshot import OneShot, draw_paths
from metanas.measuring.standalone import accuracy, make_classifier, train_alone
from metanas.parsing import parse
from metanas.run import RunFolder, save_arrays
from metanas.search.darts import Darts, DartsSettings
from metanas.seeding import torch_stream
from metanas.spaces.cells import Cells
from tests.runs import counted, tiny_config
from tests.searches import (
    ALONE,
    CASES,
    TINY,
    Interruption,
    interrupt,
    log,
    results,
    search_and_be_killed,
    tiny_search,
)


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A search of every kind that nothing interrupted."""
    folders = {}
    for name, changes in CASES.items():
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        search(tiny_search(data, **changes), folders[name])
    return folders


@pytest.mark.parametrize("name", CASES)
class TestEverySearch:
    def test_what_was_found_is_trained_anew_and_reported(self, data: Path, found: dict[str, Path], name: str) -> None:
        folder = SearchFolder(found[name])
        result = folder.read_json("result.json")
        config = tiny_search(data, **CASES[name])
        _, parts = read_task(config, None)
        expected = make_classifier(Cells(1, **TINY["space"]["options"]), folder.chosen, 2, 8, 0)
        validation = train_alone(expected, parts.train, parts.validation, config.final, 0)[-1]
        network = folder.network()
        assert result["validation"] == validation
        assert result["test"] == accuracy(network, parts.test) == accuracy(expected, parts.test)
        assert torch.equal(network(parts.test.inputs, 0), expected(parts.test.inputs, 0))
        assert folder.config == config

    def test_every_evaluation_is_a_row_of_the_store(self, found: dict[str, Path], name: str) -> None:
        rows = results(found[name])["rows"]
        assert [row.split for row in rows if row.split == "final"] == ["final"]
        assert rows[-1].accuracy == results(found[name])["result"]["validation"]
        assert len(rows) - 1 == results(found[name])["result"]["evaluations"]
        assert all(row.status == "ok" and row.task == "spots" for row in rows)

    def test_an_interrupted_one_goes_on_to_the_same_result(
        self, data: Path, found: dict[str, Path], tmp_path: Path, name: str
    ) -> None:
        config, out = tiny_search(data, **CASES[name]), tmp_path / "run"
        with pytest.raises(Interruption):
            search(config, out, show=counted(interrupt, 2))
        assert not (out / "result.json").exists()
        search(config, out, resume=True)
        assert results(out) == results(found[name])


def test_a_killed_one_goes_on_to_the_same_result(data: Path, found: dict[str, Path], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.searches"])
    config, out = tiny_search(data, **CASES["enas"]), tmp_path / "run"
    process = context.Process(target=search_and_be_killed, args=(config, 3, out))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (out / "result.json").exists()
    search(config, out, resume=True)
    assert results(out) == results(found["enas"])


@pytest.fixture(scope="module")
def staged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchConfig, dict[str, Any]]:
    """ENAS where a last map of 2 x 2 positions is flattened or averaged: 4, 6, 16 or 24 features, and its results."""
    config = tiny_search(data, **CASES["enas"], space={"name": "stages", "options": {"widths": [[4, 6], [4, 6]]}})
    out = tmp_path_factory.mktemp("staged") / "run"
    search(config, out)
    state = SearchFolder(out).last()
    assert state is not None
    assert len([name for name in state[1] if name.startswith("meta.head.weight.")]) > 1
    assert all(row.status == "ok" for row in results(out)["rows"])
    return config, results(out)


@pytest.mark.parametrize("at", [2, 5])
def test_several_heads_go_on_to_the_same_result(
    staged: tuple[SearchConfig, dict[str, Any]], tmp_path: Path, at: int
) -> None:
    config, expected = staged
    with pytest.raises(Interruption):
        search(config, tmp_path / "run", show=counted(interrupt, at))
    search(config, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == expected


def test_actors_give_the_same_result(staged: tuple[SearchConfig, dict[str, Any]], tmp_path: Path) -> None:
    config, expected = staged
    search(config.model_copy(update={"workers": 1}), tmp_path / "run")
    assert results(tmp_path / "run") == expected


def test_a_finished_one_is_left_as_it_is(data: Path, found: dict[str, Path]) -> None:
    shown: list[dict[str, Any]] = []
    before = results(found["regularized"])
    search(tiny_search(data, **CASES["regularized"]), found["regularized"], resume=True, show=shown.append)
    assert results(found["regularized"]) == before
    assert not shown
    with pytest.raises(MetanasError, match=r"another configuration.*metanas search .*config\.yaml.*--resume"):
        search(tiny_search(data, **CASES["asha"]), found["regularized"], resume=True)


def test_the_most_accurate_is_taken(found: dict[str, Path]) -> None:
    rows = results(found["regularized"])["rows"][:-1]
    best = max(row.accuracy for row in rows)
    chosen = SearchFolder(found["regularized"]).chosen
    assert chosen in [row.architecture for row in rows if row.accuracy == best]
    assert len(rows) == TINY["budget"]["evaluations"]


def test_a_race_counts_shares_and_takes_one_that_was_measured_in_full(found: dict[str, Path]) -> None:
    rows = results(found["asha"])["rows"][:-1]
    full = {row.architecture for row in rows if row.split == "alone"}
    assert {row.split for row in rows} == {"alone", "alone at 0.5"}
    assert SearchFolder(found["asha"]).chosen in full
    spent = sum(1.0 if row.split == "alone" else 0.5 for row in rows)
    assert spent - 2 < TINY["budget"]["evaluations"] <= spent
    assert log(found["asha"], "round")[-1]["evaluations"] == spent


def test_one_shot_trains_all_steps_first(found: dict[str, Path]) -> None:
    assert {row.weights_version for row in results(found["one-shot"])["rows"][:-1]} == {10}


def test_enas_trains_between_rounds_and_compares_its_last_draws(data: Path, found: dict[str, Path]) -> None:
    rows = results(found["enas"])["rows"][:-1]
    by_round = [{row.weights_version for row in rows if row.generation == i} for i in range(4)]
    assert by_round == [{4}, {6}, {9}, {10}]  # two fifths at first, then by the evaluations made of five
    last = {row.architecture: row.accuracy for row in rows if row.generation == 3}
    assert last[SearchFolder(found["enas"]).chosen] == max(last.values())
    # The last ones were measured on the weights that were trained here, by the worker's copy of them.
    shared = OneShot(Cells(1, **TINY["space"]["options"]), read_task(tiny_search(data), None)[1], 0)
    state = SearchFolder(found["enas"]).last()
    assert state is not None
    assert state[0]["progress"]["round"] == 3
    shared.restore(state[1])
    assert shared.steps == 10
    for architecture, measured in last.items():
        assert shared.measure(architecture) == measured


def test_darts_is_that_of_its_steps(data: Path, found: dict[str, Path]) -> None:
    space = Cells(1, **TINY["space"]["options"])
    weights = space.initial_weights(torch_stream(0, "shared weights"))
    parts = read_task(tiny_search(data), None)[1]
    expected = Darts(SuperNet(space, weights), parts, DartsSettings(batch=8), 0)
    folder = SearchFolder(found["darts"])
    assert folder.chosen == expected.run(lambda steps: steps / 10)
    assert folder.read_json("result.json")["steps"] == 10
    assert folder.read_json("result.json")["skips"] == expected.skips


@pytest.mark.parametrize("stop", ["never", "skips", "eigenvalue"])
def test_a_collapse_is_in_the_result_and_in_the_last_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    """Of skip connections alone every epoch has too many, so no rule has an architecture of before."""
    space = TINY["space"] | {"options": TINY["space"]["options"] | {"operations": ["none", "skip_connect"]}}
    config = tiny_search(data, strategy={"name": "darts", "batch": 8, "stop": stop, "window": 3}, space=space)
    (tmp_path / "search.yaml").write_text(as_yaml(config))
    words = ["metanas", "search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "run")]
    monkeypatch.chdir(tmp_path)  # a working folder with a package of our name would be in the way
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    result = SearchFolder(tmp_path / "run").read_json("result.json")
    assert result["skips"] == [2] * len(result["skips"])
    assert result["skips"]
    assert result["collapsed"] is True
    assert result["kept"] is None
    assert len(result.get("eigenvalues", [])) == (len(result["skips"]) if stop == "eigenvalue" else 0)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("DARTS collapsed: too many skip connections (in the normal cell after each epoch: 2, ")
    assert log(tmp_path / "run", "darts")[-1]["collapsed"] is True


def test_minutes_end_a_search_early_but_not_before_the_first_round(data: Path, tmp_path: Path) -> None:
    budget = {"evaluations": 5, "minutes": 1e-9}
    search(tiny_search(data, **CASES["reinforce"] | {"budget": budget}), tmp_path / "run")
    assert results(tmp_path / "run")["result"]["evaluations"] == 2


def test_when_every_evaluation_fails_it_says_so(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Alone, architecture: Architecture, share: float) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Alone, "__call__", fail)
    with pytest.raises(
        MetanasError,
        match="all 5 evaluations of which one was to be chosen failed; the first error in the store is: "
        r"RuntimeError: out of memory$",
    ):
        search(tiny_search(data, **CASES["regularized"]), tmp_path / "run")
    with SearchFolder(tmp_path / "run").store() as store:
        assert ["out of memory" in (row.error or "") for row in store.evaluations()] == [True] * 5


def test_a_failed_one_is_not_chosen(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, failed = Alone.__call__, list[Architecture]()

    def fail(self: Alone, architecture: Architecture, share: float) -> float:
        if len(failed) < 3:
            failed.append(architecture)
            raise RuntimeError("out of memory")
        return measure(self, architecture, share)

    monkeypatch.setattr(Alone, "__call__", fail)
    search(tiny_search(data, **CASES["regularized"]), tmp_path / "run")
    assert SearchFolder(tmp_path / "run").chosen not in failed
    assert [line["failed"] for line in log(tmp_path / "run", "round")] == [2, 1, 0]


def test_limits_are_kept(data: Path, found: dict[str, Path], tmp_path: Path) -> None:
    costs = [row.params for row in results(found["regularized"])["rows"]]
    limits = {"params": float(np.median(costs))}
    search(tiny_search(data, **CASES["enas"], limits=limits), tmp_path / "run")
    assert all(row.params <= limits["params"] for row in results(tmp_path / "run")["rows"])


def test_a_warm_start_begins_with_the_weights_of_a_run(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "meta")
    run.begin(tiny_config(space=TINY["space"], seed=7), resume=False)
    learner = make_learner(run.config)
    save_arrays(run.path / "weights.safetensors", pack(learner))
    still = {"name": "alone", "training": {"epochs": 1, "rate": 0.0, "batch": 16}}
    config = tiny_search(data, evaluator=still | {"warm_start": str(run.path)})
    with pytest.raises(MetanasError, match=r"evaluator\.warm_start: the run .* has another space"):
        search(config.model_copy(update={"space": config.space.model_copy(update={"options": {}})}), tmp_path / "no")
    narrow = still | {"warm_start": str(run.path), "proxy": {"channels": 0.5}}
    with pytest.raises(MetanasError, match=r"proxy\.channels must be 1 where training starts from the weights"):
        search(tiny_search(data, evaluator=narrow, workers=1), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    search(config, tmp_path / "warm")
    parts = read_task(config, None)[1]
    rows = results(tmp_path / "warm")["rows"][:-1]
    space = Cells(1, **TINY["space"]["options"])
    for row in rows:
        network = make_classifier(space, row.architecture, 2, 8, 0, learner.supernet.shared)
        assert row.accuracy == train_alone(network, parts.train, parts.validation, config.evaluator.training, 0)[-1]


def test_a_warm_start_begins_with_the_shared_weights_of_a_search(
    data: Path, found: dict[str, Path], tmp_path: Path
) -> None:
    still = {"name": "alone", "training": {"epochs": 1, "rate": 0.0, "batch": 16}}
    budget = {"evaluations": 2}
    for name in ("regularized", "darts"):
        config = tiny_search(data, evaluator=still | {"warm_start": str(found[name])})
        with pytest.raises(MetanasError, match=r"evaluator\.warm_start: the search .* trained no shared weights"):
            search(config, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    config = tiny_search(data, evaluator=still | {"warm_start": str(found["one-shot"])}, budget=budget)
    search(config, tmp_path / "warm")
    space, parts = Cells(1, **TINY["space"]["options"]), read_task(config, None)[1]
    shared = OneShot(space, parts, 0)
    shared.run(lambda step: step / 10, draw_paths(space))
    for row in results(tmp_path / "warm")["rows"][:-1]:
        network = make_classifier(space, row.architecture, 2, 8, 0, shared.learner.supernet.shared)
        assert row.accuracy == train_alone(network, parts.train, parts.validation, config.evaluator.training, 0)[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "data: name a source, such as .*, or a table"),
        (
            {"data": {"name": "wine", "kind": "sklearn", "set": "wine"}},
            "'wine' is tabular, .*take images; name a source of",
        ),
        ({"task": "other"}, "task: name one of the tasks of the source 'spots', which has spots"),
        ({"strategy": {"name": "magic"}}, r"strategy: there is no 'magic'; name one of random.*, enas, darts"),
        ({"strategy": {"name": "regularized", "sample": 25}}, "sample must be from 1 to the population"),
        ({"strategy": {"name": "local", "magic": 1}}, "strategy: the strategy 'local' .*: key 'magic'"),
        ({"strategy": {"name": "darts", "order": 3}}, "strategy: 'darts': key 'order'"),
        ({"strategy": {"name": "darts", "batch": 0}}, r"strategy\.batch of 'darts' must be at least 1"),
        ({"strategy": {"name": "darts"}, "limits": {"params": 9}}, "DARTS measures no architecture, asks no predictor"),
        ({"strategy": {"name": "darts"}, "evaluator": ALONE}, "DARTS measures no architecture"),
        (
            {"strategy": {"name": "darts"}, "space": {"options": {"widths": [[4], [4]]}}},
            "DARTS relaxes the space 'cells'",
        ),
        ({"strategy": {"name": "enas"}, "evaluator": ALONE}, "evaluator: ENAS measures by shared weights"),
        ({"evaluator": {"name": "table"}}, "evaluator.name: 'table' looks up what 'table' names"),
        ({"evaluator": {"name": "synflow", "proxy": {"data": 0.5}}}, r"evaluator\.proxy belongs to alone, not to"),
        ({"evaluator": {"name": "alone", "batch": 3}}, r"evaluator\.batch belongs to .*synflow.*, not to 'alone'"),
        ({"evaluator": {"name": "alone", "warm_start": "nowhere"}}, "'nowhere' is no run"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MetanasError, match=message):
        search(tiny_search(data, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_variable_names_the_folder_of_the_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"name": "spots", "kind": "npz", "path": "spots.npz"}
    config = tiny_search(data, **CASES["reinforce"] | {"data": source, "budget": {"evaluations": 1}})
    monkeypatch.delenv("METANAS_DATA", raising=False)
    with pytest.raises(MetanasError, match=r"'spots\.npz' is not in"):
        search(config, tmp_path / "run")
    monkeypatch.setenv("METANAS_DATA", str(data))
    assert search(config, tmp_path / "run").finished
    with pytest.raises(MetanasError, match=r"'spots\.npz' is not in"):
        search(config, tmp_path / "other", data=tmp_path)


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"name": "x", "budget": {"generations": 3}}))
    with pytest.raises(MetanasError, match=r"search\.yaml: key 'budget\.generations': Unexpected keyword"):
        read_config(tmp_path / "search.yaml", SearchConfig)


class TestEnlarging:
    def larger(self, data: Path, **changes: Any) -> EnlargeConfig:
        source = {"name": "spots", "kind": "npz", "path": str(data / "spots.npz")}
        content = {"name": "larger", "data": source, "image": {"size": 12, "dark_ground": True}, "depth": 2, "width": 2}
        return parse(EnlargeConfig, content | {"final": {"epochs": 3, "batch": 16}} | changes, "larger")

    def test_cells_are_stacked_more_often_and_wider(self, data: Path, found: dict[str, Path], tmp_path: Path) -> None:
        config = self.larger(data)
        folder = enlarge_run(found["regularized"], config, tmp_path / "larger")
        small, result = SearchFolder(found["regularized"]), folder.read_json("result.json")
        assert folder.chosen == small.chosen
        assert result["macs"] > 4 * small.read_json("result.json")["macs"]
        network = EnlargedFolder(tmp_path / "larger").network()
        assert len(network.features.cells) == 5
        assert network.features.stem.weight.shape[0] == 8
        parts = read_task(config, None)[1]
        assert parts.test.inputs.shape[2:] == (12, 12)
        assert accuracy(network, parts.test) == result["test"] > 0.6
        assert result["image"] == {"size": 12, "channels": 1, "dark_ground": True}
        assert (tmp_path / "larger" / "config.yaml").read_text() == as_yaml(config)
        with pytest.raises(MetanasError, match="already holds a run"):
            enlarge_run(found["regularized"], config, tmp_path / "larger")

    def test_a_table_and_an_unfinished_search_have_nothing_to_enlarge(self, data: Path, tmp_path: Path) -> None:
        table = parse(SearchConfig, {"name": "t", "table": "cifar10", "budget": {"evaluations": 1}}, "t")
        search(table, tmp_path / "table", tables=data)
        with pytest.raises(MetanasError, match="searched a table"):
            enlarge_run(tmp_path / "table", self.larger(data), tmp_path / "larger")
        SearchFolder(tmp_path / "begun").begin(tiny_search(data), resume=False)
        with pytest.raises(MetanasError, match=r"has no result\.json, it did not finish; continue it with `metanas se"):
            enlarge_run(tmp_path / "begun", self.larger(data), tmp_path / "larger")
        RunFolder(tmp_path / "meta").begin(tiny_config(), resume=False)
        with pytest.raises(MetanasError, match=r"has no population\.json, it did not finish; .* `metanas train"):
            enlarge_run(tmp_path / "meta", self.larger(data), tmp_path / "larger")
        with pytest.raises(MetanasError, match="is no run"):
            enlarge_run(tmp_path / "nowhere", self.larger(data), tmp_path / "larger")
        assert not (tmp_path / "larger").exists()
