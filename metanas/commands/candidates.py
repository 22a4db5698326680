"""The architectures that a new task chooses from."""

from dataclasses import dataclass

import numpy as np

from metanas.api import Architecture
from metanas.assembly import make_space
from metanas.commands.blocks import features_of
from metanas.config import RunConfig
from metanas.measuring.cost import costs
from metanas.measuring.latency import latency_in
from metanas.run import RunFolder
from metanas.search.catalogue import make_limits
from metanas.seeding import stream
from metanas.spaces.space import Space
from metanas.strategies.archive import Limits
from metanas.strategies.evolution import Evolution
from predictors.features import Table
from predictors.saved import Loaded, load_predictor

OFFSPRING = 24
"""Fresh architectures bred from the population for a new task, of which the predictor lets the best be tried."""


@dataclass(frozen=True)
class Candidates:
    """A run's choice, and its population and fresh offspring (n) with their features, for the predictor to rank."""

    chosen: Architecture
    known: tuple[Architecture, ...]
    table: Table
    predictor: Loaded
    count: int

    @property
    def pool(self) -> np.ndarray | None:
        """Embeddings (T, D) of the pool's tasks where the predictor asks what the new task is like, else None."""
        return self.predictor.saved.context["pool"] if self.predictor.saved.data.descriptions() else None

    def best(self, task: np.ndarray | None = None) -> tuple[Architecture, ...]:
        """The choice, then what the predictor thinks best for the task with that description (d,)."""
        table = self.table if task is None else self.table.beside("task", np.tile(task, (len(self.known), 1)))
        mean, _ = self.predictor.predict(table)
        ranked = [self.known[row] for row in np.argsort(-mean, kind="stable")]
        return tuple(dict.fromkeys([self.chosen, *ranked]))[: self.count]


def candidates(run: RunFolder, config: RunConfig) -> Candidates:
    """What a new task chooses from, by the run's predictor in use."""
    space = make_space(config)
    predictor = load_predictor(run.path / "predictor.safetensors", space.name)
    features = features_of(run, config, space, predictor.saved)
    strategy = Evolution(space, config.search.population, limits=_limits(run, config, space))
    strategy.tell(run.members if (objective := config.objective) is None else list(map(objective, run.members)))
    fresh = strategy.ask(OFFSPRING, stream(config.seed, "offspring of a new task"))
    known = tuple(dict.fromkeys([*run.population, *fresh]))
    return Candidates(run.chosen, known, features.table(known), predictor, config.adaptation.candidates)


def _limits(run: RunFolder, config: RunConfig, space: Space) -> Limits | None:
    """Seconds count by the run's table where they are limited, whether the predictor sees them or not."""
    limits = config.search.limits
    latency = latency_in(run.path, space, config.image.size, "latency" in limits)
    return make_limits(costs(space, config.image.size, latency), limits)
