"""The architectures that a new task chooses from."""

import numpy as np

from metanas.api import Architecture
from metanas.assembly import make_space
from metanas.commands.training import make_features, make_limits
from metanas.config import RunConfig
from metanas.run import RunFolder
from metanas.seeding import stream
from metanas.strategies.evolution import Evolution
from predictors.saved import load_predictor

OFFSPRING = 24
"""Fresh architectures bred from the population for a new task, of which the predictor lets the best be tried."""


def candidates(run: RunFolder, config: RunConfig) -> tuple[Architecture, ...]:
    """The run's choice, then what the predictor thinks best of the population and of its fresh offspring."""
    space = make_space(config)
    features = make_features(config, space, run.path, timed="latency" in config.search.limits)
    strategy = Evolution(space, config.search.population, limits=make_limits(config, features))
    strategy.tell(run.members)
    fresh = strategy.ask(OFFSPRING, stream(config.seed, "offspring of a new task"))
    known = list(dict.fromkeys([*run.population, *fresh]))
    table = features(known)
    mean, _ = load_predictor(run.path / "predictor.safetensors", space.name, table.shape[1]).predict(table)
    ranked = [known[i] for i in np.argsort(-mean, kind="stable")]
    return tuple(dict.fromkeys([run.chosen, *ranked]))[: config.adaptation.candidates]
