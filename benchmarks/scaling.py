"""How metanas scales: workers, tasks a step, and memory over many steps.

Default network of the elastic stages, 5-way 1-shot with 15 queries, no inner steps, in the precision that pays here.
The same gradients by workers that exchange nothing say what the machine allows. Memory is that of driver and workers
together, what they share counted once, while every step trains two architectures drawn at random.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.digits import configuration
from benchmarks.rounds import arguments, finish, in_turn, ratio, run, spread, table
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_space
from metanas.config import RunConfig
from metanas.learning.executor import Executor
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import GradientJob, Worker

TASKS = (1, 4, 16, 64)
STEPS, TASKS_A_STEP = 10, 4  # timed at once where workers are compared
RATE = 1e-3
LONG, LOOKS = 2000, 10


class Resident:
    """A job that tells the resident memory of its worker, in MiB."""

    def run(self, worker: Worker) -> tuple[int, float]:
        return os.getpid(), memory_now()


@dataclass(frozen=True)
class Gradients:
    """Computes gradients and throws them away: nobody waits for anybody."""

    jobs: tuple[GradientJob, ...]

    def run(self, worker: Worker) -> None:
        for number in range(len(self.jobs)):
            worker.gradients(self.jobs[number : number + 1], self.jobs[number + 1 : number + 2])


def memory_now() -> float:
    """MiB of resident memory of this process, and of what it shares with others its part, as Linux tells."""
    return int(Path("/proc/self/smaps_rollup").read_text().split("Pss:")[1].split()[0]) / 1024


def resident(executor: Executor) -> float:
    """Of the driver and all workers together."""
    return memory_now() + sum(dict(executor.run([Resident()] * 4 * executor.workers)).values())


def alone(executor: Executor, jobs: tuple[GradientJob, ...]) -> Callable[[], object]:
    """As many gradients, shared between the workers at the start."""
    shares = [Gradients(jobs[worker :: executor.workers]) for worker in range(executor.workers)]
    return partial(executor.run, shares)


def run_config(workers: int) -> RunConfig:
    """A run without inner steps, on so many actors."""
    return configuration(inner={"steps": 0, "learned_rates": False}, workers=workers)


def main() -> None:
    """Prints the three tables."""
    asked = arguments(__doc__.splitlines()[0], rounds=5)
    space, rng = make_space(run_config(1)), np.random.default_rng(0)
    default = space.default
    with ExitStack() as stack:
        trainers = {
            workers: MetaTrainer(SUPERNET, stack.enter_context(make_executor(WorkerRecipe(run_config(workers)))))
            for workers in (1, 2)
        }
        steps = [[default] * TASKS_A_STEP] * STEPS
        train = {f"{w} workers": partial(trainer.train, steps, 0, RATE) for w, trainer in trainers.items()}
        jobs = tuple(GradientJob(SUPERNET, default, episode) for episode in range(STEPS * TASKS_A_STEP))
        apart = {f"{w} workers, gradients alone": alone(trainer.executor, jobs) for w, trainer in trainers.items()}
        seconds = in_turn(train | apart, asked.rounds)
        gain, limit = (
            ratio(seconds[f"1 workers{what}"], seconds[f"2 workers{what}"]) for what in ("", ", gradients alone")
        )
        rows = [(name, f"{STEPS / np.median(values):.2f}") for name, values in seconds.items()]
        table((f"{TASKS_A_STEP} tasks a step", "steps/s"), rows)
        print(f"two workers are {gain} times as fast as one; where they exchange nothing {limit} times\n")

        contenders = {
            f"{count} tasks": partial(trainers[2].train, [[default] * count] * max(2, 32 // count), 0, RATE)
            for count in TASKS
        }
        seconds = in_turn(contenders, asked.rounds)
        cost = {c: spread(1000 * seconds[f"{c} tasks"] / (c * max(2, 32 // c))) for c in TASKS}
        table(("two workers", "ms a task"), [(f"{count} tasks a step", str(cost[count])) for count in TASKS])

        memory = [resident(trainers[2].executor)]
        for look in range(LOOKS):
            steps = [[space.sample(rng), space.sample(rng)] for _ in range(LONG // LOOKS)]
            trainers[2].train(steps, 2 * look * len(steps), RATE)
            memory.append(resident(trainers[2].executor))
        growth, most = (held / memory[1] - 1 for held in (memory[-1], max(memory[1:])))
        print("\nresident memory, MiB: " + ", ".join(f"{m:.0f}" for m in memory))
        print(f"from step {LONG // LOOKS} to step {LONG}: {growth:+.1%}, at most {most:+.1%}")
    costs = {f"milliseconds_of_a_task_{count}": found for count, found in cost.items()}
    finish(asked, workers_ratio=gain, workers_limit=limit, **costs, memory_growth=growth, memory_growth_at_most=most)


if __name__ == "__main__":
    run(main)
