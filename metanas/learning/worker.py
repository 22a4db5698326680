"""What runs on one worker: jobs over episodes, with the networks and samplers that it holds.

A job names an architecture and episodes by index; the worker draws the episodes itself, so data loading runs in
parallel and only weights, gradients and results travel.
"""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from metanas.api import Architecture, Cost, Evaluation
from metanas.learning.batching import TaskBatches
from metanas.learning.learner import Learner
from metanas.learning.outer import OuterOptimizer, Part
from metanas.learning.problems import EpisodeData
from metanas.learning.state import State
from metanas.seeding import torch_stream

WARM_UP, TRAINING = "warmup", "train"
"""The training episodes of warm-up, whose images may be smaller, and of all later phases."""


class NamedEpisode(EpisodeData, Protocol):
    """An episode that knows the name of its task."""

    @property
    def task(self) -> str: ...


class Sampler(Protocol):
    """Episodes by index: a pure function of its seed and name."""

    @property
    def seed(self) -> int: ...

    def episode(self, index: int) -> NamedEpisode: ...


Measure = Callable[[Architecture, float], float]
"""What one architecture is worth, an accuracy or a score, when a share (up to 1) of a full measurement is spent."""


class Worker:
    """Networks by name ("supernet", a baseline's), samplers by split ("warmup", "train", "validation", a test's name).

    Beside them `measures` by name, for architectures that are judged one by one.
    """

    def __init__(
        self,
        learners: Mapping[str, Learner],
        samplers: Mapping[str, Sampler],
        measures: Mapping[str, Measure] | None = None,
    ) -> None:
        self.learners = dict(learners)
        self.samplers = dict(samplers)
        self.measures = dict(measures or {})
        self.optimizers = {name: OuterOptimizer(learner) for name, learner in self.learners.items()}
        self.batches = {name: TaskBatches(learner) for name, learner in self.learners.items()}
        self._drawing = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
        self._ahead: tuple[Sequence[GradientJob], Future[list[NamedEpisode]]] | None = None

    def load(self, network: str, state: State) -> None:
        """Copies weights into one network, and into its optimiser what it had learned with them."""
        self.optimizers[network].load(state)

    def state(self, network: str) -> State:
        """What `load` needs to go on from here."""
        return self.optimizers[network].state()

    def gradients(
        self, jobs: Sequence["GradientJob"], following: Sequence["GradientJob"] = ()
    ) -> tuple[list[Part], list[tuple[float, float]]]:
        """The gradients of one step, and loss and accuracy of every job: on a GPU several tasks at once.

        While they are computed, or other workers waited for, the episodes of the `following` jobs are drawn for the
        next call.
        """
        network, drop_path = jobs[0].network, jobs[0].drop_path
        ahead = self._ahead
        episodes = (ahead[1] if ahead and ahead[0] == jobs else self._draw(jobs)).result()
        self._ahead = (following, self._draw(following)) if following else None
        if self.learners[network].device.type == "cpu" or drop_path:
            return self._one_by_one(jobs, episodes)
        return self.batches[network].gradients([job.architecture for job in jobs], episodes)

    def _one_by_one(
        self, jobs: Sequence["GradientJob"], episodes: Sequence[EpisodeData]
    ) -> tuple[list[Part], list[tuple[float, float]]]:
        found: dict[int, tuple[Part, tuple[float, float]]] = {}
        for architecture in dict.fromkeys(job.architecture for job in jobs):
            with self.learners[jobs[0].network].holding(architecture):
                for number, (job, episode) in enumerate(zip(jobs, episodes, strict=True)):
                    if job.architecture == architecture:
                        found[number] = job.gradient(self, episode)
        parts, scores = zip(*(found[number] for number in range(len(jobs))), strict=True)
        return list(parts), list(scores)

    def _draw(self, jobs: Sequence["GradientJob"]) -> "Future[list[NamedEpisode]]":
        return self._drawing.submit(lambda: [self.samplers[job.split].episode(job.episode) for job in jobs])

    def update(self, network: str, parts: Sequence[Part], rate: float) -> None:
        """An outer step; the same on every worker, so that weights need not travel."""
        self.optimizers[network].step(parts, rate)


@dataclass(frozen=True)
class GradientJob:
    """The meta-gradient of one architecture on one training episode."""

    network: str
    architecture: Architecture
    episode: int
    drop_path: float = 0.0
    split: str = TRAINING

    def run(self, worker: Worker) -> tuple[Part, tuple[float, float]]:
        """The gradient, and loss and accuracy on the query set, of an episode that is drawn here."""
        return self.gradient(worker, worker.samplers[self.split].episode(self.episode))

    def gradient(self, worker: Worker, episode: EpisodeData) -> tuple[Part, tuple[float, float]]:
        """As `run`, of the job's episode when it has been drawn."""
        seed = worker.samplers[self.split].seed
        generator = torch_stream(seed, "drop path", self.episode) if self.drop_path else None
        found, accuracy = worker.learners[self.network].gradient(self.architecture, episode, self.drop_path, generator)
        return Part.of(self.architecture, found), (found.loss, accuracy)


@dataclass(frozen=True)
class OuterStep:
    """The gradients of some tasks on the same weights, then one step along their mean."""

    jobs: tuple[GradientJob, ...]
    rate: float


@dataclass(frozen=True)
class EvaluationJob:
    """The accuracy of one architecture on some episodes of a split, after `steps` inner steps; one record each.

    Whatever goes wrong with an architecture becomes a record with its traceback: one bad network must not end a
    search.
    """

    network: str
    architecture: Architecture
    cost: Cost
    split: str
    episodes: tuple[int, ...]
    steps: int
    generation: int
    weights_version: int

    def run(self, worker: Worker) -> list[Evaluation]:
        if worker.learners[self.network].device.type != "cpu":
            records = self._evaluate(worker, self.episodes)
            if all(record.status == "ok" for record in records):
                return records
        # One by one is faster on a CPU, and tells on which episodes a network fails.
        return [record for index in self.episodes for record in self._evaluate(worker, (index,))]

    def _evaluate(self, worker: Worker, indices: Sequence[int]) -> list[Evaluation]:
        learner, sampler = worker.learners[self.network], worker.samplers[self.split]
        space, episodes = learner.supernet.space, [sampler.episode(index) for index in indices]

        def measure() -> list[tuple[float, float]]:
            if len(episodes) == 1:
                found = [learner.evaluate(self.architecture, episodes[0], self.steps)]
            else:
                found = worker.batches[self.network].evaluations(self.architecture, episodes, self.steps)
            for _, loss in found:
                if not math.isfinite(loss):
                    raise ArithmeticError(f"the loss on the query set is {loss}: the weights have diverged")
            return found

        return all_evaluated(
            measure,
            self.cost,
            lambda: space.describe(self.architecture),
            [{"task": episode.task, "episode": index} for index, episode in zip(indices, episodes, strict=True)],
            architecture=self.architecture,
            space=space.name,
            generation=self.generation,
            weights_version=self.weights_version,
            split=self.split,
            seed=sampler.seed,
        )


def evaluated(
    measure: Callable[[], tuple[float, float | None]], cost: Cost, describe: Callable[[], str], **named: Any
) -> Evaluation:
    """The record of one measurement of accuracy and loss, timed; of one that failed with its traceback.

    `describe` gives the form of the network, once it was measured; `named` are the fields of `Evaluation` that say what
    was measured.
    """
    (record,) = all_evaluated(lambda: [measure()], cost, describe, [{}], **named)
    return record


def all_evaluated(
    measure: Callable[[], Sequence[tuple[float, float | None]]],
    cost: Cost,
    describe: Callable[[], str],
    each: Sequence[Mapping[str, Any]],
    **named: Any,
) -> list[Evaluation]:
    """As `evaluated`, of one network measured at once on several: `each` names what a record has of its own."""
    form: str | None = None
    found: Sequence[tuple[float | None, float | None]] = [(None, None)] * len(each)
    error: str | None = None
    started = time.perf_counter()
    try:
        measured = measure()
        form = describe()  # only now: of what is no architecture, `measure` says which gene is wrong
        found = measured
    except Exception:
        error = traceback.format_exc()
    seconds = (time.perf_counter() - started) / len(each)
    return [
        Evaluation(
            **named,
            **own,
            params=cost.params,
            macs=cost.macs,
            seconds=seconds,
            status="failed" if error else "ok",
            accuracy=accuracy,
            loss=loss,
            error=error,
            form=form,
        )
        for own, (accuracy, loss) in zip(each, found, strict=True)
    ]
