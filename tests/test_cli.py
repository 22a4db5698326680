"""The command line as a user meets it: a whole life of one small run, and what it says about mistakes."""

import errno
import importlib
import json
import os
import pkgutil
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from metanas.assembly import CONV4, RANDOM, make_learner
from metanas.cli import main
from metanas.commands.baselines import meta_train_alone
from metanas.commands.model import adapt, load_model, predict
from metanas.learning.transfer import fine_tune, from_scratch
from metanas.run import RunFolder
from metanas.seeding import torch_stream
from metanas.store import Store
from predictors.saved import read_predictor
from predictors.versions import Versions
from tests.runs import TINY
from tests.searches import TINY as SEARCH
from tests.searches import write_spots

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def metanas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command line in a fresh working folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metanas", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    command = [sys.executable, "-c", "from metanas.cli import main; main()", "train", config, "--out", out]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert "ETA" in result.stderr
    return out


def write_digits(folder: Path, classes: list[int], first: int, count: int) -> list[Path]:
    digits = load_digits()
    files = []
    for label in classes:
        place = folder / f"class {label}"
        place.mkdir(parents=True)
        for number, position in enumerate(np.flatnonzero(digits.target == label)[first : first + count]):
            file = place / f"{number}.png"
            Image.fromarray((digits.images[position] * 15.9).astype(np.uint8)).save(file)
            files.append(file)
    return files


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A new line of three classes with six images each, and ten unseen images of every class."""
    base = tmp_path_factory.mktemp("digits")
    write_digits(base / "new line", [7, 8, 9], 0, 6)
    return base / "new line", write_digits(base / "unseen", [7, 8, 9], 6, 10)


INTERRUPTIBLE = """
import signal
import metanas.search.loop
from metanas.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
metanas.search.loop.CHUNK, metanas.search.loop.CHECKPOINT = 1, 2
main()
"""


def test_ctrl_c_ends_with_one_sentence_and_the_run_goes_on(metanas: Command, config: Path, tmp_path: Path) -> None:
    run = ["train", str(config), "--out", "run", "--set", "budget.warmup_steps=100"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *run], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run/checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "metanas: interrupted; it goes on from its last checkpoint with --resume."
    assert "Traceback" not in err
    assert metanas(*run, "--resume")[0] == 0
    assert RunFolder(tmp_path / "run").read_json("steps.json")["warmup_steps"] == 100


def test_ctrl_c_in_evaluate_keeps_the_baselines_that_are_trained(
    metanas: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = tmp_path / "run", list[str]()
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("baselines"))

    def interrupted(network: str, *arguments: Any) -> None:
        asked.append(network)
        if network == RANDOM:
            raise KeyboardInterrupt
        meta_train_alone(network, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("metanas.commands.evaluation.meta_train_alone", interrupted)
        for _ in range(2):
            code, out, err = metanas("evaluate", run)
            assert (code, out) == (130, "")
            assert "interrupted; the same command goes on where it was." in err
    assert asked == [CONV4, RANDOM, RANDOM]
    assert metanas("evaluate", run)[0] == 0


class TestLife:
    def test_train_says_what_it_chose_as_json(self, metanas: Command, config: Path) -> None:
        code, out, _ = metanas("train", config, "--out", "run", "--seed", 3, "--set", "search.finalists=1", "--json")
        answer = json.loads(out)
        assert code == 0
        assert len(answer["finalists"]) in (1, 2)
        assert RunFolder(Path("run")).config.seed == 3
        assert RunFolder(Path("run")).config.search.finalists == 1

    def test_evaluate_compares_with_every_baseline_on_the_same_episodes(self, metanas: Command, trained: Path) -> None:
        code, out, _ = metanas("evaluate", trained)
        assert code == 0
        for method in ("metanas", "random architecture", "conv-4", "nearest prototype", "from scratch"):
            assert method in out
        (again,) = json.loads(metanas("evaluate", trained, "--json")[1])
        assert [len(method["accuracies"]) for method in again["methods"]] == [4] * 5
        assert again == RunFolder(trained).read_json("evaluation.json")[0]

    def test_report_is_one_file(self, metanas: Command, trained: Path) -> None:
        code, out, _ = metanas("report", trained, "--json")
        page = Path(json.loads(out)["report"]).read_text()
        assert code == 0
        assert "<svg" in page
        assert "http://" not in page.replace("http://www.w3.org", "")

    def test_adapted_model_answers_each_file_alone(
        self, metanas: Command, trained: Path, digits: tuple[Path, list[Path]]
    ) -> None:
        folder, files = digits
        code, out, _ = metanas("adapt", trained, folder, "--out", "model", "--json")
        adapted = json.loads(out)
        assert code == 0
        assert adapted["classes"] == ["class 7", "class 8", "class 9"]
        assert 0 <= adapted["expected"]["low"] <= adapted["expected"]["accuracy"] <= adapted["expected"]["high"] <= 1
        together = json.loads(metanas("predict", "model", *files, "--json")[1])
        alone = json.loads(metanas("predict", "model", files[4], "--json")[1])
        assert alone[0]["probabilities"] == pytest.approx(together[4]["probabilities"], abs=1e-6)
        right = [answer["class"] == Path(answer["file"]).parent.name for answer in together]
        assert np.mean(right) > 0.6  # a third by chance

    def test_one_image_a_class_has_no_expected_accuracy(self, metanas: Command, trained: Path, tmp_path: Path) -> None:
        write_digits(tmp_path / "line", [7, 8], 0, 1)
        code, out, _ = metanas("adapt", trained, "line", "--out", "model")
        assert code == 0
        assert "nothing can be held out" in out

    def test_the_pool_is_checked_for_what_the_configuration_draws(self, metanas: Command, config: Path) -> None:
        """Digits have 174 images a class and more; their test takes more, and --shots says otherwise."""
        asked = ("--set", 'test=[{"name": "t", "draw": {"ways": 3, "shots": 100, "queries": 100}}]')
        code, out, _ = metanas("pool", "check", config, *asked)
        assert code == 1
        assert "an episode takes 100 shots and 100 queries of a class" in out
        assert metanas("pool", "check", config, "--shots", 2, "--queries", 2, *asked)[0] == 0
        assert metanas("pool", "check", config)[0] == 0
        code, out, _ = metanas("pool", "check", config, "--set", "train.ways=9")
        assert (code, out.splitlines()[0].split()[0]) == (1, "error")
        assert "digits" in out.splitlines()[0]

    def test_images_of_one_board_say_nothing_of_each_other(
        self, metanas: Command, trained: Path, tmp_path: Path
    ) -> None:
        """Two boards of every class, of four images each; the second folder has one board of class 7."""
        for name, first in (("two", 4), ("one", 8)):
            for label, size in ((7, first), (8, 4)):
                for number, file in enumerate(write_digits(tmp_path / name, [label], 0, 8)):
                    file.rename(file.with_name(f"board{number // size}_{number}.png"))
        pattern = r"^(board\d+)_"
        code, out, _ = metanas("adapt", trained, "two", "--out", "model", "--groups", pattern, "--json")
        assert code == 0
        assert json.loads(out)["expected"]["samples"] == 16
        code, out, _ = metanas("adapt", trained, "one", "--out", "other", "--groups", pattern)
        assert code == 0
        assert "one image or one group, so that nothing can be held out" in out
        code, _, err = metanas("adapt", trained, "one", "--out", "third", "--groups", "shift")
        assert code == 2
        assert "groups 'shift' does not match the file name of" in err

    def test_retrained_predictor_is_used_unless_worse_and_can_be_rolled_back(
        self, metanas: Command, trained: Path
    ) -> None:
        before = (trained / "predictor.safetensors").read_bytes()
        code, out, err = metanas("predictor", "retrain", trained, "--json")
        assert code == 0, err
        found = json.loads(out)
        tau = found["report"]["held_out"]["architectures"]["taus"]["predictor"]
        assert -1 <= tau["low"] <= tau["tau"] <= tau["high"] <= 1
        assert found["version"] == 2
        (refused,) = found["refused"]
        assert refused == "the block 'task': it takes 3 tasks or more to learn how tasks differ."
        assert ((trained / "predictor.safetensors").read_bytes() != before) == found["promoted"]
        saved, _ = read_predictor(trained / "predictors" / "2" / "predictor.safetensors")
        assert saved.data.targets.shape == (found["report"]["rows"],)
        assert saved.space == "stages"
        code, out, err = metanas("predictor", "show", trained, "--json")
        shown = json.loads(out)
        assert [card["version"] for card in shown["versions"]] == [1, 2]
        assert shown["history"] == ([1, 2] if found["promoted"] else [1])
        held = shown["versions"][1]["held out"]["architectures"]
        assert held["taus"]["predictor"] == tau
        code, out, _ = metanas("predictor", "show", trained)
        assert f"on held-out architectures: tau {tau['tau']:.2f} (params " in out
        assert out.rstrip().endswith(held["verdict"])
        code, out, _ = metanas("predictor", "compare", trained, "1", "--json")
        assert code == 0
        assert set(json.loads(out)) == {"held_out_by", "old", "new", "difference", "p"}
        if found["promoted"]:
            assert metanas("predictor", "rollback", trained)[0] == 0
        assert (trained / "predictor.safetensors").read_bytes() == before
        code, out, err = metanas("predictor", "rollback", trained)
        assert code == 2
        assert "no earlier predictor version" in err
        versions = Versions(trained)
        twin = versions.read(1)
        fitted = twin.make().fit(twin.data.table.values, twin.data.targets)
        assert versions.add(twin, fitted, {"from": "the same"}) == 3
        code, out, _ = metanas("predictor", "promote", trained, "3", "--json")
        assert code == 0
        assert json.loads(out)["in_use"] == 3
        assert json.loads(out)["comparison"]["difference"] == 0.0
        code, out, _ = metanas("predictor", "show", trained)
        first, second, judged, third = out.splitlines()
        assert [line[0] for line in (first, second, third)] == [" ", " ", "*"]
        assert first.endswith("from the search itself")
        assert judged.startswith("    on held-out architectures: tau ")
        assert metanas("predictor", "rollback", trained)[1] == "version 1 is in use\n"
        assert (trained / "predictor.safetensors").read_bytes() == before
        code, out, err = metanas("predictor", "promote", trained, "9")
        assert code == 2
        assert "no predictor version 9" in err

    def test_evaluations_of_another_space_and_newer_stores_are_left_out_and_named(
        self, metanas: Command, trained: Path, tmp_path: Path
    ) -> None:
        mixed, newer = f"sqlite:///{tmp_path / 'mixed.sqlite'}", f"sqlite:///{tmp_path / 'newer.sqlite'}"
        with RunFolder(trained).store() as store:
            own = store.evaluations()[:40]
        with Store(mixed) as store:
            store.add("other", [replace(own[0], space="cells"), replace(own[0], architecture=(99,)), *own])
        with Store(newer):
            pass
        with sqlite3.connect(tmp_path / "newer.sqlite") as connection:
            connection.execute("UPDATE schema_version SET version = 99")
        code, out, err = metanas("predictor", "retrain", trained, "--store", mixed, "--store", newer, "--json")
        assert code == 0, err
        space, twice, odd, version, tasks = json.loads(out)["refused"]
        assert tasks.startswith("the block 'task'")
        assert "mixed.sqlite" in space
        assert "holds 1 evaluations of the space 'cells', this run's is 'stages'" in space
        assert "holds 40 evaluations that were read before it" in twice
        assert "1 evaluations of another version of the space 'stages', such as of (99,)" in odd
        assert "newer.sqlite" in version
        assert "has version 99" in version
        code, out, err = metanas("predictor", "show", trained, "--store", mixed)
        assert code == 0, err
        assert "measurements, 0 of what it has not learned from" in out
        assert out.count("left out: the store") == 2
        assert len(json.loads(metanas("predictor", "show", trained, "--store", mixed, "--json")[1])["refused"]) == 2
        strange = f"sqlite:///{tmp_path / 'strange.sqlite'}"
        with Store(strange) as store:
            store.add("other", [replace(e, task=f"line {number % 4}") for number, e in enumerate(own)])
        code, out, _ = metanas("predictor", "show", trained, "--store", strange)
        assert code == 0
        assert "retrain: 4 tasks are new to it, more than the 1 that it knows" in out

    def test_episodes_of_others(self, metanas: Command, trained: Path, tmp_path: Path) -> None:
        for number in range(3):
            write_digits(tmp_path / f"episodes/e{number}/support", [7, 8, 9], 0, 3)
            write_digits(tmp_path / f"episodes/e{number}/query", [7, 8, 9], 5 + number, 4)
        code, out, _ = metanas("evaluate", trained, "--episodes", "episodes", "--json")
        answer = json.loads(out)
        assert code == 0
        assert [row["episode"] for row in answer["episodes"]] == ["e0", "e1", "e2"]
        assert answer["accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in answer["episodes"]]))
        for number in (1, 2):
            shutil.rmtree(tmp_path / f"episodes/e{number}")
        one = json.loads(
            metanas("evaluate", trained, "--episodes", "episodes", "--json")[1], parse_constant=pytest.fail
        )
        assert one == {
            "accuracy": answer["episodes"][0]["accuracy"],
            "interval": None,
            "episodes": answer["episodes"][:1],
        }
        first = metanas("evaluate", trained, "--episodes", "episodes")[1].splitlines()[0]
        assert first == f"accuracy {one['accuracy']:.2%} over 1 episode"

    def test_pool_check_says_what_to_do(self, metanas: Command, config: Path) -> None:
        assert metanas("pool", "check", config, "--shots", 2, "--queries", 5)[0] == 0
        code, out, _ = metanas("pool", "check", config, "--shots", 200, "--json")
        assert code == 1
        assert any("add" in finding["to_do"] for finding in json.loads(out))

    def test_pool_check_looks_at_the_pool_that_a_run_would_have(self, metanas: Command, tmp_path: Path) -> None:
        for number, line in enumerate("abc"):
            write_digits(tmp_path / "lines" / line, [0, 1], 10 * number, 10)
        pool = {
            "name": "lines",
            "sources": [{"name": "lines", "kind": "folder", "path": "lines"}],
            "splits": {"by": "task", "train": ["lines/a", "lines/b"], "validation": ["lines/c"]},
        }
        draw = {"ways": 2, "shots": 2, "queries": 2}
        episodes = {"train": draw, "validation": draw, "test": [{"name": "both classes", "draw": draw}]}
        (tmp_path / "pool.yaml").write_text(yaml.safe_dump(pool))
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(TINY | episodes | {"pool": "pool.yaml"}))
        for file, key in (("pool.yaml", "sources"), ("run.yaml", "image")):
            code, out, err = metanas("pool", "check", file, "--hold-out", "lines/b")
            assert code == 0, err
            assert "lines/a: train: 20 images" in out
            assert "lines/b: test: 20 images" in out
            code, _, err = metanas("pool", "check", file, "--set", f"{key}=[]")
            assert code == 2
            assert key in err
        code, _, err = metanas(
            "pool", "check", "pool.yaml", "--set", "sources=[{name: e, kind: emnist}]", "--data", "."
        )
        assert (code, "--download" in err) == (2, True)

    def test_doctor(self, metanas: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("metanas.commands.doctor._LIBRARIES", (("small", "print('loaded')", "reinstall"),))
        code, out, _ = metanas("doctor", "--json")
        assert code == 0
        assert {"python", "small"} <= {check["name"] for check in json.loads(out)}


class TestModel:
    def test_file_by_file_equals_the_support_in_the_batch(self, trained: Path, digits: tuple[Path, list[Path]]) -> None:
        """Recorded statistics give what the statistics of the support set themselves give."""
        from metanas.commands.model import _read_line
        from metanas.learning.inner import apply_head
        from metanas.learning.samples import samples_of

        folder, files = digits
        run = RunFolder(trained)
        out = folder.parent / "model"
        adapt(run, folder, out)
        model = load_model(out)
        support = samples_of(_read_line(folder, run.config, None, print))
        images = torch.from_numpy(np.stack([np.asarray(Image.open(file))[None] for file in files])).float() / 255
        with torch.no_grad():
            features = model.members[0].network(torch.cat([support.inputs, images]), len(support.inputs))
        expected = torch.softmax(apply_head(model.members[0].head, features[len(support.inputs) :]), 1)
        answers = torch.tensor([list(answer["probabilities"].values()) for answer in predict(model, files)])
        torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-4)

    def test_with_turns_an_image_and_its_mirror_image_have_one_answer(
        self, metanas: Command, config: Path, digits: tuple[Path, list[Path]]
    ) -> None:
        folder, files = digits
        assert metanas("train", config, "--out", "turned", "--set", "adaptation.turns=true")[0] == 0
        assert metanas("adapt", "turned", folder, "--out", "model")[0] == 0
        model = load_model(Path("model"))
        images = torch.from_numpy(np.stack([np.asarray(Image.open(file))[None] for file in files])).float() / 255
        found = model.probabilities(images)
        for other in (images.flip(3), images.rot90(1, (2, 3))):
            torch.testing.assert_close(model.probabilities(other), found)
        upright = replace(
            model, config=model.config.model_copy(update={"adaptation": replace(model.config.adaptation, turns=False)})
        )
        assert not torch.allclose(upright.probabilities(images), found)

    def test_the_number_of_threads_changes_nothing(self, trained: Path, digits: tuple[Path, list[Path]]) -> None:
        folder, _ = digits
        models, before = [], torch.get_num_threads()
        for threads in (1, 4):
            torch.set_num_threads(threads)
            models.append(adapt(RunFolder(trained), folder, folder.parent / f"model {threads}"))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        assert models[0].expected == models[1].expected
        for name, weight in models[0].members[0].network.state_dict().items():
            torch.testing.assert_close(models[1].members[0].network.state_dict()[name], weight, rtol=1e-4, atol=1e-5)

    def test_with_scratch_two_networks_answer(self, trained: Path, digits: tuple[Path, list[Path]]) -> None:
        """The one is adapted as without, the other by hand; saved and loaded they answer as they did."""
        from metanas.commands.model import _read_line
        from metanas.learning.samples import samples_of

        folder, files = digits
        alone = adapt(RunFolder(trained), folder, folder.parent / "alone")
        run = with_scratch(trained, folder.parent / "both")
        made = adapt(run, folder, folder.parent / "mixed")
        learner, support = make_learner(run.config), samples_of(_read_line(folder, run.config, None, print))
        generator = torch_stream(run.config.seed, "scratch", 0)
        fresh, how = from_scratch(learner, run.config.adaptation, generator)
        weights = fine_tune(fresh, made.architecture, support, how, generator)
        images = torch.from_numpy(np.stack([np.asarray(Image.open(file))[None] for file in files])).float() / 255
        by_hand = torch.softmax(fresh.logits(made.architecture, weights, support.inputs, images), 1)
        expected = (alone.probabilities(images) + by_hand) / 2
        torch.testing.assert_close(made.probabilities(images), expected, atol=1e-4, rtol=1e-3)
        loaded = load_model(folder.parent / "mixed")
        torch.testing.assert_close(loaded.probabilities(images), made.probabilities(images))
        assert not torch.allclose(expected, alone.probabilities(images), atol=1e-2)

    def test_a_model_without_one_of_its_networks_is_refused(
        self, metanas: Command, trained: Path, digits: tuple[Path, list[Path]]
    ) -> None:
        folder, files = digits
        adapt(with_scratch(trained, Path("both")), folder, Path("model"))
        weights = Path("model/weights.safetensors")
        save_file({name: t for name, t in load_file(weights).items() if not name.startswith("scratch.")}, weights)
        code, _, err = metanas("predict", "model", *files)
        assert code == 2
        assert "weights.safetensors is not of the network" in err


def with_scratch(run: Path, copy: Path) -> RunFolder:
    """A copy of a run, whose adaptation sets a network from scratch beside the adapted one."""
    shutil.copytree(run, copy)
    file = copy / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["adaptation"]["with_scratch"] = True
    file.write_text(yaml.safe_dump(content))
    return RunFolder(copy)


@pytest.fixture(scope="module")
def adapted(trained: Path, digits: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "model"
    adapt(RunFolder(trained), digits[0], out)
    return out


class TestMistakes:
    """One sentence that names what is wrong, exit code 2, no traceback."""

    @pytest.mark.parametrize(
        ("words", "named"),
        [
            (["train", "nowhere.yaml", "--out", "run"], "nowhere.yaml"),
            (["train", "CONFIG", "--out", "run", "--set", "search.popluation=3"], "popluation"),
            (["train", "CONFIG", "--out", "run", "--set", "seed"], "KEY=VALUE"),
            (["train", "CONFIG", "--out", "run", "--hold-out", "neu"], "neu"),
            (["train", "CONFIG", "--out", "run", "--set", "train.ways=9"], "digits"),
            (["train", "CONFIG", "--out", "RUN"], "--resume"),
            (["plan", "CONFIG", "--workers", "2", "--hold-out", "neu"], "neu"),
            (["plan", "CONFIG", "--workers", "2", "--set", "train.ways=9"], "digits"),
            (["train", "CONFIG", "--out", "here"], "'here' holds 'kept'"),
            (["train", "CONFIG", "--out", "run", "--minutes", "inf"], "budget.minutes"),
            (["train", "CONFIG", "--out", "run", "--set", "search.rate=.nan"], "search.rate"),
            (["train", "CONFIG", "--out", "run", "--set", "space.options.widths=[]"], "widths []"),
            (["plan", "CONFIG", "--minutes", "0"], "--minutes"),
            (["plan", "CONFIG", "--minutes", "nan"], "--minutes"),
            (["evaluate", "nowhere"], "nowhere"),
            (["evaluate", "RUN", "--episodes", "nowhere"], "nowhere"),
            (["report", "nowhere"], "nowhere"),
            (["adapt", "RUN", "nowhere", "--out", "model"], "nowhere"),
            (["adapt", "RUN", "one class", "--out", "model"], "second class"),
            (["adapt", "RUN", "broken", "--out", "model"], "bad.png"),
            (["adapt", "RUN", "LINE", "--out", "here"], "here"),
            (["predict", "nowhere", "a.png"], "nowhere"),
            (["predictor", "retrain", "RUN", "--store", "nonsense"], "nonsense"),
            (["predictor", "retrain", "RUN", "--store", "sqlite:///typo.sqlite"], "typo.sqlite"),
            (["predictor", "show", "nowhere"], "nowhere"),
            (["pool", "check", "nowhere.yaml"], "nowhere.yaml"),
        ],
    )
    def test_is_one_sentence(
        self,
        metanas: Command,
        config: Path,
        trained: Path,
        digits: tuple[Path, list[Path]],
        tmp_path: Path,
        words: list[str],
        named: str,
    ) -> None:
        write_digits(tmp_path / "one class", [7], 0, 3)
        write_digits(tmp_path / "broken", [7, 8], 0, 3)
        (tmp_path / "broken" / "class 8" / "bad.png").write_bytes(b"no image")
        (tmp_path / "here").mkdir()
        (tmp_path / "here" / "kept").write_text("mine")
        places = {"CONFIG": config, "RUN": trained, "LINE": digits[0]}
        code, out, err = metanas(*(places.get(word, word) for word in words))
        assert code == 2
        assert named in err
        assert err.startswith("metanas: ")
        assert err.count("\n") == 1
        assert out == ""
        assert (tmp_path / "here" / "kept").read_text() == "mine"
        assert not (tmp_path / "run").exists()
        assert not (tmp_path / "model").exists()

    def test_a_file_that_only_a_worker_finds_cut_off_is_named(
        self, metanas: Command, config: Path, tmp_path: Path
    ) -> None:
        for line in ("labels", "lids"):
            write_digits(tmp_path / "lines" / line, [4, 5, 6], 0, 7)
        cut = next((tmp_path / "lines" / "labels").rglob("3.png"))
        cut.write_bytes(cut.read_bytes()[:60])
        pool = {
            "name": "lines",
            "sources": [{"name": "lines", "kind": "folder", "path": str(tmp_path / "lines")}],
            "splits": {"by": "task", "train": ["lines/labels"], "validation": ["lines/lids"]},
        }
        words = ("--workers", 2, "--set", f"pool={json.dumps(pool)}")
        code, out, err = metanas("train", config, "--out", "run", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("metanas: ")
        assert str(cut) in err

    def test_predicting_what_is_no_image_names_the_file_and_answers_the_others(
        self, metanas: Command, adapted: Path, digits: tuple[Path, list[Path]], tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        words = ("predict", adapted, digits[1][0], "notes.txt", "nowhere.png", tmp_path, "a" * 300, digits[1][1])
        code, out, err = metanas(*words)
        assert code == 2
        assert [line.split(": ")[0] for line in out.splitlines()] == [str(file) for file in digits[1][:2]]
        no_image, nowhere, folder, long = err.splitlines()
        assert "aaa': File name too long" in long
        assert "'notes.txt' cannot be read as an image" in no_image
        assert "there is no file 'nowhere.png'" in nowhere
        assert f"'{tmp_path}' is a folder; give the images in it" in folder
        code, out, _ = metanas(*words, "--json")
        assert code == 2
        assert ["error" in answer for answer in json.loads(out)] == [False, True, True, True, True, False]

    @pytest.mark.parametrize(
        ("name", "keep", "said"),
        [
            ("weights.safetensors", 100, "is no adapted model"),
            ("model.json", 40, "is no adapted model"),
            ("model.json", 0, "key 'config': Field required"),
        ],
    )
    def test_a_damaged_model_is_named(
        self, metanas: Command, adapted: Path, tmp_path: Path, name: str, keep: int, said: str
    ) -> None:
        shutil.copytree(adapted, tmp_path / "model")
        file = tmp_path / "model" / name
        file.write_bytes(file.read_bytes()[:keep] or b"{}")
        code, out, err = metanas("predict", "model", "a.png")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err

    @pytest.mark.parametrize(
        ("key", "change"),
        [
            ("classes", lambda classes: classes[1:]),
            ("classes", lambda classes: [*classes, "one more"]),
            ("architecture", lambda genes: [1 - genes[0], *genes[1:]]),
        ],
    )
    def test_a_model_whose_files_do_not_belong_together_is_named(
        self, metanas: Command, adapted: Path, tmp_path: Path, key: str, change: Callable[[list[Any]], list[Any]]
    ) -> None:
        shutil.copytree(adapted, tmp_path / "model")
        content = json.loads((tmp_path / "model" / "model.json").read_text())
        (tmp_path / "model" / "model.json").write_text(json.dumps({**content, key: change(content[key])}))
        code, out, err = metanas("predict", "model", "a.png")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'model' is no adapted model" in err

    def test_a_full_disk_is_one_sentence(
        self, metanas: Command, trained: Path, digits: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("pathlib.Path.write_bytes", full)
        code, out, err = metanas("adapt", trained, digits[0], "--out", "model")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "the disk is full" in err

    def test_a_folder_that_cannot_be_read_does_not_vanish(
        self, metanas: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever runs the tests may read everything, so the system's refusal is put in its way."""
        write_digits(tmp_path / "line", [7, 8, 9], 0, 3)
        listed = os.scandir

        def refuse(place: Any) -> Any:
            if str(place).endswith("class 8"):
                raise PermissionError(errno.EACCES, "Permission denied", str(place))
            return listed(place)

        monkeypatch.setattr(os, "scandir", refuse)
        code, _, err = metanas("adapt", trained, "line", "--out", "model")
        assert (code, err.count("\n")) == (2, 1)
        assert "class 8' cannot be read (Permission denied)" in err

    @pytest.mark.parametrize("words", [["evaluate", "run"], ["adapt", "run", "LINE", "--out", "model"]])
    def test_a_run_s_damaged_weights_are_named(
        self, metanas: Command, trained: Path, digits: tuple[Path, list[Path]], tmp_path: Path, words: list[str]
    ) -> None:
        shutil.copytree(trained, tmp_path / "run")
        weights = tmp_path / "run" / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-9])
        code, _, err = metanas(*(digits[0] if word == "LINE" else word for word in words))
        assert (code, err.count("\n")) == (2, 1)
        assert "'run/weights.safetensors' cannot be read" in err

    @pytest.mark.parametrize("command", ["train", "adapt"])
    def test_what_is_no_folder_is_found_before_the_work(
        self,
        metanas: Command,
        config: Path,
        trained: Path,
        digits: tuple[Path, list[Path]],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        command: str,
    ) -> None:
        for work in ("commands.training.make_executor", "commands.model.choose"):
            monkeypatch.setattr(f"metanas.{work}", lambda *arguments: pytest.fail("it worked for nothing"))
        (tmp_path / "notes").write_text("mine")
        out = ("--out", "notes" if command == "train" else "notes/model")
        code, _, err = metanas(command, *((config,) if command == "train" else (trained, digits[0])), *out)
        assert (code, err.count("\n")) == (2, 1)
        assert "'notes" in err
        assert (tmp_path / "notes").read_text() == "mine"

    def test_a_class_without_a_readable_image_does_not_vanish(
        self, metanas: Command, trained: Path, tmp_path: Path
    ) -> None:
        write_digits(tmp_path / "line", [7, 8], 0, 3)
        (tmp_path / "line" / "stain").mkdir()
        (tmp_path / "line" / "stain" / "1.heic").write_bytes(b"no format that is read here")
        code, _, err = metanas("adapt", trained, "line", "--out", "model")
        assert code == 2
        assert f"'{(tmp_path / 'line' / 'stain').resolve()}' holds no image that can be read" in err
        write_digits(tmp_path / "stain", [9], 0, 3)
        for number, file in enumerate((tmp_path / "stain" / "class 9").iterdir()):
            file.rename(tmp_path / "line" / "stain" / f"{number}.png")
        code, _, err = metanas("adapt", trained, "line", "--out", "model")
        assert code == 0
        assert "left out as no image: 1 file such as" in err
        assert "1.heic" in err

    def test_a_file_of_ones_own_that_hides_a_package_is_named(self, metanas: Command, tmp_path: Path) -> None:
        (tmp_path / "tasks.py").write_text("")
        code, _, err = metanas("doctor")
        assert code == 2
        assert "tasks.py" in err


def test_a_search_and_its_larger_network(metanas: Command, tmp_path: Path) -> None:
    write_spots(tmp_path)
    source = {"name": "spots", "kind": "npz", "path": "spots.npz"}
    content = SEARCH | {"data": source, "evaluator": {"name": "params"}, "strategy": {"name": "random"}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    larger = {"name": "larger", "data": source, "image": {"size": 8}, "width": 2, "final": SEARCH["final"]}
    (tmp_path / "larger.yaml").write_text(yaml.safe_dump(larger))

    words = ("search", "search.yaml", "--out", "found", "--seed", 3, "--set", "budget.evaluations=3")
    code, out, err = metanas(*words)
    assert code == 0
    assert "test" in out
    assert "2 evaluations: best" in err
    result = json.loads((tmp_path / "found" / "result.json").read_text())
    assert result["evaluations"] == 3
    code, out, _ = metanas(*words, "--resume", "--json")
    assert code == 0
    assert json.loads(out) == {"run": "found", **result}
    code, out, _ = metanas("enlarge", "found", "larger.yaml", "--out", "larger", "--json")
    assert code == 0
    assert json.loads(out)["architecture"] == result["architecture"]
    assert json.loads(out)["macs"] > result["macs"]
    code, again, _ = metanas("enlarge", "found", "larger.yaml", "--out", "larger", "--resume", "--json")
    assert (code, again) == (0, out)
    for wrong, named in (
        (("search", "search.yaml", "--out", "found"), "already holds a run; continue it with --resume"),
        (("search", "search.yaml", "--out", "new", "--set", "evaluators=1"), "key 'evaluators'"),
        (("enlarge", "nowhere", "larger.yaml", "--out", "new"), "'nowhere' is no run"),
    ):
        code, out, err = metanas(*wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert named in err
    assert not (tmp_path / "new").exists()


def test_help_is_quick_to_import() -> None:
    """The command line loads none of the large libraries before it knows what is asked."""
    program = "import sys, metanas.cli; print(sorted({'torch', 'ray', 'sklearn', 'pandas'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_adapt_imports_neither_a_compiler_nor_algebra() -> None:
    """PyTorch does on the way to a few of its functions; each is a tenth of a second and more of every start."""
    program = """if True:
        import sys, torch
        before = set(sys.modules)
        import metanas.cli, metanas.commands.model
        from metanas.measuring.cost import cost
        from metanas.spaces.stages import Stages
        cost(Stages(), Stages().default, 28)
        print(sorted({'sympy', 'triton', 'torch._dynamo'} & (set(sys.modules) - before)))
    """
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_stay_what_they_are_whatever_is_imported() -> None:
    """A submodule of the same name would take a function's place once it is imported."""
    import metanas as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"metanas.{module.name}")
    for name in set(package.__all__) - {"__version__"}:
        assert callable(getattr(package, name)), name
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018
