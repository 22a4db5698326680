"""The controller's probabilities and its steps."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from metanas.api import Architecture, Candidate, Cost
from metanas.errors import MetanasError
from metanas.search.controller import Controller, Ppo, Reinforce
from metanas.spaces.cells import Cells
from metanas.spaces.genes import Genes

COUNTS = (2, 3, 2)


def controller(counts: tuple[int, ...] = COUNTS) -> Controller:
    made = Controller(counts)
    made.start(torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.head.weight *= 30  # far from uniform
        made.head.bias *= 10
    return made


def test_probabilities_of_all_architectures_sum_to_one() -> None:
    every = torch.tensor(list(product(*map(range, COUNTS))))
    with torch.no_grad():
        logs, entropy = controller()(every)
    assert logs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    # The entropy along an architecture depends on what it conditions on; its mean is that of the distribution.
    assert (logs.exp() * entropy).sum().item() == pytest.approx(-(logs.exp() * logs).sum().item(), abs=1e-5)


def test_samples_have_those_probabilities() -> None:
    every = list(product(*map(range, COUNTS)))
    with torch.no_grad():
        expected = controller()(torch.tensor(every))[0].exp().double().numpy()
    drawn = controller().sample(4000, np.random.default_rng(0))
    counts = np.array([drawn.count(a) for a in every])
    assert chisquare(counts, 4000 * expected / expected.sum()).pvalue > 1e-3


def test_in_the_cell_space_it_predicts_states_operations_and_combinations() -> None:
    space = Cells(nodes=3, combine=("sum", "concat"))
    for architecture in controller(space.counts).sample(5, np.random.default_rng(0)):
        space.check(architecture)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", [Reinforce, Ppo])
def test_a_controller_learns_a_known_optimum(kind: type[Reinforce | Ppo], seed: int) -> None:
    """One of 4^6 architectures is best; after 205 evaluations the controller writes nearly nothing but its genes."""

    def reward(architecture: Architecture) -> float:
        return float(np.mean([gene == (3 if i % 2 == 0 else 0) for i, gene in enumerate(architecture)]))

    strategy, rng = kind(Genes("toy", (4,) * 6), 4), np.random.default_rng(seed)
    for _ in range(41):
        strategy.tell([Candidate(a, reward(a), Cost(1, 1)) for a in strategy.ask(5, rng)])
    assert strategy.population[0].accuracy == 1
    assert (
        np.mean([reward(a) for a in strategy.controller.sample(200, rng)]) > 0.8
    )  # at first 1/4; five of six are 0.83


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(MetanasError, match="rate must be above 0"):
        Reinforce(Genes("toy", (4,) * 6), 4, rate=-1.0)
    with pytest.raises(MetanasError, match="rate must be above 0 and finite"):
        Reinforce(Genes("toy", (4,) * 6), 4, rate=float("nan"))
