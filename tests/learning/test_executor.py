"""Executors: order, weights on every worker, failures. That they compute the same is shown in test_training."""

import math
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from metanas.api import Architecture, Cost
from metanas.errors import MetanasError
from metanas.learning.executor import Executor, InProcess, RayActors, one_thread
from metanas.learning.inner import Weights
from metanas.learning.learner import Inner, Learner
from metanas.learning.meta import Method
from metanas.learning.outer import Part
from metanas.learning.state import State, pack
from metanas.learning.supernet import SuperNet
from metanas.learning.worker import EvaluationJob, GradientJob, OuterStep, Worker
from metanas.spaces import winograd
from metanas.spaces.stages import Stages
from tests.reference import SmallEpisode, small_episode

SPACE = Stages(size=8, widths=((4, 8),))
COST = Cost(1, 2)


@dataclass
class Episodes:
    first: int = 0
    seed: int = 11
    asked: list[int] = field(default_factory=list)
    size: int = 8

    def episode(self, index: int) -> SmallEpisode:
        self.asked.append(index)
        return small_episode(self.first + index, size=self.size)


def make_learner(seed: int = 0) -> Learner:
    shared = SPACE.initial_weights(torch.Generator().manual_seed(seed))
    inner = Inner(steps=1, learned_rates=False)
    return Learner(SuperNet(SPACE, shared), Learner.initial_meta(shared, inner), inner)


def make_worker() -> Worker:
    return Worker({"net": make_learner()}, {"warmup": Episodes(100), "train": Episodes(), "validation": Episodes()})


@dataclass(frozen=True)
class Slow:
    """Work that takes the longer the earlier it was asked for; tells who did it."""

    index: int

    def run(self, worker: Worker) -> tuple[int, int, int]:
        matrix = torch.eye(20)
        for _ in range(200 * (10 - self.index)):
            matrix = matrix @ matrix
        return self.index, os.getpid(), torch.get_num_threads()


@dataclass(frozen=True)
class Tell:
    """A weight as the worker holds it."""

    def run(self, worker: Worker) -> tuple[int, float]:
        return os.getpid(), float(worker.learners["net"].meta["scale"])


@dataclass(frozen=True)
class Asked:
    """Which episodes of warm-up a worker has drawn."""

    def run(self, worker: Worker) -> tuple[int, list[int]]:
        sampler = worker.samplers["warmup"]
        assert isinstance(sampler, Episodes)
        return os.getpid(), sampler.asked


@dataclass(frozen=True)
class Broken:
    def run(self, worker: Worker) -> None:
        raise ZeroDivisionError("a job that breaks")


@dataclass(frozen=True)
class Mistaken:
    """A user's mistake that only the work itself finds, such as a file that is cut off."""

    def run(self, worker: Worker) -> None:
        raise MetanasError("'bad.png' cannot be read as an image.")


@dataclass(frozen=True)
class Killed:
    """What the system does to a process when memory runs out."""

    def run(self, worker: Worker) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def actors() -> Iterator[RayActors]:
    with RayActors(make_worker, 2) as executor:
        yield executor


@pytest.fixture(scope="module")
def here() -> Iterator[InProcess]:
    with InProcess(make_worker) as executor:
        yield executor


@pytest.fixture(params=["here", "actors"])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = request.getfixturevalue(request.param)
    return found


def test_results_come_in_the_order_of_the_jobs(executor: Executor) -> None:
    results = executor.run([Slow(index) for index in range(10)])
    assert [index for index, _, _ in results] == list(range(10))
    assert len({process for _, process, _ in results}) == executor.workers
    assert {threads for _, _, threads in results} == {1}
    assert executor.run([]) == []


def test_the_actors_are_other_processes(here: Executor, actors: Executor) -> None:
    assert {pid for pid, _ in here.run([Tell()])} == {os.getpid()}
    assert os.getpid() not in {pid for pid, _ in actors.run([Tell()] * 4)}
    assert (here.workers, actors.workers) == (1, 2)


def test_every_worker_gets_new_weights(executor: Executor) -> None:
    state: State = pack(make_learner())
    for scale in (0.25, -1.5):
        executor.load("net", state | {"meta.scale": np.array(scale, dtype=np.float32)})
        assert {found for _, found in executor.run([Tell()] * 8)} == {scale}
    executor.load("net", state)


def test_what_was_loaded_is_a_copy(executor: Executor) -> None:
    state = {name: array.copy() for name, array in pack(make_learner()).items()}
    executor.load("net", state)
    state["meta.scale"][...] = 9
    assert {found for _, found in executor.run([Tell()] * 4)} == {0.0}


def test_a_job_that_breaks_raises_here(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError, match="a job that breaks"):
        executor.run([Tell(), Broken(), Tell()])
    assert len(executor.run([Tell()] * 3)) == 3


def test_a_mistake_of_the_user_is_the_same_sentence_from_every_worker(executor: Executor) -> None:
    with pytest.raises(MetanasError) as caught:
        executor.run([Tell(), Mistaken()])
    assert str(caught.value) == "'bad.png' cannot be read as an image."


def worker_without_data() -> Worker:
    raise MetanasError("there is no file 'images.npz'.")


@pytest.mark.usefixtures("actors")
def test_a_mistake_that_only_a_worker_sees_is_its_sentence_too() -> None:
    """As on another machine of a cluster, which has no such file."""
    with RayActors(worker_without_data, 1) as executor, pytest.raises(MetanasError) as caught:
        executor.state("net")
    assert str(caught.value) == "there is no file 'images.npz'."


@pytest.mark.usefixtures("actors")
def test_a_worker_that_died_is_one_sentence() -> None:
    with RayActors(make_worker, 1) as executor:
        with pytest.raises(MetanasError, match=r"a worker's process died.*--resume") as caught:
            executor.run([Killed()])
        assert "\n" not in str(caught.value)


def test_both_compute_the_same_bits(here: Executor, actors: Executor) -> None:
    state = pack(make_learner(seed=4))
    for executor in (here, actors):
        executor.load("net", state)
    gradients = [GradientJob("net", SPACE.default, index) for index in range(4)]
    for (a, score), (b, other) in zip(here.run(gradients), actors.run(gradients), strict=True):
        assert score == other
        assert a.arrays.keys() == b.arrays.keys()
        assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    evaluations = [EvaluationJob("net", SPACE.default, COST, "validation", (5, 6), 1, 0, 0)]
    ((first, second),), ((third, fourth),) = here.run(evaluations), actors.run(evaluations)
    assert (first.accuracy, first.loss, second.loss) == (third.accuracy, third.loss, fourth.loss)


def test_training_computes_the_same_bits_and_leaves_every_worker_with_them(here: Executor, actors: Executor) -> None:
    """Three tasks a step on two actors; the second time goes on from the state that the first left."""
    start = pack(make_learner(seed=5))
    jobs = [GradientJob("net", SPACE.default, index) for index in range(12)]
    plan = [OuterStep(tuple(jobs[i : i + 3]), rate=0.01) for i in range(0, 12, 3)]
    scores = {}
    for executor in (here, actors):
        executor.load("net", start)
        first = executor.train("net", plan[:2])
        kept = executor.state("net")
        scores[executor] = first + executor.train("net", plan[2:])
        executor.load("net", kept)
        assert executor.train("net", plan[2:]) == scores[executor][2:]
    assert scores[here] == scores[actors]
    assert [len(step) for step in scores[here]] == [3] * 4
    expected = here.state("net")
    assert not np.array_equal(expected["net.stages.0.first.conv.weight"], start["net.stages.0.first.conv.weight"])
    found = actors.state("net")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert len(set(actors.run([Tell()] * 8))) == 2  # two processes, one weight
    assert len({scale for _, scale in actors.run([Tell()] * 8)}) == 1


def test_a_gradient_is_of_the_episodes_that_it_names(here: Executor) -> None:
    learner = make_learner(seed=4)
    here.load("net", pack(learner))
    for split, first in (("warmup", 100), ("train", 0)):
        ((_, scores),) = here.run([GradientJob("net", SPACE.default, 3, split=split)])
        found, accuracy = learner.gradient(SPACE.default, small_episode(first + 3))
        assert scores == (found.loss, accuracy)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("method", ["fomaml", "maml", "reptile"])
def test_tasks_of_one_architecture_share_what_is_made_of_its_weights(
    monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """Each task's gradient is to the bit what it is alone; after an outer step it is of the new weights."""
    space = Stages(size=16, widths=((16,), (32,)))
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    inner = Inner(steps=2, method=method)
    learner = Learner(SuperNet(space, shared), Learner.initial_meta(shared, inner), inner)
    one, other = space.default, space.sample(np.random.default_rng(3))
    jobs = [GradientJob("net", architecture, index) for index, architecture in enumerate([one, other, one, one])]
    made = list[Architecture | str]()
    weights, call = learner.supernet.weights, winograd._call

    def counted_weights(architecture: Architecture) -> Weights:
        made.append(architecture)
        return weights(architecture)

    def counted_call(name: str, *arguments: Any) -> torch.Tensor:
        made.append(name)
        return call(name, *arguments)

    monkeypatch.setattr(learner.supernet, "weights", counted_weights)
    monkeypatch.setattr(winograd, "_call", counted_call)
    with one_thread():
        worker = Worker({"net": learner}, {"train": Episodes(size=24)})
        for _ in range(2):
            alone = [job.run(worker) for job in jobs]
            points = made.count("weight_points")
            made.clear()
            parts, scores = worker.gradients(jobs)
            assert made.count(one) == made.count(other) == 1
            assert 0 < made.count("weight_points") < points
            assert scores == [score for _, score in alone]
            for found, (expected, _) in zip(parts, alone, strict=True):
                assert found.architecture == expected.architecture
                assert all(np.array_equal(found.arrays[name], expected.arrays[name]) for name in expected.arrays)
            worker.update("net", parts, 0.01)
            made.clear()


def test_every_episode_is_drawn_once(executor: Executor) -> None:
    """Three tasks a step: on two actors each draws ahead its own of them, and none of the other's."""
    executor.load("net", pack(make_learner()))
    jobs = [GradientJob("net", SPACE.default, index, split="warmup") for index in range(50, 62)]
    executor.train("net", [OuterStep(tuple(jobs[i : i + 3]), rate=0.01) for i in range(0, 12, 3)])
    asked = dict(executor.run([Asked()] * 8))
    drawn = [index for one in asked.values() for index in one if index >= 50]
    assert (len(asked), sorted(drawn)) == (executor.workers, list(range(50, 62)))
    assert executor.train("net", []) == []


class Drawn(Episodes):
    """Tells which episodes were drawn."""

    def __init__(self, events: Sequence[Event], first: int = 0) -> None:
        super().__init__(first)
        self.events = events

    def episode(self, index: int) -> SmallEpisode:
        found = super().episode(index)
        self.events[index].set()
        return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_next_episodes_are_drawn_while_a_step_is_computed(here: Executor, device: str) -> None:
    """A step is computed only when the episodes of the next one are there; in place of the GPU stands a name.

    The first step is of warm-up, which has episodes of its own.
    """
    drawn, learner, seen = [Event() for _ in range(12)], make_learner(seed=5), 0

    def gradient(architecture: Architecture, episode: SmallEpisode, *drop_path: Any) -> Any:
        nonlocal seen
        following = 3 * (seen // 3 + 1)
        seen += 1
        for event in drawn[following : following + 3]:
            assert event.wait(60)
        return learner.gradient(architecture, episode)

    def gradients(architectures: Sequence[Architecture], episodes: Sequence[SmallEpisode]) -> Any:
        found = [gradient(a, e) for a, e in zip(architectures, episodes, strict=True)]
        return [Part.of(a, g) for a, (g, _) in zip(architectures, found, strict=True)], [(g.loss, s) for g, s in found]

    worker = Worker({"net": learner}, {"warmup": Drawn(drawn, first=100), "train": Drawn(drawn)})
    named = SimpleNamespace(device=torch.device(device), gradient=gradient, holding=learner.holding)
    worker.learners["net"] = named  # type: ignore[assignment]
    worker.batches["net"] = SimpleNamespace(gradients=gradients)  # type: ignore[assignment]
    jobs = [GradientJob("net", SPACE.default, i, split="train" if i >= 3 else "warmup") for i in range(12)]
    plan = [OuterStep(tuple(jobs[i : i + 3]), rate=0.01) for i in range(0, 12, 3)]
    here.load("net", pack(make_learner(seed=5)))
    with InProcess(lambda: worker) as beside:
        assert beside.train("net", plan) == here.train("net", plan)
    assert seen == 12


def test_a_gradient_that_breaks_raises_here(executor: Executor) -> None:
    broken = GradientJob("net", (*SPACE.default[:-1], 99), 0)
    with pytest.raises(MetanasError, match="gene 6"):
        executor.train("net", [OuterStep((GradientJob("net", SPACE.default, 0), broken), 0.01)])
    executor.load("net", pack(make_learner()))
    assert len(executor.train("net", [OuterStep((GradientJob("net", SPACE.default, 0),), 0.01)])) == 1


def test_a_failed_evaluation_is_a_record_with_its_traceback(executor: Executor) -> None:
    """The second architecture has a gene that does not exist."""
    broken = (*SPACE.default[:-1], 99)
    jobs = [EvaluationJob("net", a, COST, "validation", (3, 4), 1, 2, 7) for a in (SPACE.default, broken)]
    good, bad = executor.run(jobs)
    assert [e.status for e in good] == ["ok", "ok"]
    assert all(e.accuracy is not None and e.loss is not None and e.error is None for e in good)
    assert [e.status for e in bad] == ["failed", "failed"]
    assert all(e.accuracy is None and e.loss is None for e in bad)
    assert all(e.error and "Traceback" in e.error and "99" in e.error for e in bad)
    for e in (*good, *bad):
        assert (e.generation, e.weights_version, e.split, e.seed, e.task) == (2, 7, "validation", 11, "noise")
        assert (e.params, e.macs, e.space) == (1, 2, "stages")
        assert e.seconds > 0
    assert [e.episode for e in good] == [e.episode for e in bad] == [3, 4]


def test_weights_that_have_diverged_are_a_failure_too(here: Executor) -> None:
    state = pack(make_learner())
    here.load("net", state | {"meta.scale": np.array(np.nan, dtype=np.float32)})
    ((found,),) = here.run([EvaluationJob("net", SPACE.default, COST, "validation", (3,), 1, 0, 0)])
    here.load("net", state)
    assert (found.status, found.accuracy, found.loss) == ("failed", None, None)
    assert "the loss on the query set is nan" in str(found.error)


@pytest.mark.parametrize("diverging", [None, 4])
def test_on_a_gpu_an_architecture_is_evaluated_on_all_episodes_at_once(here: Executor, diverging: int | None) -> None:
    """In place of the GPU a device that takes what the CPU computes; where one episode has no loss, each is alone."""
    learner, asked = make_learner(), list[int]()

    def evaluate(architecture: Architecture, episode: SmallEpisode, steps: int) -> tuple[float, float]:
        accuracy, loss = learner.evaluate(architecture, episode, steps)
        bad = diverging is not None and torch.equal(episode.query_inputs, small_episode(diverging).query_inputs)
        return accuracy, math.nan if bad else loss

    def alone(*arguments: Any) -> tuple[float, float]:
        asked.append(1)
        return evaluate(*arguments)

    def together(architecture: Architecture, episodes: Sequence[SmallEpisode], steps: int) -> list[tuple[float, float]]:
        asked.append(len(episodes))
        return [evaluate(architecture, episode, steps) for episode in episodes]

    worker = Worker({"net": learner}, {"validation": Episodes()})
    worker.learners["net"] = SimpleNamespace(  # type: ignore[assignment]
        device=torch.device("cuda"), supernet=learner.supernet, evaluate=alone
    )
    worker.batches["net"] = SimpleNamespace(evaluations=together)  # type: ignore[assignment]
    job = EvaluationJob("net", SPACE.default, COST, "validation", (3, 4, 5), 1, 0, 0)
    here.load("net", pack(make_learner()))
    ((*expected,),) = here.run([job])
    found = job.run(worker)
    assert asked == ([3] if diverging is None else [3, 1, 1, 1])
    assert [e.status for e in found] == ["ok", "ok" if diverging is None else "failed", "ok"]
    for one, other in zip(found, expected, strict=True):
        if one.status == "ok":
            assert replace(one, seconds=0) == replace(other, seconds=0)


def test_in_process_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with InProcess(partial(Worker, {}, {})):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_cannot_be_made_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            InProcess(lambda: Broken().run(make_worker()))  # type: ignore[arg-type, return-value, func-returns-value]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
