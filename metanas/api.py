"""The records that travel between the parts. No behaviour beyond what their fields imply."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Architecture = tuple[int, ...]
"""A point of a search space: one small integer a gene."""

Status = Literal["ok", "failed"]

Show = Callable[[dict[str, Any]], None]
"""Is told what happens, as the lines of a log are."""


@dataclass(frozen=True)
class Cost:
    """What one architecture costs to run on one input."""

    params: int
    macs: int  # multiply-accumulates of one forward pass
    latency: float | None = None  # seconds of one forward pass on the device in question, None where not measured


@dataclass(frozen=True)
class Evaluation:
    """What one architecture did on one episode, by one measure or in one training.

    A failure is a record too, with its traceback.
    """

    architecture: Architecture
    space: str
    generation: int
    weights_version: int
    split: str  # of the episodes, or a measure ("alone at 0.25"), "grid" (a point of scaling) or "final" (a training)
    task: str
    episode: int  # index in the stream of `seed` and `split`, 0 where that is none of episodes
    seed: int
    params: int
    macs: int
    seconds: float
    status: Status
    accuracy: float | None = None  # fraction of the query set (or a score), None when failed
    loss: float | None = None
    error: str | None = None
    form: str | None = None  # the network as its space describes it; None when failed, and in stores of version 1


@dataclass(frozen=True)
class Candidate:
    """An architecture of the population with its mean accuracy on a generation's common episodes."""

    architecture: Architecture
    accuracy: float
    cost: Cost

    def row(self) -> dict[str, Any]:
        """As the log and the run's files hold it."""
        row = {
            "architecture": list(self.architecture),
            "accuracy": self.accuracy,
            "params": self.cost.params,
            "macs": self.cost.macs,
        }
        return row if self.cost.latency is None else row | {"latency": self.cost.latency}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The candidate of a `row`."""
        cost = Cost(row["params"], row["macs"], row.get("latency"))
        return cls(tuple(row["architecture"]), row["accuracy"], cost)
