"""Whole runs: one seed gives one result, whatever interrupts it, however many workers compute it."""

import json
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from metanas.assembly import make_pool, make_samplers, make_space, precision_of
from metanas.commands.evaluation import evaluate
from metanas.commands.progress import describe
from metanas.commands.report import write_report
from metanas.commands.searching import search
from metanas.commands.training import train
from metanas.config import RunConfig, as_yaml, load_config
from metanas.errors import MetanasError
from metanas.learning.executor import RayActors
from metanas.learning.worker import Worker
from metanas.native import compiled
from metanas.run import RunFolder
from metanas.store import Store
from tests.runs import GENERATIONS, TINY, counted, results, rows, tiny_config, train_and_be_killed
from tests.searches import tiny_search, write_spots


class Interruption(Exception):
    """In place of a user's Control-C."""


def interrupt() -> None:
    raise Interruption


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(), out)
    return out


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    return results(folder)


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """One Ray for several runs."""
    with RayActors(partial(Worker, {}, {}), 0):
        yield


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints within a phase as well; the run of `folder` made none."""
    monkeypatch.setattr("metanas.search.loop.CHUNK", 1)
    monkeypatch.setattr("metanas.search.loop.CHECKPOINT", 2)


class TestResult:
    def test_every_generation_measures_all_on_the_same_episodes(self, folder: Path) -> None:
        found = rows(folder)
        assert {e.generation for e in found} == set(range(GENERATIONS))
        for generation in range(GENERATIONS):
            own = [e for e in found if e.generation == generation]
            by_architecture: dict[Any, list[int]] = {}
            for e in own:
                by_architecture.setdefault(e.architecture, []).append(e.episode)
            assert len(by_architecture) >= 3
            assert len({tuple(episodes) for episodes in by_architecture.values()}) == 1
            assert len({e.weights_version for e in own}) == 1
        per_generation = [{e.episode for e in found if e.generation == g} for g in range(GENERATIONS)]
        assert sum(map(len, per_generation)) == len(set.union(*per_generation))  # fresh episodes each time
        assert all(e.status == "ok" and e.params > 0 and e.macs > 0 and e.split == "validation" for e in found)

    def test_weights_are_trained_and_the_choice_is_a_finalist(self, folder: Path) -> None:
        population = json.loads((folder / "population.json").read_text())
        finalists = population["finalists"]
        assert population["chosen"] in [row["architecture"] for row in finalists]
        best = max(row["accuracy"] for row in finalists)
        assert next(r["accuracy"] for r in finalists if r["architecture"] == population["chosen"]) == best
        assert 1 <= len(population["population"]) <= TINY["search"]["population"]
        weights = load_file(folder / "weights.safetensors")
        assert all(np.isfinite(w).all() for w in weights.values())
        assert {"meta.scale", "meta.rate.head.weight"} <= set(weights)

    def test_the_log_tells_steps_generations_and_phases(self, folder: Path) -> None:
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        steps = [line for line in log if line["event"] == "steps"]
        assert [line["phase"] for line in steps] == ["warmup", "widening", *["generation"] * 3, *["settling"] * 2]
        assert [line["step"] for line in steps] == [6, 9, 12, 14, 17, 19, 20]
        generations = [line for line in log if line["event"] == "generation"]
        assert [line["generation"] for line in generations] == [0, 1, 2, 3]
        assert all(line["population"] for line in generations)
        assert generations[-1]["predictor"]["used"]
        assert generations[-1]["predictor"]["pruned"] > 0
        spans = [line["phase"] for line in log if line["event"] == "phase"]
        measured = ["weights", "fitness"]  # the finalists once more at the end of the last generation
        assert spans == ["weights", *measured * 4, "fitness", "weights", "weights"]
        seconds = [line["seconds"] for line in log]
        assert seconds == sorted(seconds)
        assert log[-1]["done"] == 1

    def test_the_folder_says_what_was_asked(self, folder: Path) -> None:
        assert as_yaml(RunFolder(folder).config) == as_yaml(tiny_config())
        versions = json.loads((folder / "versions.json").read_text())
        assert {"metanas", "torch", "python", "seed"} <= set(versions)


def test_images_are_smaller_in_warm_up_alone() -> None:
    config = tiny_config()
    samplers = make_samplers(config, make_pool(config, None))
    small, whole = samplers["warmup"].episode(5), samplers["train"].episode(5)
    assert (small.support_inputs.shape[2:], whole.support_inputs.shape[2:]) == ((6, 6), (8, 8))
    assert torch.equal(small.query_labels, whole.query_labels)


class TestDeterminism:
    @pytest.mark.usefixtures("_often")
    def test_the_same_seed_gives_the_same_run(self, expected: dict[str, Any], tmp_path: Path) -> None:
        train(tiny_config(), tmp_path / "run")
        assert results(tmp_path / "run") == expected

    def test_another_seed_gives_another_run(self, expected: dict[str, Any], tmp_path: Path) -> None:
        train(tiny_config(seed=1), tmp_path / "run")
        other = results(tmp_path / "run")
        assert other["weights"] != expected["weights"]
        assert [e.architecture for e in other["rows"]] != [e.architecture for e in expected["rows"]]

    @pytest.mark.usefixtures("_cluster")
    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_change_nothing(self, expected: dict[str, Any], tmp_path: Path, workers: int) -> None:
        train(tiny_config(workers=workers), tmp_path / "run")
        assert results(tmp_path / "run") == expected


class TestResume:
    @pytest.mark.parametrize("event", [1, 9, 17, 22, 24])
    @pytest.mark.usefixtures("_often")
    def test_an_interrupted_run_ends_the_same(self, expected: dict[str, Any], tmp_path: Path, event: int) -> None:
        out = tmp_path / "run"
        with pytest.raises(Interruption):
            train(tiny_config(), out, show=counted(interrupt, event))
        assert not (out / "population.json").exists()
        train(tiny_config(), out, resume=True)
        assert results(out) == expected

    @pytest.mark.usefixtures("_often")
    def test_it_may_be_interrupted_again_and_again(self, expected: dict[str, Any], tmp_path: Path) -> None:
        out, interruptions = tmp_path / "run", 0
        while not (out / "population.json").exists():
            try:
                train(tiny_config(), out, resume=True, show=counted(interrupt, 6))
            except Interruption:
                interruptions += 1
            assert interruptions < 20
        assert interruptions > 3
        assert results(out) == expected

    @pytest.mark.parametrize(("where", "at"), [("event", 12), ("record", GENERATIONS), ("file", 2), ("file", 8)])
    def test_a_killed_process_is_no_other(self, expected: dict[str, Any], tmp_path: Path, where: str, at: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.runs"])
        out = tmp_path / "run"
        process = context.Process(target=train_and_be_killed, args=(where, at, out))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (out / "population.json").exists()
        train(tiny_config(), out, resume=True)
        assert results(out) == expected

    @pytest.mark.usefixtures("_often")
    def test_it_goes_on_where_it_was_moved_to(self, expected: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(Interruption):
            train(tiny_config(), tmp_path / "run", show=counted(interrupt, 22))
        moved = (tmp_path / "run").rename(tmp_path / "moved")
        train(tiny_config(), moved, resume=True)
        assert results(moved) == expected

    def test_a_run_of_an_older_version_goes_on(self, expected: dict[str, Any], tmp_path: Path) -> None:
        """Its configuration lacks what has a default since, and it goes by the name of its folder."""
        out = tmp_path / "run"
        with pytest.raises(Interruption):
            train(tiny_config(), out, show=counted(interrupt, 1))
        content = yaml.safe_load((out / "config.yaml").read_text())
        del content["predictor"]["audit"], content["objective"]
        (out / "config.yaml").write_text(yaml.safe_dump(content))
        versions = json.loads((out / "versions.json").read_text())
        del versions["run"]
        (out / "versions.json").write_text(json.dumps(versions))
        train(tiny_config(), out, resume=True)
        assert results(out) == expected

    def test_it_goes_on_with_other_workers(self, folder: Path, expected: dict[str, Any], tmp_path: Path) -> None:
        out = shutil.copytree(folder, tmp_path / "run")
        train(tiny_config(workers=3), out, resume=True)
        assert RunFolder(out).config.workers == 3
        assert results(out) == expected

    def test_a_finished_run_is_left_as_it_is(self, folder: Path, expected: dict[str, Any]) -> None:
        shown: list[dict[str, Any]] = []
        train(tiny_config(), folder, resume=True, show=shown.append)
        assert results(folder) == expected
        assert not shown

    @pytest.mark.parametrize("name", ["weights.safetensors", "steps.json", "repeat.yaml", "population.json"])
    def test_a_result_that_was_lost_comes_back(
        self, folder: Path, expected: dict[str, Any], tmp_path: Path, name: str
    ) -> None:
        out = shutil.copytree(folder, tmp_path / "run")
        (out / name).unlink()
        train(tiny_config(), out, resume=True)
        assert (out / name).is_file()
        assert results(out) == expected

    def test_a_folder_of_other_things_is_left_as_it_is(self, tmp_path: Path) -> None:
        write_spots(tmp_path)
        (out := tmp_path / "mine").mkdir()
        (out / "weights.safetensors").write_text("mine")
        sought = tiny_search(tmp_path, evaluator={"name": "params"}, strategy={"name": "random"})
        for begin in (
            lambda: train(tiny_config(), out),
            lambda: train(tiny_config(), out, resume=True),
            lambda: search(sought, out),
        ):
            with pytest.raises(MetanasError, match=r"holds 'weights\.safetensors' and no config\.yaml"):
                begin()
        assert [(file.name, file.read_text()) for file in out.iterdir()] == [("weights.safetensors", "mine")]

    def test_a_folder_with_a_run_is_not_overwritten(self, folder: Path, expected: dict[str, Any]) -> None:
        with pytest.raises(MetanasError, match="already holds a run; continue it with --resume"):
            train(tiny_config(), folder)
        with pytest.raises(MetanasError, match=r"another configuration.*config\.yaml"):
            train(tiny_config(seed=7), folder, resume=True)
        assert results(folder) == expected


class TestStore:
    @pytest.mark.usefixtures("_often")
    def test_one_database_can_hold_several_runs(self, expected: dict[str, Any], tmp_path: Path) -> None:
        """Another run whose folder has the same name loses nothing, and counts for nothing."""
        url, others, out = f"sqlite:///{tmp_path / 'all.sqlite'}", expected["rows"][:7], tmp_path / "run"
        with Store(url) as store:
            store.add("run", others)
        with pytest.raises(Interruption):
            train(tiny_config(store=url), out, show=counted(interrupt, 22))
        train(tiny_config(store=url), out, resume=True)
        assert results(out) == expected
        assert not (out / "store.sqlite").exists()
        with Store(url) as store:
            assert store.evaluations(run="run") == others
            assert len(store.runs()) == 2
        page = write_report(RunFolder(out), lambda architecture: "<svg></svg>", str).read_text()
        assert f"{len(expected['rows'])} evaluations in the store" in page

    def test_a_database_that_cannot_be_opened_is_named_before_anything_is_written(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'missing' / 'all.sqlite'}"
        with pytest.raises(MetanasError, match=r"the store .*missing/all\.sqlite' cannot be opened"):
            train(tiny_config(store=url), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestData:
    @pytest.fixture
    def lines(self, tmp_path: Path) -> RunConfig:
        """A pool of three lines of digits in folders, one a split."""
        digits = load_digits()
        for line, first in (("train", 0), ("validation", 8), ("test", 16)):
            for label in range(3):
                place = tmp_path / "lines" / line / f"class {label}"
                place.mkdir(parents=True)
                for number, position in enumerate(np.flatnonzero(digits.target == label)[first : first + 8]):
                    pixels = (digits.images[position] * 15.9).astype(np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
        sources = [{"name": "lines", "kind": "folder", "path": str(tmp_path / "lines")}]
        splits = {"by": "task", **{split: [f"lines/{split}"] for split in ("train", "validation", "test")}}
        budget = {"warmup_steps": 2, "widening_steps": 1, "generation_steps": [1], "settling_steps": [1]}
        return tiny_config(pool={"name": "p", "sources": sources, "splits": splits}, budget=budget)

    def test_changed_data_is_told_by_resume_and_evaluate(self, lines: RunConfig, tmp_path: Path) -> None:
        out, shown = tmp_path / "run", list[dict[str, Any]]()
        with pytest.raises(Interruption):
            train(lines, out, show=counted(interrupt, 3))
        train(lines, out, resume=True, show=shown.append)
        noted = RunFolder(out).read_json("data.json")
        assert set(noted) == {"lines/train (train)", "lines/validation (validation)", "lines/test (test)"}
        assert not [event for event in shown if event["event"] == "note"]
        (tmp_path / "lines" / "train" / "class 1" / "3.png").unlink()
        shown.clear()
        train(lines, out, resume=True, show=shown.append)
        evaluate(RunFolder(out), show=shown.append)
        notes = [describe(event) for event in shown if event["event"] == "note"]
        assert len(notes) == 2
        for note in notes:
            assert note.startswith(f"the data of lines/train (train) is not what '{out}' began with")

    def test_what_is_put_right_before_the_first_step_is_no_change(self, lines: RunConfig, tmp_path: Path) -> None:
        out, shown, bad = tmp_path / "run", list[dict[str, Any]](), tmp_path / "lines" / "train" / "class 1" / "3.png"
        bad.write_bytes(bad.read_bytes()[:60])
        with pytest.raises(MetanasError, match=r"3\.png"):
            train(lines, out)
        bad.unlink()
        train(lines, out, resume=True, show=shown.append)
        assert not [event for event in shown if event["event"] == "note"]

    def test_a_search_tells_it_too(self, tmp_path: Path) -> None:
        write_spots(tmp_path)
        config = tiny_search(tmp_path, evaluator={"name": "params"}, strategy={"name": "random"})
        search(config, tmp_path / "found")
        spots, shown = dict(np.load(tmp_path / "spots.npz")), list[dict[str, Any]]()
        spots["images"][0] = 255 - spots["images"][0]
        np.savez(tmp_path / "spots.npz", **spots)
        search(config, tmp_path / "found", resume=True, show=shown.append)
        (note,) = map(describe, shown)
        assert note.startswith(f"the data of spots is not what '{tmp_path / 'found'}' began with")


class TestStrategies:
    @pytest.mark.parametrize(
        "strategy",
        [
            {"name": "regularized"},
            {"name": "guided", "initial": 2, "model": "forest"},
            {"name": "reinforce", "batch": 2},
            {"name": "asha", "over": {"name": "local", "starts": 2}, "rungs": [0.5, 1.0], "eta": 2},
        ],
        ids=lambda strategy: strategy["name"],
    )
    def test_any_strategy_runs_by_name_within_limits_and_resumes_exactly(
        self, tmp_path: Path, strategy: dict[str, Any]
    ) -> None:
        limits = {"params": 3000}
        config = tiny_config(
            search=TINY["search"] | {"strategy": strategy, "limits": limits},
            budget={"warmup_steps": 2, "widening_steps": 1, "generation_steps": [1, 1], "settling_steps": [1]},
        )
        train(config, tmp_path / "whole" / "run")
        with pytest.raises(Interruption):
            train(config, tmp_path / "broken" / "run", show=counted(interrupt, 9))
        train(config, tmp_path / "broken" / "run", resume=True)
        expected = results(tmp_path / "whole" / "run")
        assert results(tmp_path / "broken" / "run") == expected
        population = json.loads((tmp_path / "whole" / "run" / "population.json").read_text())
        assert population["population"]
        assert all(row["params"] <= 3000 for row in population["population"])
        measured = {e.architecture for e in expected["rows"] if e.status == "ok"}
        assert len(measured) > TINY["search"]["population"]

    def test_in_a_race_the_default_is_no_cheap_result(self, tmp_path: Path) -> None:
        """It is always measured in full, for the differences to it, and evolution proposes it first."""
        race = {"name": "asha", "over": {"name": "evolution"}, "rungs": [0.5, 1.0], "eta": 2}
        run = train(tiny_config(search=TINY["search"] | {"strategy": race}), tmp_path / "run")
        checkpoint = run.load_checkpoint()
        assert checkpoint is not None
        cheap = [tuple(row["architecture"]) for row in checkpoint[2]["standings"][0]]
        assert cheap
        assert make_space(run.config).default not in cheap

    def test_a_size_of_warm_up_that_no_network_takes_is_named_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(MetanasError, match=r"^warmup_size: space\.stages: 2 stages halve .* it is 3; give larger"):
            train(tiny_config(warmup_size=3), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_wrong_strategy_is_named_before_anything_is_written(self, tmp_path: Path) -> None:
        config = tiny_config(search=TINY["search"] | {"strategy": {"name": "annealing"}})
        with pytest.raises(MetanasError, match=r"search\.strategy: there is no strategy 'annealing'"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_limits_that_no_architecture_meets_end_the_run_with_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("metanas.strategies.archive.BEYOND", 20)
        config = tiny_config(search=TINY["search"] | {"limits": {"params": 10}})
        with pytest.raises(MetanasError, match=r"limits: none of 20 architectures .* within params 10; the closest"):
            train(config, tmp_path / "run")


class TestPrecision:
    """`auto` is settled where a run begins: what goes on from its folder computes alike on any machine."""

    @pytest.mark.parametrize(
        ("method", "steps", "precision"),
        [
            ("maml", 1, "float32"),
            ("difference", 2, "float32"),
            ("maml", 0, "bfloat16"),
            ("fomaml", 1, "bfloat16"),
            ("anil", 1, "bfloat16"),
        ],
    )
    def test_second_derivatives_of_the_body_are_in_single_precision(
        self, monkeypatch: pytest.MonkeyPatch, method: str, steps: int, precision: str
    ) -> None:
        monkeypatch.setattr("metanas.assembly.native_precision", lambda device: "bfloat16")
        inner = TINY["inner"] | {"method": method, "steps": steps}
        assert precision_of(tiny_config(precision="auto", inner=inner)) == precision
        assert precision_of(tiny_config(precision="bfloat16", inner=inner)) == "bfloat16"

    @pytest.mark.parametrize(("native", "other"), [("bfloat16", "float32"), ("float32", "bfloat16")])
    def test_a_run_resumed_elsewhere_goes_on_in_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: str, other: str
    ) -> None:
        train(tiny_config(precision=native), tmp_path / "whole" / "run")
        config, out = tiny_config(precision="auto"), tmp_path / "broken" / "run"
        monkeypatch.setattr("metanas.assembly.native_precision", lambda device: native)
        with pytest.raises(Interruption):
            train(config, out, show=counted(interrupt, 9))
        assert load_config(out / "config.yaml").precision == native
        monkeypatch.setattr("metanas.assembly.native_precision", lambda device: other)
        train(config, out, resume=True)
        assert load_config(out / "repeat.yaml").precision == native
        assert results(out) == results(tmp_path / "whole" / "run")


def test_a_machine_without_a_compiler_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", "no-such-compiler")
    compiled.cache_clear()
    try:
        with pytest.raises(Interruption):
            train(tiny_config(), tmp_path / "run", show=counted(interrupt, 1))
    finally:
        compiled.cache_clear()
    (line,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "note"
    assert "no-such-compiler" in describe(json.loads(line))


class TestMinutes:
    def test_a_run_by_minutes_repeats_by_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("metanas.search.loop.CHUNK", 2)
        timed = tiny_config(budget=TINY["budget"] | {"minutes": 0.04})
        train(timed, tmp_path / "timed")
        repeat = load_config(tmp_path / "timed" / "repeat.yaml")
        assert repeat.budget.minutes is None
        assert len(repeat.budget.generation_steps) == 3  # of no steps where the machine was too slow for one
        assert min(repeat.budget.steps[:2]) >= 2
        assert repeat.budget.steps != timed.budget.steps
        train(repeat, tmp_path / "repeated")
        assert results(tmp_path / "repeated") == results(tmp_path / "timed")


class TestMistakes:
    def test_a_pool_without_validation_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        splits = {key: value for key, value in TINY["pool"]["splits"].items() if key != "validation"}
        with pytest.raises(MetanasError, match=r"'digits' has no task in its validation split.*splits\.validation"):
            train(tiny_config(pool=TINY["pool"] | {"splits": splits}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_files_of_a_pool_that_are_no_images_are_told(self, tmp_path: Path) -> None:
        for label, number in product(range(6), range(7)):
            place = tmp_path / "line" / str(label) / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 10 * label + number, dtype=np.uint8)).save(place)
        notes = tmp_path / "line" / "3" / "notes.txt"
        notes.write_text("no image")
        pool = {
            "name": "line",
            "sources": [{"name": "line", "kind": "folder", "path": str(tmp_path / "line")}],
            "splits": {"by": "list", "train": {"line": ["0", "1", "2"]}, "validation": {"line": ["3", "4", "5"]}},
        }
        told: list[dict[str, Any]] = []

        def show(event: dict[str, Any]) -> None:
            told.append(event)
            interrupt()

        with pytest.raises(Interruption):
            train(tiny_config(pool=pool), tmp_path / "run", show=show)
        assert [event["event"] for event in told] == ["note"]
        assert describe(told[0]) == f"left out as no image: 1 file such as '{notes}'"

    def test_what_is_no_image_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        splits = TINY["pool"]["splits"] | {"train": {"digits": ["0", "1", "2"], "wine": "all"}}
        sources = [*TINY["pool"]["sources"], {"name": "wine", "kind": "sklearn", "set": "wine"}]
        with pytest.raises(MetanasError, match=r"the task 'wine' is tabular, and the networks .* take images"):
            train(tiny_config(pool={"name": "mixed", "sources": sources, "splits": splits}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_too_few_classes_are_named_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(MetanasError, match="ask for fewer ways"):
            train(tiny_config(validation={"ways": 4, "shots": 2, "queries": 5}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("options", [{"width": [[4]]}, {"widths": [[4, 8]] * 4}, {"widths": 3}])
    def test_wrong_options_of_the_space_are_named_before_anything_is_written(
        self, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        with pytest.raises(MetanasError, match=r"^space"):
            train(tiny_config(space={"options": options}), tmp_path / "run")
        assert not (tmp_path / "run").exists()
