"""Evaluation: every method on the same test episodes, baselines trained once, and episodes from folders."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from metanas.assembly import (
    CONV4,
    RANDOM,
    SUPERNET,
    make_learner,
    make_pool,
    make_samplers,
    make_space,
    random_architecture,
)
from metanas.commands import baselines, kept_scores
from metanas.commands.baselines import AdaptationJob, ScratchJob
from metanas.commands.candidates import candidates
from metanas.commands.evaluation import compare, evaluate, evaluate_folders
from metanas.commands.progress import describe
from metanas.commands.training import train
from metanas.errors import MetanasError
from metanas.files import save_arrays
from metanas.learning.learner import Learner
from metanas.learning.samples import Samples
from metanas.learning.state import fill
from metanas.learning.transfer import fine_tune, from_scratch
from metanas.learning.worker import Worker
from metanas.measuring.features import ArchitectureFeatures
from metanas.run import RunFolder
from metanas.seeding import torch_stream
from predictors.saved import load_predictor
from tests.reference import nearest_prototype
from tests.runs import TINY, tiny_config

METHODS = ["metanas", "random architecture", "conv-4", "frozen features, nearest prototype", "from scratch"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(tiny_config(), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def shown() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def evaluation(run: RunFolder, shown: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = evaluate(run, show=shown.append)
    return found


def test_every_method_answers_every_episode(run: RunFolder, evaluation: dict[str, Any]) -> None:
    assert run.read_json("evaluation.json") == json.loads(json.dumps([evaluation]))
    assert (evaluation["name"], evaluation["split"], evaluation["episodes"]) == ("3-way 2-shot", "test", 4)
    assert evaluation["spec"]["ways"] == 3
    assert [method["method"] for method in evaluation["methods"]] == METHODS
    for method in evaluation["methods"]:
        assert len(method["accuracies"]) == 4
        assert all(0 <= accuracy <= 1 for accuracy in method["accuracies"])
        # 3 classes of 5 queries
        assert all(round(15 * accuracy, 4) == round(15 * accuracy) for accuracy in method["accuracies"])


def test_what_each_method_ran(run: RunFolder, evaluation: dict[str, Any]) -> None:
    architecture = {method["method"]: method["architecture"] for method in evaluation["methods"]}
    assert architecture["conv-4"] == []
    assert architecture["random architecture"] == list(random_architecture(run.config))
    assert architecture["frozen features, nearest prototype"] == architecture["from scratch"] == list(run.chosen)
    assert architecture["metanas"] is None or tuple(architecture["metanas"]) in candidates(run, run.config).best()


def test_candidates_are_the_choice_and_what_the_predictor_thinks_best(run: RunFolder) -> None:
    best = candidates(run, run.config).best()
    assert best[0] == run.chosen
    assert len(best) == 2
    every = replace(run.config.adaptation, candidates=100)
    found = candidates(run, run.config.model_copy(update={"adaptation": every})).best()
    assert len(found) == len(set(found))
    assert set(run.population) < set(found)  # fresh offspring beside them
    table = ArchitectureFeatures(make_space(run.config), run.config.image.size).table(found[1:])
    predicted, _ = load_predictor(run.path / "predictor.safetensors", "stages").predict(table)
    assert list(predicted) == sorted(predicted, reverse=True)
    assert found[1] == best[1]


def test_frozen_features_by_hand(run: RunFolder, evaluation: dict[str, Any]) -> None:
    """The chosen network, extracted; nearest class mean of its features, episode by episode."""
    learner = make_learner(run.config)
    fill(learner, run.weights())
    network = learner.supernet.extract(run.chosen)
    sampler = make_samplers(run.config, make_pool(run.config, None))["3-way 2-shot"]
    by_hand = []
    for index in range(4):
        episode = sampler.episode(index)
        count = len(episode.support_inputs)
        with torch.no_grad():
            features = network(torch.cat([episode.support_inputs, episode.query_inputs]), count)
        distances = nearest_prototype(features[:count], episode.support_labels, 3, features[count:])
        by_hand.append(float((distances.argmin(1) == episode.query_labels).float().mean()))
    (found,) = [m["accuracies"] for m in evaluation["methods"] if m["method"].startswith("frozen")]
    assert found == pytest.approx(by_hand)


def test_conv4_by_hand(run: RunFolder, evaluation: dict[str, Any]) -> None:
    """Its weights from the run's folder, adapted as a new task is."""
    learner = make_learner(run.config, CONV4)
    fill(learner, run.weights("baselines/conv-4.safetensors"))
    sampler = make_samplers(run.config, make_pool(run.config, None))["3-way 2-shot"]
    by_hand = []
    for index in range(4):
        episode = sampler.episode(index)
        support = Samples(episode.support_inputs, episode.support_labels, 3)
        weights = fine_tune(learner, (), support, run.config.adaptation, torch.Generator())
        logits = learner.logits((), weights, episode.support_inputs, episode.query_inputs)
        by_hand.append(float((logits.argmax(1) == episode.query_labels).float().mean()))
    (found,) = [m["accuracies"] for m in evaluation["methods"] if m["method"] == "conv-4"]
    assert found == pytest.approx(by_hand)


@pytest.mark.parametrize(("asked", "made"), [(3, 20), (30, 31)])
def test_from_scratch_by_hand(run: RunFolder, asked: int, made: int) -> None:
    """The choice from random weights, with 20 steps, or as many as the meta-learned one gets where these are more.

    That is an inner step and those of adaptation.
    """
    config, trained = run.config, make_learner(run.config)
    samplers = make_samplers(config, make_pool(config, None))
    adaptation, name = replace(config.adaptation, steps=asked), "3-way 2-shot"
    worker = Worker({SUPERNET: trained}, samplers)
    by_hand, found = list[float](), list[float]()
    for index in range(4):
        found.append(ScratchJob(SUPERNET, run.chosen, adaptation, name, index).run(worker).accuracy)
        episode, generator = samplers[name].episode(index), torch_stream(samplers[name].seed, "scratch", index)
        inner = replace(trained.inner, steps=0)
        fresh = Learner.drawn(make_space(config), inner, "float32", generator)
        how = replace(adaptation, steps=made, body_rate=3e-3, head_rate=1e-2)
        support = Samples(episode.support_inputs, episode.support_labels, 3)
        weights = fine_tune(fresh, run.chosen, support, how, generator)
        logits = fresh.logits(run.chosen, weights, episode.support_inputs, episode.query_inputs)
        by_hand.append(float((logits.argmax(1) == episode.query_labels).float().mean()))
    assert found == pytest.approx(by_hand)


def test_with_scratch_both_answer(run: RunFolder) -> None:
    """The mean of the probabilities of the adapted network and of the baseline from scratch."""
    config, trained = run.config, make_learner(run.config)
    fill(trained, run.weights())
    samplers, name = make_samplers(config, make_pool(config, None)), "3-way 2-shot"
    adaptation = replace(config.adaptation, with_scratch=True)
    worker = Worker({SUPERNET: trained}, samplers)
    for index in range(4):
        episode, seed = samplers[name].episode(index), samplers[name].seed
        support, total = Samples(episode.support_inputs, episode.support_labels, 3), torch.zeros(())
        generator = torch_stream(seed, "scratch", index)
        fresh, longer = from_scratch(trained, adaptation, generator)
        streams = (torch_stream(seed, "adaptation", index), generator)
        for learner, how, stream in zip((trained, fresh), (adaptation, longer), streams, strict=True):
            weights = fine_tune(learner, run.chosen, support, how, stream)
            logits = learner.logits(run.chosen, weights, episode.support_inputs, episode.query_inputs)
            total = total + torch.softmax(logits, 1)
        found = AdaptationJob(SUPERNET, (run.chosen,), adaptation, name, index).run(worker).accuracy
        assert found == pytest.approx(float((total.argmax(1) == episode.query_labels).float().mean()))


def test_baselines_train_for_as_many_steps_as_the_run(
    run: RunFolder, evaluation: dict[str, Any], shown: list[dict[str, Any]]
) -> None:
    assert evaluation
    total = 6 + 3 + 3 + 2 + 3 + 2 + 1
    trained = {event["network"]: event["step"] for event in shown if event["event"] == "baseline"}
    assert trained == {CONV4: total, RANDOM: total}
    for network in (CONV4, RANDOM):
        weights = load_file(run.path / "baselines" / f"{network.replace(' ', '-')}.safetensors")
        fresh = make_learner(run.config, network).supernet.shared
        assert any(not np.array_equal(weights["net." + name], weight) for name, weight in fresh.items())


def test_baselines_drop_paths_and_warm_up_as_the_run_did() -> None:
    """Paths more from phase to phase, up to what the configuration says in the last; warm-up is the first phase."""
    seen: list[tuple[int, float, float, str]] = []

    class Trainer:
        version, drop_path, split = 0, 0.0, ""

        def train(self, steps: list[Any], first_episode: int, rate: float) -> list[tuple[float, float]]:
            assert first_episode == 2 * self.version
            seen.append((len(steps), rate, self.drop_path, self.split))
            self.version += len(steps)
            return [(0.0, 1.0)] * len(steps)

    settings = replace(tiny_config().search, drop_path=0.4, tasks_per_step=2)
    rates = [(2, 0.1), (0, 0.1), (3, 0.05)]
    baselines.meta_train_alone("net", (), Trainer(), rates, settings, lambda event: None)  # type: ignore[arg-type]
    assert seen == [(2, 0.1, 0.0, "warmup"), (3, 0.05, 0.4, "train")]


def test_a_second_evaluation_trains_nothing_and_says_the_same(run: RunFolder, evaluation: dict[str, Any]) -> None:
    shown: list[dict[str, Any]] = []
    (again,) = evaluate(run, show=shown.append)
    assert again == evaluation
    assert [event["event"] for event in shown] == ["answers", "method"] * len(METHODS)


class TestInterrupted:
    """An evaluation that is stopped, in training a baseline or in answering, and asked for again."""

    @pytest.fixture(autouse=True)
    def small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(baselines, "CHUNK", 4)
        monkeypatch.setattr(kept_scores, "AT_ONCE", 1)

    @pytest.fixture
    def copy(self, run: RunFolder, tmp_path: Path) -> RunFolder:
        ignored = shutil.ignore_patterns("baselines", "evaluation.json")
        return RunFolder(Path(shutil.copytree(run.path, tmp_path / "run", ignore=ignored)))

    def stopped(self, run: RunFolder, asked: dict[str, Any]) -> None:
        """Evaluates until it tells an event that says what was asked for."""

        def show(event: dict[str, Any]) -> None:
            if asked.items() <= event.items():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(run, show=show)

    def went_on(self, run: RunFolder, evaluation: dict[str, Any]) -> list[dict[str, Any]]:
        """What the second call tells; its result is that of a call that was never stopped."""
        shown: list[dict[str, Any]] = []
        (found,) = evaluate(run, show=shown.append)
        assert found == evaluation
        assert not list(run.path.rglob("*.part.*"))
        return shown

    def test_a_baseline_goes_on_after_the_steps_that_it_made(self, copy: RunFolder, evaluation: dict[str, Any]) -> None:
        self.stopped(copy, {"event": "baseline", "network": RANDOM, "step": 9})
        trained = [event for event in self.went_on(copy, evaluation) if event["event"] == "baseline"]
        assert {event["network"] for event in trained} == {RANDOM}
        assert min(event["step"] for event in trained) > 9

    @pytest.mark.parametrize("torn", [False, True])
    def test_what_was_answered_is_not_asked_again(
        self, copy: RunFolder, evaluation: dict[str, Any], torn: bool
    ) -> None:
        self.stopped(copy, {"event": "answers", "method": "conv-4", "answered": 3})
        if torn:
            file = copy.path / "evaluation.part.jsonl"
            file.write_bytes(file.read_bytes()[:-5])
        answers = [event for event in self.went_on(copy, evaluation) if event["event"] == "answers"]
        first = {method: [e["answered"] for e in answers if e["method"] == method] for method in METHODS}
        assert first["metanas"] == first["random architecture"] == []
        assert first["conv-4"] == ([3, 4] if torn else [4])
        assert first["from scratch"] == [1, 2, 3, 4]

    def test_other_weights_are_asked_anew(self, copy: RunFolder, evaluation: dict[str, Any]) -> None:
        self.stopped(copy, {"event": "answers", "method": "conv-4", "answered": 3})
        weights = copy.path / "baselines" / "conv-4.safetensors"
        save_arrays(weights, {name: 2 * array for name, array in copy.weights("baselines/conv-4.safetensors").items()})
        shown: list[dict[str, Any]] = []
        (found,) = evaluate(copy, show=shown.append)
        assert sum(event["event"] == "answers" for event in shown) == 4 * len(METHODS)
        assert found["methods"][0] == evaluation["methods"][0]


def test_one_episode_has_no_interval_and_no_verdict() -> None:
    methods = [{"method": "metanas", "accuracies": [0.75]}, {"method": "conv-4", "accuracies": [0.5]}]
    ours, theirs = compare({"methods": methods})
    assert ours.split() == ["metanas", "75.00%"]
    assert theirs.split() == ["conv-4", "50.00%", *["metanas", "is", "better", "by", "25.00%"]]
    event = {"event": "method", "test": "5-shot", "method": "conv-4", "accuracy": 0.5, "interval": math.nan}
    assert describe(event) == "5-shot, conv-4: 50.00%"


def test_a_run_that_did_not_finish_is_named(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(run.path / "config.yaml", tmp_path / "half")
    with pytest.raises(MetanasError, match="did not finish; continue it with"):
        evaluate(RunFolder(tmp_path / "half"))
    with pytest.raises(MetanasError, match="is no run"):
        evaluate(RunFolder(tmp_path / "nothing"))


def test_a_pool_without_test_tasks_is_named(run: RunFolder, tmp_path: Path) -> None:
    splits = {key: value for key, value in TINY["pool"]["splits"].items() if key != "test"}
    out = train(tiny_config(pool=TINY["pool"] | {"splits": splits}), tmp_path / "run")
    with pytest.raises(MetanasError, match=r"has no test split; name its tasks under splits\.test"):
        evaluate(out)


@pytest.fixture(scope="module")
def episodes(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's own test episodes as files, in the form in which others hand them over."""
    folder = tmp_path_factory.mktemp("episodes")
    sampler = make_samplers(run.config, make_pool(run.config, None))["3-way 2-shot"]
    for index in range(3):
        episode = sampler.episode(index)
        for side in ("support", "query"):
            inputs, labels = getattr(episode, f"{side}_inputs"), getattr(episode, f"{side}_labels")
            for number, (image, label) in enumerate(zip(inputs, labels, strict=True)):
                path = folder / f"episode-{index}" / side / f"class{int(label)}" / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy()).save(path)
    (folder / ".hidden").mkdir()
    return folder


def test_episodes_in_folders_are_scored_like_the_same_episodes_of_the_pool(
    run: RunFolder, evaluation: dict[str, Any], episodes: Path
) -> None:
    rows = evaluate_folders(run, episodes)
    assert [row["episode"] for row in rows] == ["episode-0", "episode-1", "episode-2"]
    expected = evaluation["methods"][0]["accuracies"][:3]
    # Nothing is augmented here, and pixels are whole numbers, so the files hold the very same episodes.
    assert [row["accuracy"] for row in rows] == pytest.approx(expected)


def test_a_folder_without_episodes_is_named(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match="holds no episode"):
        evaluate_folders(run, tmp_path)
