"""DARTS (Liu, Simonyan and Yang 2019): the architecture as shares of all paths, learned by gradient descent.

The relaxed network runs every operation of every edge on the SuperNet's weights and adds them by the softmax of
`alphas`, one row an edge (node and earlier state), one column an operation, for each kind of cell. Weights learn from
one half of the data and alphas from the other, in turn (algorithm 1). First order takes the weights as they are;
second order looks one step of theirs ahead, with the mixed derivative by finite differences (equations 7 and 8).

Its failure is known: skip connections learn nothing, so they help while the other operations are still raw, and
alphas collapse to them. `Darts` counts the skip connections of the normal cell after every epoch, and stops by that
count (DARTS+, Liang et al. 2019) or by the growth of the dominant eigenvalue of the architecture's
Hessian (Zela et al. 2020, section 4); the architecture is then that of before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.inner import HEAD, Weights
from metanas.learning.samples import Classification, Samples, batches_of, draw_batch
from metanas.learning.state import State, copy_into
from metanas.learning.supernet import SuperNet
from metanas.measuring.standalone import CLIP, make_head
from metanas.parsing import STRICT
from metanas.search.relaxation import (
    RelaxedLoss,
    architecture_gradient,
    discretise,
    dominant_eigenvalue,
    edges,
    kept_by_eigenvalue,
    kept_by_skips,
    relaxed_loss,
    skip_connections,
)
from metanas.seeding import stream, torch_stream
from metanas.spaces.cells import KINDS, Cells

SPREAD = 1e-3
"""Standard deviation of the first alphas, as in DARTS' code: nearly equal shares."""


@dataclass(frozen=True)
class DartsSettings:
    """How DARTS learns (defaults as in appendix A.1) and when it stops.

    The softmax is taken at a `temperature` that goes geometrically from the first to the second value over the
    budget; below 1 it sharpens. `stop` is "skips" (more than `skips` skip connections in the normal cell for `window`
    epochs; DARTS+ stops at once, but the order of alphas is noise in the first epochs of a small budget),
    "eigenvalue" (the mean of `window` epochs is more than 1 / `growth` of what it was `window` epochs before) or
    "never".
    """

    __pydantic_config__: ClassVar = STRICT

    order: Literal[1, 2] = 1
    batch: int = 64
    rate: float = 0.025
    last_rate: float = 0.001
    momentum: float = 0.9
    decay: float = 3e-4
    architecture_rate: float = 3e-4
    architecture_decay: float = 1e-3
    temperature: tuple[float, float] = (1.0, 1.0)
    stop: Literal["never", "skips", "eigenvalue"] = "skips"
    skips: int = 1
    window: int = 5
    growth: float = 0.75

    def __post_init__(self) -> None:
        """Raises MetanasError, which names the key, for a value that cannot be meant."""
        rates = ("rate", "last_rate", "decay", "architecture_rate", "architecture_decay")
        ranges = {
            **{key: (0 <= getattr(self, key) < math.inf, "finite and at least 0") for key in rates},
            "batch": (self.batch >= 1, "at least 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "temperature": (all(0 < value < math.inf for value in self.temperature), "two finite numbers above 0"),
            "skips": (self.skips >= 0, "at least 0"),
            "window": (self.window >= 1, "at least 1"),
            "growth": (0 < self.growth <= 1, "above 0 and at most 1"),
        }
        for key, (sound, expected) in ranges.items():
            if not sound:
                raise MetanasError(f"strategy.{key} of 'darts' must be {expected}, but is {getattr(self, key)}.")


class Darts:
    """A search over the cell space of `supernet`, whose shared weights it trains in place.

    `run` goes on until its budget is used or the search has stopped; `state` and `restore` continue it elsewhere, to
    the same result. What is drawn at random is a function of the seed and the step.
    """

    def __init__(self, supernet: SuperNet, task: Classification, settings: DartsSettings, seed: int) -> None:
        space = supernet.space
        if not isinstance(space, Cells):
            raise MetanasError(f"DARTS relaxes the space 'cells', but the space is '{space.name}'; choose that one.")
        if "sum" not in space.combine or set(space.operations) <= {"none"}:
            raise MetanasError(
                "DARTS adds up paths: the space's options need 'sum' in combine and an operation other than 'none', "
                f"but are combine {list(space.combine)} and operations {list(space.operations)}."
            )
        self.space, self.settings, self.seed = space, settings, seed
        self.halves = halves(task.train, seed)
        self.steps = 0
        self.part = 0.0  # of the budget, as of the last step
        self.kept: int | None = None  # the epoch whose architecture counts because the search collapsed after it
        self.history: list[Weights] = []  # alphas over temperature after each epoch
        self.eigenvalues: list[float] = []  # after each epoch, where they decide
        head = make_head(space.width << space.reductions, task.train.ways, torch_stream(seed, "darts head"))
        self.weights = {name: supernet.shared[name] for name, _ in space.relaxed().named_parameters()}
        self.weights |= dict(zip(HEAD, (head.weight.detach(), head.bias.detach()), strict=True))
        shape = (sum(edges(space)), len(space.operations))
        generator = torch_stream(seed, "alphas")
        self.alphas = {kind: SPREAD * torch.randn(shape, generator=generator) for kind in KINDS}
        self._optimizers = {
            "sgd": torch.optim.SGD(
                self.weights.values(), settings.rate, momentum=settings.momentum, weight_decay=settings.decay
            ),
            "adam": torch.optim.Adam(
                self.alphas.values(), settings.architecture_rate, (0.5, 0.999), weight_decay=settings.architecture_decay
            ),
        }

    @property
    def skips(self) -> list[int]:
        """The skip connections of the normal cell after each epoch."""
        return [skip_connections(self.space, discretise(self.space, logits)) for logits in self.history]

    @property
    def collapsed(self) -> bool:
        """Whether the search was stopped, or its normal cell has more than `skips` skip connections all the same.

        The latter after each of the last `window` epochs, or after all where they were fewer; whatever `stop` is.
        """
        last = self.skips[-self.settings.window :]
        return self.kept is not None or (bool(last) and min(last) > self.settings.skips)

    @property
    def temperature(self) -> float:
        """Of the last step."""
        start, end = self.settings.temperature
        return start * math.exp(self.part * math.log(end / start))

    @property
    def architecture(self) -> Architecture:
        """What was found: by the present alphas, or by those of before a collapse."""
        return discretise(self.space, self._scaled() if self.kept is None else self.history[self.kept])

    def run(self, done: Callable[[int], float]) -> Architecture:
        """Goes on while `done`, from the steps made to the used part of the budget, is below 1 and nothing collapses.

        The budget also sets rate and temperature, which a budget by steps repeats exactly and one by the clock not.
        Raises MetanasError when the loss is no longer a number.
        """
        while self.kept is None and (part := done(self.steps)) < 1:
            self.part = part
            validation = self._step()
            if self.steps % self.epoch_steps == 0:
                self._look(validation)
        return self.architecture

    def _step(self) -> RelaxedLoss:
        """One step of alphas, then one of the weights; the loss that alphas went down."""
        settings = self.settings
        rate = settings.last_rate + (settings.rate - settings.last_rate) * (1 + math.cos(math.pi * self.part)) / 2
        training, validation = (
            relaxed_loss(self.space, batch.inputs, batch.labels, self.temperature) for batch in self._batches()
        )
        gradient = architecture_gradient(settings.order, training, validation, self.weights, self.alphas, rate)
        self._move("adam", self.alphas, gradient)
        leaves = {name: weight.detach().requires_grad_() for name, weight in self.weights.items()}
        loss = training(leaves, self.alphas)
        if not math.isfinite(float(loss.detach())):
            raise MetanasError(
                f"DARTS diverged: its loss is {float(loss.detach())} at step {self.steps}; lower the rate of the "
                f"weights ({settings.rate}) or of the architecture ({settings.architecture_rate})."
            )
        found = torch.autograd.grad(loss, list(leaves.values()))
        self._optimizers["sgd"].param_groups[0]["lr"] = rate
        self._move("sgd", self.weights, dict(zip(leaves, found, strict=True)))
        self.steps += 1
        return validation

    def _look(self, validation: RelaxedLoss) -> None:
        """Remembers an epoch's architecture, and whether the search has collapsed."""
        settings = self.settings
        self.history.append(self._scaled())
        if settings.stop == "eigenvalue":
            self.eigenvalues.append(dominant_eigenvalue(lambda a: validation(self.weights, a), self.alphas))
            self.kept = kept_by_eigenvalue(self.eigenvalues, settings.window, settings.growth)
        elif settings.stop == "skips":
            self.kept = kept_by_skips(self.skips, settings.skips, settings.window)

    def _scaled(self) -> Weights:
        return {kind: alpha / self.temperature for kind, alpha in self.alphas.items()}

    @property
    def epoch_steps(self) -> int:
        """The steps in which the smaller half is seen once."""
        return batches_of(min(map(len, self.halves.values())), self.settings.batch)

    def _batches(self) -> list[Samples]:
        batch, step, seed = self.settings.batch, self.steps, self.seed
        return [draw_batch(half, batch, step, seed, name) for name, half in self.halves.items()]

    def _move(self, name: str, targets: Weights, gradients: Weights) -> None:
        for key, target in targets.items():
            target.grad = gradients[key]
        if name == "sgd":
            nn.utils.clip_grad_norm_(targets.values(), CLIP)
        self._optimizers[name].step()
        for target in targets.values():
            target.grad = None

    def state(self) -> State:
        """A copy of all that `restore` needs."""
        state = {
            "steps": np.array(self.steps),
            "part": np.array(self.part),
            "kept": np.array(-1 if self.kept is None else self.kept),
            "eigenvalues": np.array(self.eigenvalues),
        }
        for kind, alpha in self.alphas.items():
            state[f"history.{kind}"] = np.array([logits[kind].numpy() for logits in self.history]).reshape(
                -1, *alpha.shape
            )
        for name, tensor in self._tensors().items():
            state[f"tensor.{name}"] = tensor.numpy().copy()
            for optimizer in self._optimizers.values():
                for key, value in optimizer.state.get(tensor, {}).items():
                    state[f"moment.{key}.{name}"] = value.numpy().copy()
        return state

    def restore(self, state: State) -> None:
        """Goes on where `state` was taken."""
        self.steps, self.part, kept = int(state["steps"]), float(state["part"]), int(state["kept"])
        self.kept = None if kept < 0 else kept
        self.eigenvalues = state["eigenvalues"].tolist()
        history = {kind: torch.tensor(state[f"history.{kind}"]) for kind in self.alphas}
        self.history = [dict(zip(history, epoch, strict=True)) for epoch in zip(*history.values(), strict=True)]
        tensors = self._tensors()
        for name, tensor in tensors.items():
            copy_into(tensor, state[f"tensor.{name}"])
        for field in (field for field in state if field.startswith("moment.")):
            _, key, name = field.split(".", 2)
            optimizer = self._optimizers["adam" if name in self.alphas else "sgd"]
            shape = () if key == "step" else tensors[name].shape
            optimizer.state[tensors[name]][key] = torch.tensor(state[field]).reshape(shape)

    def _tensors(self) -> Weights:
        return {**self.weights, **self.alphas}


def halves(samples: Samples, seed: int) -> dict[str, Samples]:
    """The samples in two halves that share none, for the weights and for the architecture (section 3.1)."""
    order = stream(seed, "halves").permutation(len(samples))
    middle = (len(order) + 1) // 2
    return {"weights": samples.take(order[:middle]), "architecture": samples.take(order[middle:])}
