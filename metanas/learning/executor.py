"""Where jobs run: in this process, or on Ray actors. Both compute with one thread and give the same results.

Results come back in the order of the jobs, and a job depends on nothing but itself and the weights last loaded,
so neither the number of workers nor their speed changes what is computed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import torch

from metanas.errors import MetanasError
from metanas.learning.memory import keep_freed_memory
from metanas.learning.outer import Part
from metanas.learning.state import State
from metanas.learning.worker import GradientJob, OuterStep, Worker

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Job(Protocol[R_co]):
    """A picklable piece of work."""

    def run(self, worker: Worker) -> R_co: ...


class Executor(Protocol):
    """Runs jobs on workers that all hold the same weights."""

    workers: int

    def load(self, network: str, state: State) -> None:
        """Gives every worker new weights of one network, with the state of its optimiser where there is one."""

    def state(self, network: str) -> State:
        """What `load` takes, as the workers have it now."""

    def train(self, network: str, steps: Sequence[OuterStep]) -> list[list[tuple[float, float]]]:
        """Makes outer steps; loss and accuracy of every task of every step."""

    def run(self, jobs: Sequence[Job[R]]) -> list[R]:
        """The results, in the order of the jobs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InProcess:
    """One worker, here. Uses one thread while it lives, so that its results equal those of the actors."""

    workers = 1

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        keep_freed_memory()
        with ExitStack() as stack:
            stack.enter_context(one_thread())
            self._worker = make_worker()
            self._while_it_lives = stack.pop_all()

    def load(self, network: str, state: State) -> None:
        self._worker.load(network, state)

    def state(self, network: str) -> State:
        return self._worker.state(network)

    def train(self, network: str, steps: Sequence[OuterStep]) -> list[list[tuple[float, float]]]:
        return [self._step(network, step, jobs) for step, jobs in _with_following(steps)]

    def _step(self, network: str, step: OuterStep, following: Sequence[GradientJob]) -> list[tuple[float, float]]:
        parts, scores = self._worker.gradients(step.jobs, following)
        self._worker.update(network, parts, step.rate)
        return scores

    def run(self, jobs: Sequence[Job[R]]) -> list[R]:
        return [job.run(self._worker) for job in jobs]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._while_it_lives.close()


class _Actor:
    """The worker behind a Ray actor."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        torch.set_num_threads(1)
        keep_freed_memory()
        self._make_worker = make_worker

    @cached_property
    def _worker(self) -> Worker:
        """Made by the first call, which tells what went wrong: of a constructor's error Ray keeps only the text."""
        return self._make_worker()

    def load(self, network: str, state: State) -> None:
        self._worker.load(network, state)

    def state(self, network: str) -> State:
        return self._worker.state(network)

    def gradients(
        self, jobs: Sequence[GradientJob], following: Sequence[GradientJob]
    ) -> tuple[list[Part], list[tuple[float, float]]]:
        return self._worker.gradients(jobs, following)

    def update(self, network: str, rate: float, *shares: Sequence[Part]) -> None:
        self._worker.update(network, _dealt_back(shares), rate)

    def run(self, job: Job[Any]) -> Any:
        return job.run(self._worker)


def _with_following(steps: Sequence[OuterStep]) -> Iterator[tuple[OuterStep, Sequence[GradientJob]]]:
    """Every step with the jobs of the one after it."""
    return zip(steps, [*(step.jobs for step in steps[1:]), ()], strict=False)


def _dealt_back(shares: Sequence[Sequence[R]]) -> list[R]:
    """What was dealt to the workers one after the other, in its order."""
    longest = max(map(len, shares))
    return [share[turn] for turn in range(longest) for share in shares if turn < len(share)]


@contextmanager
def one_thread() -> Iterator[None]:
    """As every worker computes, so that a result does not depend on where it was computed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class RayActors:
    """Workers as Ray actors, which compute with one thread each, here or on the cluster that RAY_ADDRESS names."""

    def __init__(self, make_worker: Callable[[], Worker], workers: int) -> None:
        # Two threads a process on small batches lose more to synchronisation than they win.
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.workers = workers
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            cluster = os.environ.get("RAY_ADDRESS")
            local = {} if cluster else {"num_cpus": workers, "include_dashboard": False}
            ray.init(address=cluster, log_to_driver=False, logging_level="ERROR", **local)
        actor = ray.remote(_Actor).options(num_cpus=1 if self._started else 0)
        self._actors = [actor.remote(make_worker) for _ in range(workers)]

    def load(self, network: str, state: State) -> None:
        shared = self._ray.put(state)
        self._get([actor.load.remote(network, shared) for actor in self._actors])

    def state(self, network: str) -> State:
        found: State = self._get(self._actors[0].state.remote(network))
        return found

    def train(self, network: str, steps: Sequence[OuterStep]) -> list[list[tuple[float, float]]]:
        """Asks for everything at once: an actor does its calls in order, and gradients go from actor to actor."""
        scores, updates = [], []
        for step, following in _with_following(steps):
            results = [
                actor.gradients.options(num_returns=2).remote(share, following[worker :: self.workers])
                for worker, actor in enumerate(self._actors)
                if (share := step.jobs[worker :: self.workers])
            ]
            shares = [parts for parts, _ in results]
            scores.append([score for _, score in results])
            updates += [actor.update.remote(network, step.rate, *shares) for actor in self._actors]
        found = [_dealt_back(self._get(of_step)) for of_step in scores]
        self._get(updates)
        return found

    def run(self, jobs: Sequence[Job[R]]) -> list[R]:
        """Hands a job to whichever actor is free, so that a slow architecture holds up only its own actor."""
        results: list[Any] = [None] * len(jobs)
        free = list(self._actors)
        pending: dict[Any, tuple[int, Any]] = {}
        for index, job in enumerate(jobs):
            if not free:
                free.append(self._finish_one(pending, results))
            actor = free.pop()
            pending[actor.run.remote(job)] = (index, actor)
        while pending:
            self._finish_one(pending, results)
        return results

    def _finish_one(self, pending: dict[Any, tuple[int, Any]], results: list[Any]) -> Any:
        (done,), _ = self._ray.wait(list(pending), num_returns=1)
        index, actor = pending.pop(done)
        results[index] = self._get(done)
        return actor

    def _get(self, asked: Any) -> Any:
        """What was asked for. Raises what the job raised, a user's mistake as the one sentence that it is."""
        try:
            return self._ray.get(asked)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MetanasError):
                raise error.cause from error
            raise
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.OutOfMemoryError) as error:
            raise MetanasError(
                "a worker's process died, most often for want of memory: free some or ask for fewer workers, then "
                "repeat the command, with --resume where it takes that."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


def executor_for(make_worker: Callable[[], Worker], workers: int) -> Executor:
    """As many Ray actors, or this process where `workers` is 0."""
    return RayActors(make_worker, workers) if workers else InProcess(make_worker)
