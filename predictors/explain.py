"""Why an architecture is predicted to be good: what its prediction loses when one of its choices is another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from metanas.api import Architecture


@dataclass(frozen=True)
class Swap:
    """A copy of an architecture in which one gene has another value, and what the copy is predicted to gain."""

    gene: int
    architecture: Architecture
    gain: float


def swaps(
    predict: Callable[[Sequence[Architecture]], np.ndarray], architecture: Architecture, choices: Sequence[int]
) -> list[Swap]:
    """Every one-gene swap with its predicted gain over `architecture`, whose genes have `choices` values each.

    Exact, whatever the model is: the swapped architectures themselves are asked about, so what follows from a gene
    (graph, costs) changes with it. `predict` gives means (n,).
    """
    others = [
        (gene, (*architecture[:gene], value, *architecture[gene + 1 :]))
        for gene, count in enumerate(choices)
        for value in range(count)
        if value != architecture[gene]
    ]
    if not others:
        return []
    means = predict([architecture, *(swapped for _, swapped in others)])
    gains = (means[1:] - means[0]).tolist()
    return [Swap(gene, swapped, gain) for (gene, swapped), gain in zip(others, gains, strict=True)]


def gene_effects(found: Sequence[Swap], genes: int) -> np.ndarray:
    """What each gene's value adds over the mean of its other values, (G,); 0 for a gene without another."""
    gains: list[list[float]] = [[] for _ in range(genes)]
    for swap in found:
        gains[swap.gene].append(swap.gain)
    return np.array([-float(np.mean(own)) if own else 0.0 for own in gains])
