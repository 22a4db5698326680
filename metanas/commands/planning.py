"""`metanas plan`: what a run will take in time, memory and disk, foretold from half a minute of its own work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np

from metanas.api import Architecture, Cost
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_learner, make_space, training_pool
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.learning.executor import Executor, RayActors
from metanas.learning.memory import peak_memory
from metanas.learning.state import pack
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import WARM_UP, EvaluationJob, Worker
from metanas.search.loop import CHUNK
from metanas.search.schedule import (
    Budget,
    SearchSettings,
    evaluations_after,
    evaluations_of_choice,
    leader_share,
    left_out,
)
from metanas.spaces.space import Space

PROBE = 8.0
"""Seconds that each kind of work is measured for: steps of the default network and later ones, evaluations."""
ROW, LINE = 250, 190
"""Bytes of an evaluation in the store and its share of the log, and of a line of the log on CHUNK steps."""
MIB = 2**20


@dataclass(frozen=True)
class Durations:
    """Seconds, measured: of opening the pool, until the workers stand ready, of an outer step, of an evaluation.

    A budget in minutes begins before the workers do. In warm-up and settling a step trains one network, the default one
    here; later_step is of those in between.
    """

    opening: float
    starting: float
    warmup_step: float
    later_step: float
    settling_step: float
    evaluation: float


@dataclass(frozen=True)
class Phase:
    """Warm-up, widening, a generation or a part of settling: outer steps, and seconds of training and of evaluation."""

    name: str
    steps: int
    training: float
    evaluation: float


@dataclass(frozen=True)
class Plan:
    """What to expect of `metanas train`: `set_up` in seconds until its first step, and what comes then.

    `memory` is the sum of the most that driver and workers have each, in MiB (what they share counts for each), `disk`
    the MiB of the run's folder.
    """

    set_up: float
    phases: tuple[Phase, ...]
    memory: float
    disk: float
    advice: str | None

    @property
    def seconds(self) -> float:
        return self.set_up + _seconds(self.phases)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)


def _seconds(phases: Sequence[Phase]) -> float:
    return sum(phase.training + phase.evaluation for phase in phases)


@dataclass(frozen=True)
class PeakMemory:
    """A job: the most memory that a worker's process has had, in MiB."""

    def run(self, worker: Worker) -> float:
        return peak_memory()


def plan(config: RunConfig, data: Path | None = None, minutes: float | None = None) -> Plan:
    """Does a little of each kind of work that `config` asks for and multiplies.

    With `minutes` the plan says what to change when the run would take longer. Writes nothing but the cache.
    Raises MetanasError where `train` would.
    """
    if minutes is not None and not 0 < minutes < inf:
        raise MetanasError(f"--minutes {minutes:g}: expected the minutes that there are, more than 0.")
    started = time.monotonic()
    training_pool(config, data)
    space = make_space(config)
    opened = time.monotonic()
    with make_executor(WorkerRecipe(config, data)) as executor:
        executor.run([PeakMemory()] * max(1, executor.workers))  # waits for the workers
        durations = _measure(config, space, executor, opened - started, time.monotonic() - opened)
        # Without actors the work is done in this process, whose memory is counted below.
        apart = isinstance(executor, RayActors)
        workers = sum(executor.run([PeakMemory()] * executor.workers)) if apart else 0.0
    phases = foresee(config.budget, config.search, durations)
    set_up, disk = durations.opening + durations.starting, _disk(config, durations, phases)
    found = Plan(set_up, phases, peak_memory() + workers, disk, None)
    return replace(found, advice=None if minutes is None else _advice(config, durations, found, minutes))


def foresee(budget: Budget, settings: SearchSettings, durations: Durations) -> tuple[Phase, ...]:
    """The phases of a search as its budget and these durations make them."""
    names = (
        "warm-up",
        "widening",
        *(f"generation {g + 1}" for g in range(len(budget.generation_steps))),
        *(f"settling {s + 1}" for s in range(len(budget.settling_steps))),
    )
    phases: list[Phase] = []
    clock = durations.starting
    for number, name in enumerate(names):
        alone = durations.settling_step if number else durations.warmup_step
        step = durations.later_step if 0 < number <= budget.choice else alone
        measuring = evaluations_after(settings, budget, number) * durations.evaluation
        if left_out(settings, budget, number, clock, durations.evaluation):
            steps = 0
            measuring = evaluations_of_choice(settings) * durations.evaluation if number == budget.choice else 0.0
        elif budget.minutes is None:
            steps = budget.steps[number]
        else:
            kept = measuring if number > 1 else 0.0  # what evaluations take is not known before the first of them
            steps = max(CHUNK, round((budget.ends[number] * budget.minutes * 60 - kept - clock) / step))
        phases.append(Phase(name, steps, steps * step, measuring))
        clock += steps * step + measuring
    return tuple(phases)


def _measure(config: RunConfig, space: Space, executor: Executor, opening: float, starting: float) -> Durations:
    trainer, rng = MetaTrainer(SUPERNET, executor), np.random.default_rng(config.seed)
    settings = config.search

    phases = range(1, config.budget.choice + 1)
    share = float(np.mean([leader_share(settings, config.budget, phase) for phase in phases]))

    def later() -> Architecture:
        return space.default if rng.random() < share else space.sample(rng)

    settling_step = _step_seconds(trainer, lambda: space.default, settings)
    later_step = _step_seconds(trainer, later, settings)
    trainer.split = WARM_UP
    smaller = config.warmup_size is not None
    warmup_step = _step_seconds(trainer, lambda: space.default, settings) if smaller else settling_step
    evaluation = _evaluation_seconds(config, space, executor, rng)
    return Durations(opening, starting, warmup_step, later_step, settling_step, evaluation)


def _step_seconds(trainer: MetaTrainer, draw: Callable[[], Architecture], settings: SearchSettings) -> float:
    """Of one outer step, after some that do not count."""

    def steps(count: int) -> float:
        drawn = [[draw() for _ in range(settings.tasks_per_step)] for _ in range(count)]
        begun = time.monotonic()
        trainer.train(drawn, 0, settings.rate)
        return time.monotonic() - begun

    count = max(1, min(200, round(PROBE / (steps(3) / 3))))
    return steps(count) / count


def _evaluation_seconds(config: RunConfig, space: Space, executor: Executor, rng: np.random.Generator) -> float:
    """Of one evaluation, with all workers at it."""
    done, begun, steps = 0, time.monotonic(), config.inner.steps
    while time.monotonic() - begun < PROBE:
        jobs = []
        for _ in range(2 * executor.workers):  # each on other episodes: ways may differ between these
            episodes = tuple(sorted({(done + i) % config.search.episodes for i in range(4)}))
            jobs.append(EvaluationJob(SUPERNET, space.sample(rng), Cost(0, 0), "validation", episodes, steps, 0, 0))
            done += len(episodes)
        executor.run(jobs)
    return (time.monotonic() - begun) / done


def _disk(config: RunConfig, durations: Durations, phases: Sequence[Phase]) -> float:
    """Weights, a checkpoint with two moments a weight, the store and the log."""
    weights = sum(array.nbytes for array in pack(make_learner(config)).values())
    rows = sum(phase.evaluation for phase in phases) / durations.evaluation
    lines = sum(phase.steps for phase in phases) / CHUNK
    return (4 * weights + rows * ROW + lines * LINE) / MIB


def _advice(config: RunConfig, durations: Durations, found: Plan, minutes: float) -> str:
    """One sentence for somebody who has `minutes`."""
    if found.seconds <= 60 * minutes:
        return f"It fits into {minutes:g} minutes{_dropped(config, found.phases)}."
    shortest = _seconds(foresee(replace(config.budget, minutes=0.0), config.search, durations))
    left = minutes - durations.opening / 60
    if 60 * minutes < found.set_up + shortest:
        return (
            f"{minutes:g} minutes are too few: setting up takes {found.set_up:.0f} s, and the shortest training "
            f"with its evaluations {shortest:.0f} s; smaller search.episodes and search.final_episodes shorten these."
        )
    fitting = foresee(replace(config.budget, minutes=left), config.search, durations)
    steps, measuring = sum(p.steps for p in fitting), sum(p.evaluation for p in fitting)
    text = (
        f"For {minutes:g} minutes train with --minutes {left:.3g}: about {steps} outer steps in place of {found.steps}"
    )
    episodes = max(4, int(config.search.episodes * 20 * left / measuring)) if measuring else 0
    if measuring > 60 * left / 3 and episodes < config.search.episodes:
        text += f", and with --set search.episodes={episodes}, as evaluations would take {measuring / (60 * left):.0%}"
    return f"{text}{_dropped(config, fitting)}."


def _dropped(config: RunConfig, phases: Sequence[Phase]) -> str:
    """What the minutes have no room for, and how they would: the end of a sentence."""
    without = [phase.name for phase in phases if phase.name.startswith("generation") and not phase.steps]
    if config.budget.minutes is None or not without:
        return ""
    return f"; {', '.join(without)} will be left out, which fewer search.episodes or more minutes would make room for"
