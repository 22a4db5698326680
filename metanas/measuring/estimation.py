"""Evaluators: architectures to results. Shared weights, or whatever else an architecture can be measured by.

Every measurement becomes a record for the store. One that fails is a record with its traceback, and None in its place.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from metanas.api import Architecture, Candidate, Cost, Evaluation
from metanas.learning.executor import Executor
from metanas.learning.worker import EvaluationJob, Worker, evaluated
from metanas.measuring.cost import CostOf
from metanas.spaces.genes import Genotypes

Record = Callable[[Sequence[Evaluation]], None]


@dataclass(frozen=True)
class SharedWeights:
    """Mean accuracy on common episodes of a split, with the weights that the executor's workers hold.

    `share` is the part of the episodes that an architecture is measured on, the first ones and one at least: a strategy
    that races gives the lower rungs fewer.
    """

    executor: Executor
    network: str
    cost: CostOf
    split: str
    episodes: Sequence[int]
    inner_steps: int
    generation: int
    weights_version: int
    record: Record
    share: Callable[[Architecture], float] = lambda architecture: 1.0

    def __call__(self, architectures: Sequence[Architecture]) -> list[Candidate | None]:
        evaluations = [e for rows in self.executor.run([self._job(a) for a in architectures]) for e in rows]
        self.record(evaluations)
        return candidates(architectures, evaluations, self.cost)

    def _job(self, architecture: Architecture) -> EvaluationJob:
        count = max(1, round(self.share(architecture) * len(self.episodes)))
        return EvaluationJob(
            self.network,
            architecture,
            self.cost(architecture),
            self.split,
            tuple(self.episodes[:count]),
            self.inner_steps,
            self.generation,
            self.weights_version,
        )


@dataclass(frozen=True)
class MeasureJob:
    """One architecture by the measure of that name which the worker holds, at a share of a full measurement."""

    measure: str
    architecture: Architecture
    share: float
    cost: Cost
    space: str
    form: str
    task: str
    seed: int
    generation: int
    weights_version: int

    def run(self, worker: Worker) -> Evaluation:
        def measure() -> tuple[float, None]:
            found = worker.measures[self.measure](self.architecture, self.share)
            if not math.isfinite(found):
                raise ArithmeticError(f"the measure '{self.measure}' is {found}")
            return found, None

        return evaluated(
            measure,
            self.cost,
            lambda: self.form,
            architecture=self.architecture,
            space=self.space,
            generation=self.generation,
            weights_version=self.weights_version,
            split=self.measure if self.share == 1 else f"{self.measure} at {self.share:g}",
            task=self.task,
            episode=0,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Measured:
    """Each architecture once, by a measure that the executor's workers hold; its name stands as the records' split.

    `share` is the part of a full measurement that is spent on an architecture, which a record's split names where it is
    not all.
    """

    executor: Executor
    measure: str
    cost: CostOf
    space: Genotypes
    task: str
    seed: int
    record: Record
    generation: int = 0
    weights_version: int = 0
    share: Callable[[Architecture], float] = lambda architecture: 1.0

    def __call__(self, architectures: Sequence[Architecture]) -> list[Candidate | None]:
        evaluations = self.executor.run([self._job(a) for a in architectures])
        self.record(evaluations)
        return candidates(architectures, evaluations, self.cost)

    def _job(self, architecture: Architecture) -> MeasureJob:
        return MeasureJob(
            self.measure,
            architecture,
            self.share(architecture),
            self.cost(architecture),
            self.space.name,
            self.space.describe(architecture),
            self.task,
            self.seed,
            self.generation,
            self.weights_version,
        )


def candidates(
    architectures: Sequence[Architecture], evaluations: Sequence[Evaluation], cost: CostOf
) -> list[Candidate | None]:
    """The mean accuracy of each architecture over its records; None where one of them failed."""
    rows: dict[Architecture, list[float | None]] = defaultdict(list)
    for evaluation in evaluations:
        rows[evaluation.architecture].append(evaluation.accuracy)
    found: list[Candidate | None] = []
    for architecture in architectures:
        accuracies = [accuracy for accuracy in rows[architecture] if accuracy is not None]
        whole = len(accuracies) == len(rows[architecture])
        found.append(Candidate(architecture, float(np.mean(accuracies)), cost(architecture)) if whole else None)
    return found


def compared(evaluations: Sequence[Evaluation], anchor: Architecture) -> Iterator[tuple[Evaluation, float, float]]:
    """Each with its accuracy and that of `anchor` with the same weights on the same episode, where both have one.

    Weights and episodes differ between generations; the difference to one architecture that every generation measures
    can be compared.
    """
    bases = {_occasion(e): e.accuracy for e in evaluations if e.architecture == anchor and e.accuracy is not None}
    for e in evaluations:
        if e.accuracy is not None and (base := bases.get(_occasion(e))) is not None:
            yield e, e.accuracy, base


def _occasion(e: Evaluation) -> tuple[int, int, int, str, int]:
    return e.weights_version, e.generation, e.seed, e.split, e.episode


def observations(evaluations: Sequence[Evaluation], anchor: Architecture) -> list[tuple[Architecture, float]]:
    """Per generation and architecture, its mean accuracy less that of `anchor`, on the episodes that both have.

    In the order of the generations.
    """
    found: dict[tuple[int, Architecture], list[tuple[float, float]]] = defaultdict(list)
    for e, own, base in compared(evaluations, anchor):
        found[e.generation, e.architecture].append((own, base))
    differences = []
    for (_, architecture), pairs in sorted(found.items(), key=lambda item: item[0][0]):
        own, base = (np.mean(part) for part in zip(*pairs, strict=True))
        differences.append((architecture, float(own - base)))
    return differences
