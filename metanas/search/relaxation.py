"""The continuous relaxation of the cell space: shares of paths, their gradient, their end, their collapse.

DARTS (Liu, Simonyan and Yang 2019) in plain functions. `alphas` have, for each kind of cell, a row for every edge (node
and earlier state, in the order of the nodes) and a column for every operation of the space.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.inner import HEAD, Weights, apply_head
from metanas.learning.meta import Problem, meta_gradient
from metanas.learning.supernet import channels_last
from metanas.seeding import stream
from metanas.spaces.cell_network import CellNetwork, Mixing
from metanas.spaces.cells import GENES, KINDS, Cells

SKIP = "skip_connect"
DIFFERENCE = 1e-2  # the length of its step (footnote 2)
TOLERANCE = 1e-2
"""Relative accuracy of the dominant eigenvalue, which is compared with a quarter more of itself."""

RelaxedLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""From weights and alphas to a loss."""


def edges(space: Cells) -> list[int]:
    """How many edges end in each node."""
    return [node + 2 for node in range(space.nodes)]


def mixing(space: Cells, alphas: Mapping[str, Tensor], temperature: float = 1.0) -> Mixing:
    """The shares of all paths of `space.relaxed()`, from alphas (edges, operations) for each kind of cell.

    The share of "none" goes to no path: it weakens its edge.
    """
    used = [number for number, name in enumerate(space.operations) if name != "none"]
    return {
        kind: [shares.flatten() for shares in torch.split((alpha / temperature).softmax(1)[:, used], edges(space))]
        for kind, alpha in alphas.items()
    }


def relaxed_loss(space: Cells, inputs: Tensor, labels: Tensor, temperature: float = 1.0) -> RelaxedLoss:
    """Cross entropy of the relaxed network with a linear head (`HEAD`) on labelled images (N, C, H, W).

    The batch is its own reference.
    """
    network, inputs = _relaxed_network(space), channels_last(inputs)

    def loss(weights: Mapping[str, Tensor], alphas: Mapping[str, Tensor]) -> Tensor:
        body = {name: weight for name, weight in weights.items() if name not in HEAD}
        features = functional_call(network, body, (inputs, len(inputs), mixing(space, alphas, temperature)))
        return F.cross_entropy(apply_head(weights, features), labels)

    return loss


@lru_cache(maxsize=8)
def _relaxed_network(space: Cells) -> CellNetwork:
    return space.relaxed().requires_grad_(False)


def discretise(space: Cells, alphas: Mapping[str, Tensor]) -> Architecture:
    """Of every node the two strongest inputs, each with its strongest operation but "none" (section 2.4).

    An edge is as strong as the share of its strongest operation. Equals go to the lower number.
    """
    genes: list[int] = []
    for kind in KINDS:
        # The logarithm keeps apart what is close to 1.
        shares = alphas[kind].detach().double().log_softmax(1)
        if "none" in space.operations:
            shares[:, space.operations.index("none")] = -math.inf
        for node in torch.split(shares, edges(space)):
            strength, operation = node.max(1)
            strongest = strength.argsort(descending=True, stable=True)[:2].sort().values
            genes += [int(gene) for state in strongest for gene in (state, operation[state])]
            genes.append(space.combine.index("sum"))
    return tuple(genes)


def skip_connections(space: Cells, architecture: Architecture) -> int:
    """How many paths of the normal cell are skip connections."""
    operations = [architecture[len(GENES) * node + place] for node in range(space.nodes) for place in (1, 3)]
    return sum(space.operations[operation] == SKIP for operation in operations)


def architecture_gradient(
    order: Literal[1, 2],
    training: RelaxedLoss,
    validation: RelaxedLoss,
    weights: Mapping[str, Tensor],
    alphas: Mapping[str, Tensor],
    rate: float,
) -> Weights:
    """The derivative of the validation loss by alphas, at weights that are (1) as they are, (2) one step ahead.

    The step goes down the training loss by `rate`. Its dependence on alphas enters by a central difference of
    gradients, so that second order costs four gradients of the network in place of one.
    """
    leaves = {kind: alpha.detach().requires_grad_() for kind, alpha in alphas.items()}
    if order == 1:
        return dict(zip(leaves, torch.autograd.grad(validation(weights, leaves), list(leaves.values())), strict=True))
    problem = Problem(dict, lambda w: training(w, leaves), lambda w: validation(w, leaves), DIFFERENCE)
    return meta_gradient("difference", problem, weights, lambda name, step: rate, 1, leaves).parameters


def dominant_eigenvalue(loss: Callable[[Mapping[str, Tensor]], Tensor], alphas: Mapping[str, Tensor]) -> float:
    """The largest eigenvalue of the Hessian of `loss` by alphas, from products of it with vectors (Lanczos)."""
    leaves = [alpha.detach().requires_grad_() for alpha in alphas.values()]
    gradients = torch.autograd.grad(loss(dict(zip(alphas, leaves, strict=True))), leaves, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])

    def product(vector: np.ndarray) -> np.ndarray:
        found = torch.autograd.grad(flat @ torch.from_numpy(vector).to(flat).flatten(), leaves, retain_graph=True)
        return torch.cat([part.flatten() for part in found]).double().numpy()

    operator = LinearOperator((len(flat), len(flat)), matvec=product, dtype=np.float64)
    start = stream(0, "eigenvalue").standard_normal(len(flat))
    found = eigsh(operator, k=1, which="LA", v0=start, tol=TOLERANCE, return_eigenvectors=False)
    return float(found[0])


def kept_by_skips(counts: Sequence[int], most: int, window: int) -> int | None:
    """The last epoch of at most `most` skip connections, once the `window` epochs after it all had more."""
    within = [epoch for epoch, count in enumerate(counts) if count <= most]
    return within[-1] if within and len(counts) - 1 - within[-1] >= window else None


def kept_by_eigenvalue(values: Sequence[float], window: int, growth: float) -> int | None:
    """The epoch `window` before the last, once the mean over the window before it is below `growth` of the last one."""
    if len(values) < 2 * window:
        return None
    before, now = float(np.mean(values[-2 * window : -window])), float(np.mean(values[-window:]))
    return len(values) - 1 - window if before < growth * now else None
