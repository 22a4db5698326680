"""The strategies by name, made from the options that a configuration gives."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_type_hints

from pydantic import create_model

from metanas.errors import MetanasError
from metanas.measuring.cost import CostOf
from metanas.parsing import STRICT, parse
from metanas.search.controller import Ppo, Reinforce
from metanas.search.objective import LatencyReward
from metanas.spaces.genes import Genotypes
from metanas.strategies.archive import Limits
from metanas.strategies.evolution import Evolution
from metanas.strategies.guided import Guided
from metanas.strategies.halving import Asha, Halving, Hyperband
from metanas.strategies.plain import Exhaustive, LocalSearch, Random
from metanas.strategies.regularized import Regularized
from metanas.strategies.strategy import Strategy
from predictors.models import GRAPH_MODELS, MODELS, make_model
from predictors.predictor import Predictor

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "random": Random,
    "exhaustive": Exhaustive,
    "local": LocalSearch,
    "evolution": Evolution,
    "regularized": Regularized,
    "reinforce": Reinforce,
    "ppo": Ppo,
    "guided": Guided,
    "halving": Halving,
    "hyperband": Hyperband,
    "asha": Asha,
}
GUIDES = tuple(name for name in MODELS if name not in GRAPH_MODELS)
"""The predictor's models that the strategy "guided" can ask: those that read any features."""
ENAS, DARTS = "enas", "darts"
"""Strategies of a search that are tied to its shared weights: REINFORCE's controller, and one that asks nobody."""
OVER = {"name": "random"}
"""What a race is run over unless the option `over` says otherwise."""


def make_strategy(
    choice: Mapping[str, Any],
    space: Genotypes,
    size: int,
    limits: Limits | None = None,
    key: str = "search.strategy",
    sources: Sequence[Predictor] = (),
) -> Strategy:
    """The strategy that `choice` names, with the other items as its options and `size` the size of its population.

    `sources` are predictors of other tasks, for a strategy that asks any. Raises MetanasError, which starts with `key`,
    for an unknown name or option or a value out of range.
    """
    options = dict(choice)
    name = options.pop("name", None)
    if name not in STRATEGIES:
        raise MetanasError(f"{key}: there is no strategy {name!r}; name one of {', '.join(STRATEGIES)}.")
    kind = STRATEGIES[name]
    parameters = inspect.signature(kind).parameters
    parts: dict[str, Any] = {"limits": limits}
    if "over" in parameters:
        parts["over"] = make_strategy(options.pop("over", OVER), space, size, limits, f"{key}.over", sources)
    if "model" in parameters:
        model = options.pop("model", "gaussian process")
        if model not in GUIDES:
            raise MetanasError(f"{key}: there is no model {model!r}; name one of {', '.join(GUIDES)}.")
        parts |= {"model": partial(make_model, model, 0, ()), "sources": sources}
    elif sources and "over" not in parameters:
        raise MetanasError(f"{key}: '{name}' asks no predictors, of other searches neither; name 'guided'.")
    return kind(space, size, **parts, **_checked(key, name, kind, options))


def make_limits(cost: CostOf, most: Mapping[str, float]) -> Limits | None:
    """The limits of a configuration, None where it has none. Raises MetanasError for a cost that does not exist."""
    return Limits(cost, most) if most else None


def asks_for_latency(
    strategy: Mapping[str, Any], limits: Mapping[str, float], objective: LatencyReward | None = None
) -> bool:
    """Whether anything in a configuration counts the seconds of an architecture."""
    return objective is not None or "latency" in limits or _counts_latency(strategy)


def _counts_latency(choice: Any) -> bool:
    """Whether a strategy, or one that it is run over, names latency; what is wrong with it is said when it is made."""
    if not isinstance(choice, Mapping):
        return False
    costs = choice.get("costs", ())
    return (isinstance(costs, Sequence) and "latency" in costs) or _counts_latency(choice.get("over"))


def _checked(key: str, name: str, kind: Callable[..., Strategy], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the types that the constructor declares."""
    plain = {
        parameter.name: parameter.default
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in ("limits", "model", "over", "sources")
    }
    hints = get_type_hints(kind.__init__)
    fields: dict[str, Any] = {option: (hints[option], default) for option, default in plain.items()}
    model = create_model(name, __config__=STRICT, **fields)
    found = parse(model, options, f"{key}: the strategy '{name}' (its options: {', '.join(plain) or 'none'})")
    return {option: getattr(found, option) for option in options}
