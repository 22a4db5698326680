"""Evaluators: shared weights, training alone by proxies, zero-cost scores; and what becomes of failures."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from metanas.api import Architecture, Candidate, Evaluation
from metanas.errors import MetanasError
from metanas.learning.executor import InProcess
from metanas.learning.learner import Inner, Learner
from metanas.learning.samples import Samples
from metanas.learning.supernet import SuperNet
from metanas.learning.worker import EvaluationJob, Worker
from metanas.measuring.cost import cost
from metanas.measuring.estimation import Measured, SharedWeights
from metanas.measuring.measures import (
    Alone,
    Estimator,
    MeasureRecipe,
    Proxy,
    ZeroCost,
    evaluator,
    resized,
)
from metanas.measuring.standalone import Training, accuracy, make_classifier, settle, train_alone
from metanas.parsing import parse
from metanas.seeding import stream
from metanas.spaces.cells import Cells
from metanas.spaces.space import Features
from metanas.spaces.stages import Stages
from metanas.store import Store
from metanas.strategies.evolution import Evolution
from tests.reference import SmallEpisode, small_episode

SPACE = Stages(size=8, widths=((4, 8), (8, 12)))
RNG = np.random.default_rng(0)
DRAWN = [SPACE.default, *(SPACE.sample(RNG) for _ in range(3))]


def digits() -> tuple[Samples, Samples]:
    found = load_digits(n_class=3)
    inputs = torch.from_numpy(found.images).float()[:, None] / 16
    return Samples(inputs, torch.from_numpy(found.target).long(), 3).split(0.2, stream(0, "split"))


TRAIN, VALIDATION = digits()


def test_alone_is_training_alone() -> None:
    training = Training(epochs=2, batch=32)
    measured = Alone(Estimator(training=training), SPACE, TRAIN, VALIDATION, seed=3)(DRAWN[1])
    network = make_classifier(SPACE, DRAWN[1], 3, 8, 3)
    assert measured == max(train_alone(network, TRAIN, VALIDATION, training, 3))


def test_a_proxy_takes_a_part_of_everything() -> None:
    space = Cells(nodes=1, width=16, reductions=1)
    whole = Alone(Estimator(), space, TRAIN, VALIDATION, 0)
    part = Alone(Estimator(proxy=Proxy(data=0.25, channels=0.5, size=4)), space, TRAIN, VALIDATION, 0)
    counts = torch.bincount(TRAIN.labels)
    assert torch.bincount(part.train.labels).tolist() == [round(0.25 * int(n)) for n in counts]
    assert len(part.validation) == len(VALIDATION)
    assert part.train.inputs.shape[1:] == part.validation.inputs.shape[1:] == (1, 4, 4)
    assert (whole.space.width, part.space.width) == (16, 8)
    assert 0 <= part(space.default) <= 1


def test_smaller_images_are_averages() -> None:
    images = torch.rand(2, 1, 8, 8)
    small = resized(Samples(images, torch.zeros(2).long(), 1), 4).inputs
    assert small.shape == (2, 1, 4, 4)
    flat = resized(Samples(torch.full((1, 1, 8, 8), 0.3), torch.zeros(1).long(), 1), 3).inputs
    torch.testing.assert_close(flat, torch.full((1, 1, 3, 3), 0.3))
    assert small.std() < images.std()


def test_a_warm_start_begins_with_the_weights_of_another_run() -> None:
    shared = SPACE.initial_weights(torch.Generator().manual_seed(9))
    still = Estimator(training=Training(epochs=1, rate=0.0))
    network = make_classifier(SPACE, SPACE.default, 3, 8, 0, shared)
    settle(network, TRAIN)
    found = Alone(still, SPACE, TRAIN, VALIDATION, 0, shared)(SPACE.default)
    assert found == accuracy(network, VALIDATION)
    assert found != Alone(still, SPACE, TRAIN, VALIDATION, 0)(SPACE.default)
    with pytest.raises(MetanasError, match=r"proxy\.channels must be 1"):
        Alone(Estimator(proxy=Proxy(channels=0.5)), SPACE, TRAIN, VALIDATION, 0, shared)


def test_counting_scores_follow_the_cost() -> None:
    measure = ZeroCost(Estimator("params"), SPACE, TRAIN, 0)
    for architecture in DRAWN:
        features = make_classifier(SPACE, architecture, 3, 8, 0).head.in_features
        assert measure(architecture) == cost(SPACE, architecture, 8).params + 3 * features + 3


@pytest.mark.parametrize(
    "estimator",
    [Estimator(training=Training(epochs=1)), Estimator("synflow"), Estimator("naswot")],
    ids=lambda e: e.name,
)
def test_results_in_order_with_their_records(estimator: Estimator, tmp_path: Path) -> None:
    recipe = MeasureRecipe(estimator, SPACE, TRAIN, VALIDATION, seed=5)
    with Store(f"sqlite:///{tmp_path / 'store.sqlite'}") as store:
        with evaluator(recipe, "digits", record=lambda rows: store.add("mine", rows)) as evaluate:
            found = evaluate(DRAWN)
        rows = store.evaluations(run="mine")
    assert [row.architecture for row in rows] == DRAWN
    for architecture, candidate, row in zip(DRAWN, found, rows, strict=True):
        assert candidate == Candidate(architecture, row.accuracy, cost(SPACE, architecture, 8))
        assert (row.task, row.split, row.space, row.seed, row.status) == ("digits", estimator.name, "stages", 5, "ok")
    # The same in any other process.
    measure = pickle.loads(pickle.dumps(recipe))().measures[estimator.name]
    assert measure(DRAWN[2]) == found[2].accuracy


class Fragile:
    """A measure that some architectures break."""

    def __call__(self, architecture: Architecture, share: float) -> float:
        if architecture == DRAWN[1]:
            raise RuntimeError("out of memory")
        return float("nan") if architecture == DRAWN[2] else 0.5


def fragile(record: list[Evaluation]) -> Measured:
    executor = InProcess(lambda: Worker({}, {}, {"fragile": Fragile()}))
    return Measured(executor, "fragile", lambda a: cost(SPACE, a, 8), SPACE, "t", 0, record.extend)


def test_a_share_of_training_is_one_of_its_epochs_and_named_in_the_record() -> None:
    rows: list[Evaluation] = []
    training = Training(epochs=4, batch=64)
    recipe = MeasureRecipe(Estimator(training=training), SPACE, TRAIN, VALIDATION, seed=5)
    shares = {DRAWN[0]: 1.0, DRAWN[1]: 0.5}
    with evaluator(recipe, "digits", record=rows.extend) as evaluate:
        whole, half = replace(evaluate, share=shares.__getitem__)(DRAWN[:2])
    assert [row.split for row in rows] == ["alone", "alone at 0.5"]
    for found, epochs in ((whole, 4), (half, 2)):
        network = make_classifier(SPACE, found.architecture, 3, 8, 5)
        assert found.accuracy == max(train_alone(network, TRAIN, VALIDATION, replace(training, epochs=epochs), 5))


def test_a_failure_is_none_and_its_reason_is_kept() -> None:
    rows: list[Evaluation] = []
    found = fragile(rows)(DRAWN)
    assert [candidate is None for candidate in found] == [False, True, True, False]
    assert [row.status for row in rows] == ["ok", "failed", "failed", "ok"]
    assert "RuntimeError: out of memory" in (rows[1].error or "")
    assert "measure 'fragile' is nan" in (rows[2].error or "")
    assert rows[1].accuracy is None


class OneEpisode:
    """A sampler of a few episodes."""

    seed = 4

    def episode(self, index: int) -> SmallEpisode:
        return small_episode(index, ways=3, shots=2, queries=5)


def shared_weights(rows: list[Evaluation]) -> SharedWeights:
    generator = torch.Generator().manual_seed(0)
    initial = SPACE.initial_weights(generator)
    weights = {name: w + 0.2 * torch.randn(w.shape, generator=generator) for name, w in initial.items()}
    inner = Inner(steps=1)
    learner = Learner(SuperNet(SPACE, weights), Learner.initial_meta(weights, inner), inner)
    executor = InProcess(lambda: Worker({"net": learner}, {"validation": OneEpisode()}))
    return SharedWeights(
        executor, "net", lambda a: cost(SPACE, a, 8), "validation", (0, 1, 2), 1, 0, 0, record=rows.extend
    )


def test_shared_weights_are_the_mean_over_common_episodes() -> None:
    rows: list[Evaluation] = []
    evaluate = shared_weights(rows)
    found = evaluate(DRAWN)
    worker = evaluate.executor._worker
    for architecture, candidate in zip(DRAWN, found, strict=True):
        job = EvaluationJob("net", architecture, cost(SPACE, architecture, 8), "validation", (0, 1, 2), 1, 0, 0)
        expected = np.mean([row.accuracy for row in job.run(worker)])
        assert candidate == Candidate(architecture, pytest.approx(expected), cost(SPACE, architecture, 8))
    assert len(rows) == 3 * len(DRAWN)


def test_a_share_is_measured_on_the_first_episodes() -> None:
    """One at least; the mean is over those that were."""
    rows: list[Evaluation] = []
    shares = dict(zip(DRAWN, (1.0, 2 / 3, 0.01, 1.0), strict=True))
    found = replace(shared_weights(rows), share=shares.__getitem__)(DRAWN)
    of = {architecture: [row for row in rows if row.architecture == architecture] for architecture in DRAWN}
    assert [[row.episode for row in of[a]] for a in DRAWN] == [[0, 1, 2], [0, 1], [0], [0, 1, 2]]
    for architecture, candidate in zip(DRAWN, found, strict=True):
        assert candidate.accuracy == pytest.approx(np.mean([row.accuracy for row in of[architecture]]))


def test_an_architecture_that_fails_on_an_episode_has_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Evaluation] = []
    bad, build = DRAWN[1], Stages.build

    def fails(space: Stages, architecture: Architecture) -> Features:
        if architecture == bad:
            raise RuntimeError("not enough memory")
        return build(space, architecture)

    evaluate = shared_weights(rows)
    evaluate.cost(bad)  # kept, as that of a network that was built before
    monkeypatch.setattr(Stages, "build", fails)
    assert [candidate is None for candidate in evaluate([SPACE.default, bad])] == [False, True]
    assert all("not enough memory" in (row.error or "") for row in rows if row.architecture == bad)


@pytest.mark.parametrize("kind", ["shared", "score", "fragile"])
def test_a_strategy_searches_with_any_of_them(kind: str) -> None:
    """What fails is not told, and nothing else differs."""

    def search(evaluate: Measured | SharedWeights, rows: Sequence[Evaluation]) -> None:
        strategy, rng = Evolution(SPACE, 4), np.random.default_rng(0)
        for _ in range(2):
            results = evaluate(strategy.ask(4, rng))
            strategy.tell([*strategy.population, *(result for result in results if result is not None)])
        ok = {row.architecture for row in rows if row.status == "ok"}
        assert strategy.population
        assert {member.architecture for member in strategy.population} <= ok

    rows: list[Evaluation] = []
    if kind == "score":
        recipe = MeasureRecipe(Estimator("snip"), SPACE, TRAIN, VALIDATION, 0)
        with evaluator(recipe, "digits", record=rows.extend) as evaluate:
            search(evaluate, rows)
    else:
        search(shared_weights(rows) if kind == "shared" else fragile(rows), rows)


def test_an_estimator_is_read_from_a_configuration() -> None:
    text = """
    name: alone
    proxy: {data: 0.5, channels: 0.5, size: 16}
    training: {epochs: 3, patience: 2, augment: affine}
    """
    expected = Estimator("alone", Proxy(0.5, 0.5, 16), Training(epochs=3, patience=2, augment="affine"))
    assert parse(Estimator, yaml.safe_load(text), "evaluator") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "magic"}, "there is no 'magic'; name one of alone, shared, synflow"),
        ({"proxy": {"data": 0}}, r"proxy\.data must be above 0 and at most 1, but is 0"),
        ({"proxy": {"channels": -1}}, r"proxy\.channels must be above 0"),
        ({"training": {"epochs": "many"}}, r"evaluator: key 'training\.epochs': .*many"),
        ({"training": {"epochs": 0}}, r"training\.epochs and training\.batch must be at least 1, but are 0 and 64"),
        ({"training": {"batch": 0}}, r"training\.epochs and training\.batch must be at least 1, but are 20 and 0"),
        ({"epochs": 3}, "evaluator: key 'epochs'"),
    ],
)
def test_mistakes_are_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        parse(Estimator, content, "evaluator")
