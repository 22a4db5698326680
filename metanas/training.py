"""Meta-training: outer steps on shared weights from the gradients of several tasks."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metanas.api import Architecture
from metanas.executor import Executor
from metanas.learner import Learner
from metanas.spaces.space import Index
from metanas.worker import Gradient, GradientJob, State, pack


class MetaTrainer:
    """Adam on the shared weights and the meta-parameters of one network.

    An outer step moves only the weights that its architectures use: Adam's momentum would go on moving the
    others, so they are put back.
    """

    def __init__(self, network: str, learner: Learner, executor: Executor) -> None:
        self.network = network
        self.learner = learner
        self.executor = executor
        self.version = 0  # outer steps made
        self.drop_path = 0.0  # probability with which training drops a path
        self._parameters = {"net." + n: w for n, w in learner.supernet.shared.items()}
        self._parameters |= {"meta." + n: w for n, w in learner.meta.items()}
        self._optimizer = torch.optim.Adam(list(self._parameters.values()), lr=0.0)
        executor.load(network, pack(learner))

    def step(self, architectures: Sequence[Architecture], first_episode: int, rate: float) -> tuple[float, float]:
        """One outer step: a task and an architecture each, gradients averaged in the order of the tasks.

        Returns the mean query loss and accuracy. `rate` is Adam's learning rate.
        """
        jobs = [
            GradientJob(self.network, architecture, first_episode + task, self.drop_path)
            for task, architecture in enumerate(architectures)
        ]
        gradients = self.executor.run(jobs)
        used = self._accumulate(architectures, gradients)
        before = {name: self._parameters[name].clone() for name in used}
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            for name, entries in used.items():
                torch.where(entries, self._parameters[name], before[name], out=self._parameters[name])
        self.version += 1
        # Only what moved travels to the workers.
        self.executor.load(self.network, {name: self._parameters[name].detach().numpy() for name in used})
        count = len(gradients)
        return sum(g.loss for g in gradients) / count, sum(g.accuracy for g in gradients) / count

    def _accumulate(self, architectures: Sequence[Architecture], gradients: Sequence[Gradient]) -> dict[str, Tensor]:
        """Writes the mean gradient; returns, for every weight in use, which entries some architecture used."""
        used: dict[str, Tensor] = {}
        for parameter in self._parameters.values():
            parameter.grad = None
        for architecture, gradient in zip(architectures, gradients, strict=True):
            slices = self.learner.supernet.space.slices(architecture)
            for name, array in gradient.arrays.items():
                index: Index = slices[name.removeprefix("net.")] if name.startswith("net.") else ()
                parameter = self._parameters[name]
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                    used[name] = torch.zeros_like(parameter, dtype=torch.bool)
                parameter.grad[index] += torch.tensor(array) / len(gradients)
                used[name][index] = True
        return used

    def state(self) -> State:
        """Weights, meta-parameters and the optimiser's moments."""
        state = {name: array.copy() for name, array in pack(self.learner).items()}
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"adam.{key}.{name}"] = value.numpy().copy()
        state["version"] = np.array(self.version)
        return state

    def restore(self, state: State) -> None:
        """Continues where `state` was taken."""
        self.version = int(state["version"])
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(torch.tensor(state[name]))
            moments = {key: state.get(f"adam.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self._optimizer.state[parameter] = {k: torch.tensor(v) for k, v in moments.items()}
        self.executor.load(self.network, pack(self.learner))
