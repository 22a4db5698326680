"""`metanas search` where costs and benchmarks' tables come in: fidelities of a race, latency, MnasNet's objective."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metanas.commands.searching import search
from metanas.config import SearchConfig
from metanas.errors import MetanasError
from metanas.found import SearchFolder
from metanas.measuring.latency import LatencyTable
from metanas.parsing import parse
from metanas.spaces.mobile import Mobile
from metanas.tables import nasbench201
from tests.runs import counted
from tests.searches import ALONE, Interruption, interrupt, log, results, tiny_search

MOBILE = {"widths": [[4, 8], [4, 8]], "strides": [1, 2], "depths": [1, 2], "stem": 4, "features": 8}


class TestLatency:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("metanas.measuring.latency.PASSES", 3)
        monkeypatch.setattr("metanas.measuring.latency.FASTEST", 1)

    def test_a_task_maximises_the_reward_within_a_limit_and_goes_on_exactly(self, data: Path, tmp_path: Path) -> None:
        space = Mobile(1, **{key: tuple(map(tuple, v)) if key == "widths" else v for key, v in MOBILE.items()})
        known = LatencyTable(space, 8, tmp_path / "whole" / "run" / "latency.json")
        known.path.parent.mkdir(parents=True)
        rng = np.random.default_rng(0)
        seconds = sorted(known(space.sample(rng)) for _ in range(40))
        config = tiny_search(
            data,
            space={"name": "mobile", "options": MOBILE},
            strategy={"name": "regularized"},
            evaluator=ALONE,
            objective={"target": seconds[4], "below": 0.0, "above": -3.0},
            limits={"latency": seconds[30]},
        )
        search(config, tmp_path / "whole" / "run")
        (tmp_path / "broken" / "run").mkdir(parents=True)
        (tmp_path / "broken" / "run" / "latency.json").write_text(known.path.read_text())  # the clock repeats nothing
        with pytest.raises(Interruption):
            search(config, tmp_path / "broken" / "run", show=counted(interrupt, 2))
        search(config, tmp_path / "broken" / "run", resume=True)
        found = results(tmp_path / "whole" / "run")
        assert results(tmp_path / "broken" / "run") == found
        table = LatencyTable(space, 8, known.path)
        *rows, _ = found["rows"]
        assert all(table(row.architecture) <= seconds[30] for row in rows)
        rewards = {
            row.architecture: row.accuracy * min(1.0, (table(row.architecture) / seconds[4]) ** -3) for row in rows
        }
        chosen = tuple(found["result"]["architecture"])
        assert rewards[chosen] == pytest.approx(max(rewards.values()))
        assert log(tmp_path / "whole" / "run", "round")[-1]["best"] == pytest.approx(rewards[chosen])
        assert found["result"]["latency"] == table(chosen)

    def test_a_strategy_may_have_latency_among_its_costs(self, data: Path, tmp_path: Path) -> None:
        strategy = {"name": "asha", "rungs": [0.5, 1.0], "over": {"name": "evolution", "costs": ["latency"]}}
        changes = {"space": {"name": "mobile", "options": MOBILE}, "evaluator": {"name": "params"}}
        search(tiny_search(data, **changes, strategy=strategy), tmp_path / "run")
        assert SearchFolder(tmp_path / "run").read_json("result.json")["latency"] > 0
        assert (tmp_path / "run" / "latency.json").is_file()

    def test_a_table_counts_the_latency_of_the_device_that_is_named(self, data: Path, tmp_path: Path) -> None:
        table = nasbench201.load(data)["cifar10"].on("phone")
        content = {"name": "t", "table": "cifar10", "device": "phone", "budget": {"evaluations": 8}}
        asked = {"strategy": {"name": "evolution", "costs": ["latency"]}, "limits": {"latency": 12.0}}
        config = parse(SearchConfig, content | asked | {"objective": {"target": 2.0, "above": -2.0}}, "t")
        search(config, tmp_path / "run", tables=data)
        found = results(tmp_path / "run")
        costs = {row.architecture: table.cost(row.architecture).latency for row in found["rows"]}
        assert max(costs.values()) <= 12.0
        rewards = {
            row.architecture: row.accuracy
            * (costs[row.architecture] / 2) ** (-0.07 if costs[row.architecture] <= 2 else -2)
            for row in found["rows"]
        }
        chosen = tuple(found["result"]["architecture"])
        assert rewards[chosen] == pytest.approx(max(rewards.values()))
        assert found["result"]["latency"] == costs[chosen]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"table": "cifar10", "limits": {"latency": 1}},
                "device: latency is asked for, .* that of benchmark, phone",
            ),
            ({"table": "cifar10", "objective": {"target": 1}}, "device: latency is asked for"),
            (
                {"table": "cifar10", "strategy": {"name": "asha", "over": {"name": "evolution", "costs": ["latency"]}}},
                "device: latency is asked for",
            ),
            ({"table": "cifar10", "device": "abacus"}, "no latency on the device 'abacus'; it has benchmark, phone"),
            ({"table": "jigsaw", "limits": {"latency": 1}}, "'jigsaw' has no latency on any device"),
            ({"table": "jigsaw", "device": "phone"}, "no latency on the device 'phone'; it has none"),
            ({"table": None, "device": "phone"}, "device: a task's latency is measured on this device"),
            ({"table": None, "limits": {"latency": 1}}, "chains of blocks, which those of the space 'cells' are not"),
            (
                {"table": None, "strategy": {"name": "evolution", "costs": ["macs", "latency"]}},
                "chains of blocks, which those of the space 'cells' are not",
            ),
            (
                {"table": None, "objective": {"target": 1}, "evaluator": {"name": "naswot"}},
                "objective: it weighs accuracy, but the evaluator 'naswot' is a score",
            ),
            ({"table": None, "objective": {"target": 1}, "strategy": {"name": "darts"}}, "DARTS .* knows no costs"),
            ({"table": None, "objective": {"target": -1}}, r"objective\.target must be above 0"),
        ],
    )
    def test_what_cannot_be_timed_is_refused_before_anything_is_written(
        self, data: Path, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        def begin() -> None:
            task = changes["table"] is None
            config = tiny_search(data, **changes) if task else parse(SearchConfig, {"name": "t"} | changes, "t")
            search(config, tmp_path / "run", tables=data)

        with pytest.raises(MetanasError, match=message):
            begin()
        assert not (tmp_path / "run").exists()


class TestTables:
    @pytest.mark.parametrize("name", ["halving", "hyperband", "asha"])
    def test_a_race_climbs_the_fidelities_that_the_table_has(self, data: Path, tmp_path: Path, name: str) -> None:
        content = {"name": "t", "table": "cifar10", "strategy": {"name": name}, "budget": {"evaluations": 3}}
        config = parse(SearchConfig, content, "t")
        search(config, tmp_path / "run", tables=data)
        search(config, tmp_path / "run", tables=data, resume=True)
        rows = results(tmp_path / "run")["rows"]
        assert {row.split for row in rows} == {"table", "table at 0.06"}
        assert all(row.status == "ok" for row in rows)

    @pytest.mark.parametrize(
        ("table", "strategy", "message"),
        [
            (
                "cifar10",
                {"name": "asha", "rungs": [0.25, 1.0]},
                r"strategy\.rungs: the table 'cifar10' has measurements after 0\.06 and 1 of a training, but rungs is "
                r"\[0\.25, 1\.0\]",
            ),
            ("cifar10", {"name": "halving", "rungs": 0.06}, r"strategy\.rungs: .*, but rungs is 0\.06"),
            ("cifar10", {"name": "halving", "rungs": []}, "rungs must ascend from a share above 0 to 1"),
            (
                "jigsaw",
                {"name": "hyperband"},
                "'hyperband' needs cheap measurements, and the table 'jigsaw' has only full",
            ),
            ("jigsaw", {"name": "asha", "rungs": [1.0]}, "'asha' needs cheap measurements"),
        ],
    )
    def test_a_race_without_its_rungs_is_refused_before_anything_is_written(
        self, data: Path, tmp_path: Path, table: str, strategy: dict[str, Any], message: str
    ) -> None:
        config = parse(SearchConfig, {"name": "t", "table": table, "strategy": strategy}, "t")
        with pytest.raises(MetanasError, match=message):
            search(config, tmp_path / "run", tables=data)
        assert not (tmp_path / "run").exists()

    def test_a_table_is_looked_up(self, data: Path, tmp_path: Path) -> None:
        choice = {"name": "hyperband", "over": {"name": "local"}, "rungs": [0.06, 1.0], "eta": 4}
        content = {"name": "table", "table": "cifar100", "strategy": choice, "budget": {"evaluations": 6}, "seed": 2}
        config = parse(SearchConfig, content, "table")
        with pytest.raises(Interruption):
            search(config, tmp_path / "broken", tables=data, show=counted(interrupt, 2))
        for name in ("whole", "broken"):
            search(config, tmp_path / name, tables=data, resume=True)
        whole, broken = (results(tmp_path / name) for name in ("whole", "broken"))
        assert whole["result"] == broken["result"]
        assert whole["rows"] == broken["rows"]
        table = nasbench201.load(data)["cifar100"]
        shares = {"table": 1.0, "table at 0.06": 0.06}
        for row in whole["rows"]:
            assert row.accuracy == table.validate(row.architecture, shares[row.split])
        chosen = SearchFolder(tmp_path / "whole").chosen
        assert whole["result"]["test"] == table.test(chosen)
        assert table.validate(chosen) == max(row.accuracy for row in whole["rows"] if row.split == "table")
        with pytest.raises(MetanasError, match="holds no network: a table was searched"):
            SearchFolder(tmp_path / "whole").network()

    def test_limits_that_nothing_meets_are_an_error(self, data: Path, tmp_path: Path) -> None:
        content = {"name": "t", "table": "cifar10", "limits": {"macs": 1}, "strategy": {"name": "asha"}}
        with pytest.raises(MetanasError, match=r"limits: none of .* stays within macs 1"):
            search(parse(SearchConfig, content, "t"), tmp_path / "run", tables=data)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"table": "mnist"}, "there is no table 'mnist'; name one of cifar10"),
            ({"space": {"name": "cells"}}, "space: a table has its own"),
            ({"final": {"epochs": 3}}, "final: a table has its own"),
            ({"evaluator": {"name": "alone"}}, "evaluator: a table is looked up"),
            ({"strategy": {"name": "darts"}}, "strategy: 'darts' trains weights"),
            ({"strategy": {"name": "enas"}}, "strategy: 'enas' trains weights"),
        ],
    )
    def test_what_a_table_has_not_is_refused(
        self, data: Path, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        config = parse(SearchConfig, {"name": "table", "table": "cifar10"} | changes, "table")
        with pytest.raises(MetanasError, match=message):
            search(config, tmp_path / "run", tables=data)
        assert not (tmp_path / "run").exists()
