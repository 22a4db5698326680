"""The outer step: Adam on shared weights, by the mean meta-gradient of several tasks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metanas.api import Architecture
from metanas.learning.adam import Moments, adam_step
from metanas.learning.learner import Learner
from metanas.learning.meta import MetaGradient
from metanas.learning.state import State, copy_into, fill, pack
from metanas.spaces.space import Index

FIRST, SECOND, STEPS = "adam.first.", "adam.second.", "adam.steps."  # prefixes in a `State`


@dataclass(frozen=True)
class Part:
    """What one task, or several together, add to a gradient: under the names of `State` an architecture's slices."""

    architecture: Architecture
    arrays: State
    tasks: int = 1

    @staticmethod
    def of(architecture: Architecture, gradient: MetaGradient, tasks: int = 1) -> "Part":
        """From the sum of the tasks' gradients."""
        arrays = {"net." + n: g.cpu().numpy() for n, g in gradient.weights.items()}
        arrays |= {"meta." + n: g.cpu().numpy() for n, g in gradient.parameters.items()}
        return Part(architecture, arrays, tasks)


class OuterOptimizer:
    """Adam on the shared weights and the meta-parameters of one network.

    A step touches only the entries that its architectures use, moments included (as `torch.optim.SparseAdam` does for
    rows), so that no weight moves by the momentum of steps that others made.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._moments: dict[str, Moments] = {}

    @torch.no_grad()
    def step(self, parts: Sequence[Part], rate: float) -> None:
        """One step by the mean over all tasks, summed in the parts' order. `rate` is Adam's learning rate."""
        tasks = sum(part.tasks for part in parts)
        entries: dict[str, list[tuple[Index, np.ndarray]]] = defaultdict(list)
        for part in parts:
            slices = self.learner.supernet.space.slices(part.architecture)
            for name, array in part.arrays.items():
                entries[name].append((slices[name.removeprefix("net.")] if name.startswith("net.") else (), array))
        for name, found in entries.items():
            weight = self._weight(name)
            if name not in self._moments:
                self._moments[name] = Moments.of(weight)
            box, total, used = _gather(weight, found)
            adam_step(weight, self._moments[name], total / tasks, rate, box, used)

    def state(self) -> State:
        """A copy of weights, meta-parameters and moments."""
        state = {name: array.copy() for name, array in pack(self.learner).items()}
        for name, moments in self._moments.items():
            state[FIRST + name] = moments.first.cpu().numpy().copy()
            state[SECOND + name] = moments.second.cpu().numpy().copy()
            state[STEPS + name] = np.array(moments.steps)
        return state

    def load(self, state: State) -> None:
        """Goes on where `state` was taken; with fresh moments where it has none."""
        fill(self.learner, state)
        self._moments = {}
        for name in [key.removeprefix(STEPS) for key in state if key.startswith(STEPS)]:
            first, second = (torch.empty_like(self._weight(name)) for _ in range(2))
            copy_into(first, state[FIRST + name])
            copy_into(second, state[SECOND + name])
            self._moments[name] = Moments(first, second, int(state[STEPS + name]))

    def _weight(self, name: str) -> Tensor:
        kind, _, key = name.partition(".")
        return (self.learner.supernet.shared if kind == "net" else self.learner.meta)[key]


def _gather(weight: Tensor, entries: Sequence[tuple[Index, np.ndarray]]) -> tuple[Index, Tensor, Tensor | None]:
    """The smallest box of `weight` that holds all slices, their sum in it, and where there are any (None: all over)."""
    indices = [index for index, _ in entries]
    box = tuple(slice(min(s.start for s in dims), max(s.stop for s in dims)) for dims in zip(*indices, strict=True))
    if all(index == box for index in indices):
        whole = entries[0][1].copy(order="K")  # the layout of the weights, as theirs is
        for _, array in entries[1:]:
            whole += array
        return box, torch.from_numpy(whole).to(weight.device), None
    total = torch.zeros_like(weight[box], device="cpu")
    used = torch.zeros_like(total, dtype=torch.bool)
    for index, array in entries:
        inside = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(index, box, strict=True))
        total.numpy()[inside] += array
        used[inside] = True
    return box, total.to(weight.device), used.to(weight.device)
