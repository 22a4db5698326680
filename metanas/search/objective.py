"""What a search maximises where accuracy alone is not it."""

from dataclasses import dataclass, replace
from typing import ClassVar

from metanas.api import Candidate
from metanas.errors import MetanasError
from metanas.parsing import STRICT


@dataclass(frozen=True)
class LatencyReward:
    """Accuracy x (latency / target)^w (MnasNet, Tan et al. 2019, equations 2 and 3), target and latency in seconds.

    w is `below` for networks within the target and `above` for slower ones. With -0.07 for both, the paper's soft
    constraint, twice the latency is worth 5% more accuracy; 0 and -1 make a hard one.
    """

    __pydantic_config__: ClassVar = STRICT

    target: float
    below: float = -0.07
    above: float = -0.07

    def __post_init__(self) -> None:
        if self.target <= 0:
            raise MetanasError(f"objective.target must be above 0 seconds, but is {self.target}.")

    def __call__(self, candidate: Candidate) -> Candidate:
        """The candidate with its reward in place of its accuracy."""
        return replace(candidate, accuracy=candidate.accuracy * self._factor(candidate))

    def undo(self, rewarded: Candidate) -> Candidate:
        """The candidate with its accuracy in place of its reward, as reports show it."""
        return replace(rewarded, accuracy=rewarded.accuracy / self._factor(rewarded))

    def _factor(self, candidate: Candidate) -> float:
        latency = candidate.cost.latency
        if latency is None:
            raise ValueError(f"the latency of {candidate.architecture} was not measured")
        return float((latency / self.target) ** (self.below if latency <= self.target else self.above))
