"""A learner's weights as named arrays, which travel between processes and into files."""

import numpy as np
import torch
from torch import Tensor

from metanas.learning.learner import Learner

State = dict[str, np.ndarray]
"""Shared weights under "net.", meta-parameters under "meta."; beside them whatever their owner needs to go on."""


def pack(learner: Learner) -> State:
    """Weights and meta-parameters; on a CPU, in the learner's own memory."""
    shared = {"net." + n: w.detach().cpu().numpy() for n, w in learner.supernet.shared.items()}
    return shared | {"meta." + n: w.detach().cpu().numpy() for n, w in learner.meta.items()}


def fill(learner: Learner, state: State) -> None:
    """Copies weights and meta-parameters of `state` into the learner's tensors, in place.

    Meta-parameters that the learner has not are added: those of one-shot training come as they are needed.
    """
    for name in [name for name in state if name.startswith("meta.")]:
        if name.removeprefix("meta.") not in learner.meta:
            learner.meta[name.removeprefix("meta.")] = torch.tensor(state[name], device=learner.device)
    for kind, targets in (("net.", learner.supernet.shared), ("meta.", learner.meta)):
        for name, target in targets.items():
            copy_into(target, state[kind + name])


def copy_into(target: Tensor, array: np.ndarray) -> None:
    """Copies an array, which may be read-only, and from a file without the dimensions of a single number."""
    with torch.no_grad():
        target.copy_(torch.tensor(array).reshape(target.shape))


def weights_of(state: State) -> State:
    """The part of a state that `fill` takes."""
    return {name: array for name, array in state.items() if name.startswith(("net.", "meta."))}
