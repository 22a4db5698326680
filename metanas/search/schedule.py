"""How long a search trains, at which rate, what it draws and measures, and how far it is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from metanas.errors import MetanasError
from metanas.learning.worker import TRAINING, WARM_UP
from metanas.parsing import STRICT

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Budget:
    """How long to search: by steps, or by the minutes of the whole search.

    With `minutes` set, the steps are ignored but for the number of generations and of settling's phases; those that
    were done are in the run's `repeat.yaml`. Warm-up, widening and settling take their shares of the minutes, the
    generations the rest in equal parts. What the minutes have no room for is left out, and stands as a phase of no
    steps.
    """

    __pydantic_config__: ClassVar = STRICT

    minutes: PositiveFloat | None = None
    warmup_steps: NonNegativeInt = 200
    widening_steps: NonNegativeInt = 100
    generation_steps: tuple[NonNegativeInt, ...] = (100, 100, 100, 100)
    settling_steps: tuple[NonNegativeInt, ...] = (50, 50, 50)
    warmup_share: Share = 0.35
    widening_share: Share = 0.15
    settling_share: Share = 0.2

    def __post_init__(self) -> None:
        """Raises MetanasError where the shares leave less than nothing to the generations."""
        if (shares := round(self.warmup_share + self.widening_share + self.settling_share, 9)) > 1:
            raise MetanasError(
                f"budget: warmup_share, widening_share and settling_share add up to {shares:g}; the generations take "
                "what they leave of 1, so lower one of them."
            )

    @property
    def steps(self) -> tuple[int, ...]:
        """Of every phase: warm-up, widening, the generations, then settling."""
        return (self.warmup_steps, self.widening_steps, *self.generation_steps, *self.settling_steps)

    @property
    def choice(self) -> int:
        """The phase that ends with the choice: the last generation."""
        return 1 + len(self.generation_steps)

    def kind(self, phase: int) -> str:
        """What a phase is called."""
        names = ("warmup", "widening", *("generation" for _ in self.generation_steps))
        return names[phase] if phase <= self.choice else "settling"

    @property
    def ends(self) -> tuple[float, ...]:
        """Where every phase ends, as a fraction of the minutes."""
        begun = self.warmup_share + self.widening_share
        settling = 1 - self.settling_share if self.settling_steps else 1.0
        return (
            self.warmup_share,
            begun,
            *_equal_parts(begun, settling, len(self.generation_steps)),
            *_equal_parts(settling, 1.0, len(self.settling_steps)),
        )


@dataclass(frozen=True)
class SearchBudget:
    """How much a search of one task may do: whatever ends first.

    `evaluations` of architectures, one at a share of a full measurement as that share; `steps` of shared weights (ENAS
    and the evaluator "shared") or of DARTS; `minutes` of the search, without the final training.
    """

    __pydantic_config__: ClassVar = STRICT

    evaluations: PositiveInt = 100
    steps: PositiveInt = 1000
    minutes: PositiveFloat | None = None


@dataclass
class SearchProgress:
    """How far a search of one task is: what a resumed one needs beside its strategy and weights."""

    round: int = 0
    spent: float = 0.0  # full evaluations, one at a share as that share
    measured: int = 0  # evaluations, whatever their share
    seconds: float = 0.0
    best: dict[str, Any] | None = None  # the row of the best so far, and the share it was measured at
    error: str | None = None  # the last line of the first failure


def _equal_parts(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * (part + 1) / count for part in range(count)]


@dataclass(frozen=True)
class SearchSettings:
    """Training and population.

    `rate` is the outer learning rate of warm-up; it falls by a cosine staircase over the phases. `leader_share` of the
    training tasks run the most accurate member (the default network, before there are any), which keeps the dense
    shared weights good (after the sandwich rule, Yu et al. 2019); over the generations its share rises. Settling trains
    the choice alone, so that it ends as well trained as if it had been trained alone from the start. `explore` of the
    rest run uniformly random paths, all else members of the population. Paths are dropped with a probability that
    rises linearly over the phases to `drop_path` (ScheduledDropPath, Zoph et al. 2018). `strategy` holds the name of a
    strategy and its options, as docs/strategies.md lists them; nothing is proposed that exceeds `limits`, the most of
    each cost (params, macs, latency in seconds).
    """

    __pydantic_config__: ClassVar = STRICT

    rate: PositiveFloat = 5e-3
    tasks_per_step: PositiveInt = 2
    population: PositiveInt = 12
    offspring: PositiveInt = 12
    proposals: PositiveInt = 36  # offspring bred for the predictor to screen
    episodes: PositiveInt = 16  # common meta-validation episodes of a generation
    finalists: PositiveInt = 4
    final_episodes: PositiveInt = 60
    leader_share: Share = 0.34
    explore: Share = 0.2
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    strategy: Mapping[str, Any] = field(default_factory=lambda: {"name": "evolution"})
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Progress:
    """How far a meta-training run is: what a resumed one needs beside weights, store and population."""

    phase: int = 0
    step: int = 0  # within the phase
    finished: list[int] = field(default_factory=list)  # the steps of the finished phases
    episodes: int = 0  # training episodes drawn so far
    seconds: float = 0.0
    fitness_seconds: float = 0.0  # for one evaluation of one episode, last measured
    finalists: list[dict[str, Any]] = field(default_factory=list)  # as rows, the choice first; none before it


def outer_rate(settings: SearchSettings, budget: Budget, phase: int) -> float:
    """The outer learning rate; constant within a phase, so that a run by steps repeats a run by minutes exactly."""
    share = max(0, phase - 1) / (len(budget.steps) - 1)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * share))


def training_episodes(phase: int) -> str:
    """Which ones a phase trains on."""
    return WARM_UP if phase == 0 else TRAINING


def leader_share(settings: SearchSettings, budget: Budget, phase: int) -> float:
    """The leader's share of the training tasks: 1 in warm-up and settling, as set at first in between, then rising."""
    if not 0 < phase <= budget.choice:
        return 1.0
    share = max(0, phase - 2) / max(1, len(budget.generation_steps))
    return settings.leader_share + share * (1 - settings.leader_share)


def left_out(settings: SearchSettings, budget: Budget, phase: int, seconds: float, evaluation_seconds: float) -> bool:
    """Whether a phase is not begun: one of no steps, or one that no longer fits with what is measured after it.

    `seconds` are those of the search so far, `evaluation_seconds` those of one evaluation of one episode.
    """
    if phase < 2:
        return False
    if budget.minutes is None:
        return budget.steps[phase] == 0
    if phase > budget.choice:
        return seconds >= budget.ends[phase] * budget.minutes * 60
    measured = evaluations_after(settings, budget, phase)
    if phase < budget.choice:
        measured += evaluations_of_choice(settings)
    return seconds + measured * evaluation_seconds >= budget.ends[budget.choice] * budget.minutes * 60


def evaluations_after(settings: SearchSettings, budget: Budget, phase: int) -> int:
    """How many evaluations of one episode end a phase."""
    if not 0 < phase <= budget.choice:
        return 0
    known = settings.offspring if phase > 1 else 0
    measured = (settings.population + known + 1) * settings.episodes
    return measured + (evaluations_of_choice(settings) if phase == budget.choice else 0)


def evaluations_of_choice(settings: SearchSettings) -> int:
    """The finalists and the default network."""
    return (settings.finalists + 1) * settings.final_episodes
