"""Effects of genes are those of measured swaps when the model is right."""

from collections.abc import Sequence

import numpy as np

from metanas.api import Architecture
from predictors.explain import gene_effects, swaps


def worth(architectures: Sequence[Architecture]) -> np.ndarray:
    return np.array([3.0 * a[0] - a[1] + 2.0 * (a[0] == 2) * a[2] for a in architectures])


def test_every_one_gene_swap_is_asked_about() -> None:
    found = swaps(worth, (2, 0, 1), (3, 2, 2))
    assert [(s.gene, s.architecture) for s in found] == [
        (0, (0, 0, 1)),
        (0, (1, 0, 1)),
        (1, (2, 1, 1)),
        (2, (2, 0, 0)),
    ]
    assert [s.gain for s in found] == [-8.0, -5.0, -1.0, -2.0]
    assert gene_effects(found, 3).tolist() == [6.5, 1.0, 2.0]


def test_a_gene_without_a_choice_has_no_effect() -> None:
    assert gene_effects(swaps(worth, (0, 1, 0), (1, 2, 1)), 3).tolist() == [0.0, -1.0, 0.0]
    assert swaps(worth, (0, 0, 0), (1, 1, 1)) == []
