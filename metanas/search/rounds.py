"""A search for one architecture: a strategy asks, an evaluator measures, round after round; or DARTS, step after step.

What is drawn at random is a function of the seed and a counter, so a search resumes by counting.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from metanas.api import Architecture, Candidate, Evaluation
from metanas.errors import MetanasError
from metanas.learning.state import State, weights_of
from metanas.measuring.estimation import Measured
from metanas.measuring.measures import SHARED
from metanas.measuring.oneshot import WARM_UP, OneShot, Paths, draw_paths
from metanas.search.controller import Controlled
from metanas.search.darts import Darts
from metanas.search.schedule import SearchBudget, SearchProgress
from metanas.seeding import stream
from metanas.strategies.archive import Limits
from metanas.strategies.halving import fidelity
from metanas.strategies.strategy import Strategy

CHECKPOINT = 200
"""Steps of shared weights between two checkpoints."""
FROZEN = 0.8
"""The part of the minutes after which shared weights learn no more, where all are measured on the same ones."""

Save = Callable[[str, Mapping[str, Any], State], None]
"""Keeps a checkpoint, under a name: what JSON holds, and arrays."""
Event = Callable[..., None]


class Clock:
    """The used part of a budget's minutes; 0 where it has none."""

    def __init__(self, budget: SearchBudget, before: float) -> None:
        self._minutes, self._started = budget.minutes, time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def used(self) -> float:
        return 0.0 if self._minutes is None else self.seconds / (60 * self._minutes)


@dataclass(kw_only=True)
class Rounds:
    """Asks a strategy for `batch` architectures, has them measured and tells the strategy, until the budget is spent.

    With `shared`, the evaluator's weights learn too: all steps before the first round; or, where `enas` (Pham et al.
    2018, section 2.2), first on the default network and then between the rounds on what the controller draws, whose
    last draws are compared when nothing learns any more. `objective` puts something else in place of the accuracies
    that are maximised.
    """

    seed: int
    strategy: Strategy
    measure: Measured
    budget: SearchBudget
    batch: int
    limits: Limits | None
    objective: Callable[[Candidate], Candidate] | None
    shared: OneShot | None
    enas: bool
    progress: SearchProgress
    save: Save
    event: Event

    def __post_init__(self) -> None:
        self.clock = Clock(self.budget, self.progress.seconds)

    def run(self) -> Architecture:
        """The best of those measured at the largest share. Raises MetanasError when every one failed."""
        progress = self.progress
        while (progress.spent < self.budget.evaluations and self.clock.used < 1) or progress.round == 0:
            self._learn()
            left = math.ceil(self.budget.evaluations - progress.spent)
            asked = self.strategy.ask(min(self.batch, left), stream(self.seed, "proposals", progress.round))
            if not asked:
                break
            self.strategy.tell(self._measure(asked, [fidelity(self.strategy, architecture) for architecture in asked]))
            self._checkpoint()
        compared = progress.measured
        if isinstance(self.strategy, Controlled) and self.enas:
            self._learn()
            drawn = self.strategy.controller.sample(self.strategy.size, stream(self.seed, "last draws"))
            within = [a for a in dict.fromkeys(drawn) if self.limits is None or self.limits.met(a)]
            last = within or [candidate.architecture for candidate in self.strategy.population]
            if last:
                progress.best = progress.error = None  # what was measured before had other weights
                self._measure(last, [1.0] * len(last))
                compared = len(last)
        if progress.best is None:
            raise MetanasError(
                f"all {compared} evaluations of which one was to be chosen failed; the first error in the store is: "
                f"{progress.error}"
            )
        return tuple(progress.best["architecture"])

    def _measure(self, asked: Sequence[Architecture], shares: Sequence[float]) -> list[Candidate]:
        """A round of evaluations, each at a share of a full one: what did not fail."""
        progress = self.progress
        version = 0
        if self.shared is not None:
            version = self.shared.steps
            self.measure.executor.load(SHARED, weights_of(self.shared.state()))
        share_of = dict(zip(asked, shares, strict=True))
        rows: list[Evaluation] = []
        measure = replace(
            self.measure,
            generation=progress.round,
            weights_version=version,
            share=share_of.__getitem__,
            record=rows.extend,
        )
        found = [candidate for candidate in measure(asked) if candidate is not None]
        self.measure.record(rows)
        errors = (row.error.strip().splitlines()[-1] for row in rows if row.error)
        progress.error = progress.error or next(errors, None)
        if self.objective is not None:
            found = list(map(self.objective, found))
        for candidate in found:
            row = candidate.row() | {"share": share_of[candidate.architecture]}
            if progress.best is None or _standing(row) > _standing(progress.best):
                progress.best = row
        progress.round += 1
        progress.spent = round(progress.spent + sum(shares), 9)
        progress.measured += len(asked)
        self.event(
            "round",
            round=progress.round,
            evaluations=progress.spent,
            failed=len(asked) - len(found),
            best=None if progress.best is None else progress.best["accuracy"],
            seconds=self.clock.seconds,
            done=self._done,
        )
        return found

    def _learn(self) -> None:
        """Trains the shared weights as far as they should be before the next round."""
        shared, budget = self.shared, self.budget
        if shared is None:
            return
        part, until, paths = 1.0, FROZEN, draw_paths(shared.space)
        if self.enas:
            part = WARM_UP + (1 - WARM_UP) * min(1.0, self.progress.spent / budget.evaluations)
            until = 1.0 if self.progress.round else WARM_UP
            paths = self._controlled_paths()
        while shared.steps < round(part * budget.steps) and self.clock.used < until:
            end = min(shared.steps + CHECKPOINT, round(part * budget.steps))
            shared.run(self._until(end, until), paths)
            self._checkpoint()
            self.event("weights", step=shared.steps, seconds=self.clock.seconds, done=self._done)

    def _controlled_paths(self) -> Paths:
        strategy, shared = self.strategy, self.shared
        assert isinstance(strategy, Controlled)
        assert shared is not None
        if self.progress.round == 0:
            return lambda part, rng: [shared.space.default]
        return lambda part, rng: strategy.controller.sample(1, rng)

    def _until(self, end: int, until: float) -> Callable[[int], float]:
        """The used part of the budget, over at a step and at a part of the minutes."""
        return lambda steps: 1.0 if steps >= end or self.clock.used >= until else self._part(steps)

    @property
    def _done(self) -> float:
        return min(1.0, max(self.progress.spent / self.budget.evaluations, self.clock.used))

    def _part(self, steps: int) -> float:
        return max(steps / self.budget.steps, self.clock.used)

    def _checkpoint(self) -> None:
        progress = self.progress
        progress.seconds = self.clock.seconds
        state = {} if self.shared is None else self.shared.state()
        content = {"progress": asdict(progress), "strategy": self.strategy.state()}
        self.save(f"{progress.round:06d}-{0 if self.shared is None else self.shared.steps:08d}", content, state)


def _standing(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """A result at a larger share counts more than any at a smaller one; of equals the cheaper."""
    return row["share"], row["accuracy"], -row["macs"]


def run_darts(darts: Darts, budget: SearchBudget, progress: SearchProgress, save: Save, event: Event) -> Architecture:
    """Gradient descent on the architecture until the steps are made, the minutes used, or it has collapsed.

    It asks for nothing and is told nothing: what it finds is first measured by the final training.
    """
    clock = Clock(budget, progress.seconds)

    def part(steps: int) -> float:
        return max(steps / budget.steps, clock.used)

    def epoch(end: int) -> Callable[[int], float]:
        return lambda steps: 1.0 if steps >= end else part(steps)

    while darts.kept is None and part(darts.steps) < 1:
        darts.run(epoch(darts.steps + darts.epoch_steps))
        progress.seconds = clock.seconds
        save(f"{darts.steps:08d}", {"progress": asdict(progress)}, darts.state())
        event(
            "darts",
            step=darts.steps,
            skips=darts.skips,
            collapsed=darts.collapsed,
            seconds=clock.seconds,
            done=min(1.0, part(darts.steps)),
        )
    return darts.architecture
