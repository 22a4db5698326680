"""The main loop: weights and architectures evolve together (AT-NAS, Rong et al. 2021; CARS, Yang et al. 2020).

Warm-up trains the default network's weights, widening brings in uniformly random paths, and then every
generation trains the weights on architectures drawn from the population, breeds offspring, lets the predictor screen
them, measures all on common meta-validation episodes and selects by accuracy and cost. Of the last population one is
chosen on more episodes, and settling trains it alone. What is drawn at random is a function of the seed and a counter,
so a run resumes by counting.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from metanas.api import Architecture, Candidate, Evaluation
from metanas.errors import MetanasError
from metanas.learning.state import State
from metanas.learning.trainer import MetaTrainer
from metanas.measuring.cost import CostOf
from metanas.measuring.estimation import SharedWeights, observations
from metanas.search.objective import LatencyReward
from metanas.search.schedule import (
    Budget,
    Progress,
    SearchSettings,
    evaluations_after,
    leader_share,
    left_out,
    outer_rate,
    training_episodes,
)
from metanas.seeding import stream
from metanas.spaces.ops import scheduled_drop_path
from metanas.spaces.space import Space
from metanas.strategies.archive import Limits
from metanas.strategies.halving import fidelity
from metanas.strategies.strategy import Strategy
from predictors.screening import Screen

CHUNK = 10
"""Steps between two looks at the clock, and two lines of the log."""
CHECKPOINT = 200
"""Steps between two checkpoints."""


Encode = Callable[[Sequence[Architecture]], np.ndarray]
"""From one architecture at least to what the screen sees of them, (n, d)."""
Save = Callable[[Progress, State, dict[str, Any]], None]
"""Keeps a checkpoint in place of the last one: how far the search is, the trainer's state and the strategy's."""


class Listener(Protocol):
    """Where the search writes what happens."""

    def event(self, event: str, **record: Any) -> None: ...

    def record(self, evaluations: Sequence[Evaluation]) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """The last population, its finalists as rows of more episodes' accuracy, and the one chosen."""

    population: tuple[Candidate, ...]
    finalists: tuple[dict[str, Any], ...]
    chosen: Architecture


@dataclass(kw_only=True)
class Search:
    """One run of the loop; `run` continues from `progress`.

    `objective` puts something else in place of the accuracies that are maximised.
    """

    seed: int
    space: Space
    trainer: MetaTrainer
    strategy: Strategy
    screen: Screen
    features: Encode
    cost: CostOf
    inner_steps: int
    budget: Budget
    settings: SearchSettings
    listener: Listener
    save: Save
    progress: Progress
    limits: Limits | None = None
    objective: LatencyReward | None = None

    def __post_init__(self) -> None:
        self._started = time.monotonic() - self.progress.seconds

    def run(self) -> Outcome:
        """The whole loop."""
        while (phase := self.progress.phase) < len(self.budget.steps):
            if not self._left_out():
                self._train()
                if 0 < phase <= self.budget.choice:
                    self._generation(phase - 1)
            if phase == self.budget.choice:
                self._choose()
            self.progress.finished.append(self.progress.step)
            self.progress.phase, self.progress.step = phase + 1, 0
            self._checkpoint()
        members = tuple(map(self._plain, self.strategy.population))
        return Outcome(members, tuple(self.progress.finalists), self._chosen)

    def _train(self) -> None:
        """The outer steps of the present phase, or what is left of them."""
        progress, planned = self.progress, self.budget.steps[self.progress.phase]
        started = time.monotonic()
        self.trainer.drop_path = scheduled_drop_path(
            self.settings.drop_path, progress.phase, len(self.budget.steps) - 1
        )
        self.trainer.split = training_episodes(progress.phase)
        while not self._phase_over(planned):
            count = CHUNK if self.budget.minutes else min(CHUNK, planned - progress.step)
            tasks = self.settings.tasks_per_step
            drawn = [self._draw(progress.episodes + step * tasks) for step in range(count)]
            loss, accuracy = np.mean(self.trainer.train(drawn, progress.episodes, self._rate()), axis=0)
            progress.step += count
            progress.episodes += count * tasks
            self._event(
                "steps",
                phase=self.budget.kind(progress.phase),
                generation=min(max(0, progress.phase - 1), len(self.budget.generation_steps)),
                step=sum(progress.finished) + progress.step,
                loss=float(loss),
                accuracy=float(accuracy),
            )
            if progress.step % CHECKPOINT < CHUNK and not self._phase_over(planned):
                self._checkpoint()
        self._event("phase", phase="weights", duration=time.monotonic() - started)

    def _left_out(self) -> bool:
        progress = self.progress
        return not progress.step and left_out(
            self.settings, self.budget, progress.phase, self._seconds(), progress.fitness_seconds
        )

    def _phase_over(self, planned: int) -> bool:
        if self.budget.minutes is None:
            return self.progress.step >= planned
        phase = self.progress.phase
        end = self.budget.ends[phase] * self.budget.minutes * 60
        # What measuring will take, by what it took last.
        measuring = evaluations_after(self.settings, self.budget, phase) * self.progress.fitness_seconds
        # One chunk at least, so that every phase learns something.
        return self.progress.step > 0 and self._seconds() >= end - measuring

    def _draw(self, episode: int) -> list[Architecture]:
        """The architectures of the step that begins at a training episode, one for each of its tasks."""
        rng = stream(self.seed, "architectures", episode)
        return [self._draw_one(rng) for _ in range(self.settings.tasks_per_step)]

    def _draw_one(self, rng: np.random.Generator) -> Architecture:
        leading = leader_share(self.settings, self.budget, self.progress.phase)
        leads, explore = rng.random() < leading, rng.random() < self.settings.explore
        if leads:
            return self._leader
        population = self.strategy.population
        if explore or not population:
            return self.space.sample(rng)
        return population[int(rng.integers(len(population)))].architecture

    @property
    def _leader(self) -> Architecture:
        """The choice, before it the most accurate member, and before there are any the default network."""
        if self.progress.finalists:
            return self._chosen
        best = max(self.strategy.population, key=lambda member: member.accuracy, default=None)
        return self.space.default if best is None else best.architecture

    def _rate(self) -> float:
        return outer_rate(self.settings, self.budget, self.progress.phase)

    def _generation(self, generation: int) -> None:
        """Offspring, screening, common evaluation and selection; generation 0 is the first population."""
        started = time.monotonic()
        rng = stream(self.seed, "offspring", generation)
        if generation == 0:
            members, fresh = [], self.strategy.ask(self.settings.population, rng)
        else:
            members = [member.architecture for member in self.strategy.population]
            proposals = self.strategy.ask(self.settings.proposals, rng)
            encoded = self.features(proposals) if proposals else np.empty((0, 0))
            fresh = [proposals[i] for i in self.screen.choose(encoded, self.settings.offspring)]
        asked = list(dict.fromkeys([self.space.default, *members, *fresh]))
        encoded = self.features(asked)
        predicted, nearest = self.screen.predict(encoded), self.screen.nearest(encoded)
        first = generation * self.settings.episodes
        candidates, evaluations = self._measure(asked, range(first, first + self.settings.episodes), generation)
        seen = learn(self.screen, self.features, evaluations, self.space.default)
        # The default is measured on all episodes, whatever a race asks for: told on a lower rung it would not compare.
        default = self.space.default
        in_full = fidelity(self.strategy, default) == 1
        self.strategy.tell([c for c in candidates if in_full or c.architecture != default])
        self._event("phase", phase="fitness", duration=time.monotonic() - started)
        pairs: list[list[float]] = []
        baselines: dict[str, list[float]] = {"params": [], "macs": [], "nearest": []}
        if predicted is not None and nearest is not None:
            judged = [(asked.index(a), target) for a, target in seen if a in set(fresh)]
            costs = [self.cost(asked[row]) for row, _ in judged]
            pairs = [[float(predicted[row]), target] for row, target in judged]
            baselines["params"] = [own.params for own in costs]
            baselines["macs"] = [own.macs for own in costs]
            baselines["nearest"] = [float(nearest[row]) for row, _ in judged]
        self._event(
            "generation",
            generation=generation,
            best=self._plain(max(candidates, key=lambda c: c.accuracy)).accuracy,
            population=[self._plain(c).row() for c in self.strategy.population],
            predictor=self.screen.report(),
            predicted=pairs,
            baselines=baselines,
        )

    def _measure(
        self, architectures: Sequence[Architecture], episodes: Sequence[int], generation: int
    ) -> tuple[list[Candidate], list[Evaluation]]:
        """All on the same episodes, on the first of them where a strategy races: what did not fail, and the records."""
        started = time.monotonic()
        evaluations: list[Evaluation] = []
        measure = SharedWeights(
            self.trainer.executor,
            self.trainer.network,
            self.cost,
            "validation",
            episodes,
            self.inner_steps,
            generation,
            self.trainer.version,
            evaluations.extend,
            self._share,
        )
        found = [candidate for candidate in measure(architectures) if candidate is not None]
        self.listener.record(evaluations)
        self.progress.fitness_seconds = (time.monotonic() - started) / max(1, len(evaluations))
        if not found:
            raise MetanasError(
                "every architecture of this generation failed; the first error in the store is: "
                f"{next(e.error for e in evaluations if e.error).strip().splitlines()[-1]}"
            )
        return (found if self.objective is None else list(map(self.objective, found))), evaluations

    def _share(self, architecture: Architecture) -> float:
        """All for the default: differences to it are taken on the episodes of each."""
        return 1.0 if architecture == self.space.default else fidelity(self.strategy, architecture)

    def _choose(self) -> None:
        """The most accurate members and the default network once more, on more and fresh episodes."""
        started = time.monotonic()
        generation = self.budget.choice  # one after the last one, in the store and for the episodes
        best = sorted(self.strategy.population, key=lambda c: -c.accuracy)[: self.settings.finalists]
        asked = list(dict.fromkeys([*(c.architecture for c in best), self.space.default]))
        first = generation * self.settings.episodes
        measured, _ = self._measure(asked, range(first, first + self.settings.final_episodes), generation)
        finalists = sorted(measured, key=lambda c: (not self._within(c), -c.accuracy, c.cost.macs))
        if not self._within(finalists[0]):
            raise MetanasError("no architecture within search.limits could be measured; raise the limits.")
        self.progress.finalists = [self._plain(c).row() for c in finalists]
        self._event("phase", phase="fitness", duration=time.monotonic() - started)

    def _plain(self, candidate: Candidate) -> Candidate:
        """With its accuracy, where something else was maximised."""
        return candidate if self.objective is None else self.objective.undo(candidate)

    def _within(self, candidate: Candidate) -> bool:
        return self.limits is None or self.limits.met(candidate.architecture)

    @property
    def _chosen(self) -> Architecture:
        return tuple(self.progress.finalists[0]["architecture"])

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _event(self, event: str, **record: Any) -> None:
        if self.budget.minutes is None:
            done = (sum(self.progress.finished) + self.progress.step) / max(1, sum(self.budget.steps))
        else:
            done = self._seconds() / (60 * self.budget.minutes)
        self.listener.event(event, seconds=self._seconds(), done=min(1.0, done), **record)

    def _checkpoint(self) -> None:
        self.progress.seconds = self._seconds()
        self.save(self.progress, self.trainer.state(), self.strategy.state())


def learn(
    screen: Screen, features: Encode, evaluations: Sequence[Evaluation], anchor: Architecture
) -> list[tuple[Architecture, float]]:
    """Shows the screen the `observations` of a generation, and returns them; none where the anchor itself failed."""
    seen = observations(evaluations, anchor)
    if seen:
        screen.update(features([architecture for architecture, _ in seen]), np.array([target for _, target in seen]))
    return seen
