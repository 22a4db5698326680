"""What the guided strategy makes of a model."""

from typing import Self

import numpy as np
from scipy.stats import chisquare, ttest_ind

from metanas.api import Candidate, Cost
from metanas.spaces.genes import Genes
from metanas.strategies.guided import Guided
from predictors.acquisition import expected_improvement, upper_confidence
from predictors.forest import ForestPredictor
from predictors.pool import PoolPredictor
from tests.strategies.digits import Digits, measure


class Fixed:
    """A model that says of every row its first feature, with a spread of `spread` times its second."""

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features[:, 0], self.spread * (1 + features[:, 1])


def test_the_most_promising_candidates_are_asked_for() -> None:
    """By the model's own word: of all that is not measured, those with the highest acquisition."""
    space, model = Digits(3), Fixed(0.5)
    for acquisition in ("ei", "ucb"):
        strategy = Guided(space, 4, model=lambda: model, initial=2, pool=3000, acquisition=acquisition)
        strategy.tell([measure((1, 1, 1)), measure((2, 1, 1))])
        left = sorted(space.different() - {(1, 1, 1), (2, 1, 1)})
        mean, spread = model.predict(np.stack([space.encode(a) for a in left]))
        # No measured one begins with 0, so the model's best of them is 0.
        expected = expected_improvement(mean, spread, 0.0) if acquisition == "ei" else upper_confidence(mean, spread)
        asked = strategy.ask(5, np.random.default_rng(0))
        promise = dict(zip(left, expected, strict=True))
        assert len(set(map(space.canonical, asked))) == 5
        np.testing.assert_allclose(sorted(promise[space.canonical(a)] for a in asked), np.sort(expected)[-5:])


def test_other_tasks_pick_from_the_start_until_the_own_model_orders_better() -> None:
    space, source = Digits(3), Fixed(0.0)  # which likes networks that begin with 0
    strategy = Guided(space, 4, model=lambda: ForestPredictor(0, trees=20), sources=[source], pool=3000)
    asked = strategy.ask(4, np.random.default_rng(0))
    liked = source.predict(np.stack([space.encode(a) for a in asked]))[0]
    assert liked.min() == 1.0
    # Here the first digit says nothing, and the second everything.
    drawn = sorted(space.different())
    strategy.tell([Candidate(a, float(a[1]), Cost(1, 1)) for a in drawn[:: len(drawn) // 40]])
    fitted = strategy.fitted()
    assert isinstance(fitted, PoolPredictor)
    assert fitted.weights[-1] > 0.95


def test_thompson_asks_for_each_as_often_as_it_is_drawn_best() -> None:
    space, rng = Genes("digit", (4,)), np.random.default_rng(0)
    counts = dict.fromkeys([0, 2, 3], 0)
    for _ in range(1500):
        strategy = Guided(space, 4, model=lambda: Fixed(0.5), initial=1, pool=60, acquisition="thompson")
        strategy.tell([measure((1,))])
        counts[strategy.ask(1, rng)[0][0]] += 1
    features = np.stack([space.encode((value,)) for value in counts])
    drawn = np.random.default_rng(1).normal(*Fixed(0.5).predict(features), size=(100_000, 3)).argmax(1)
    expected = 1500 * np.bincount(drawn, minlength=3) / len(drawn)
    assert chisquare(list(counts.values()), expected).pvalue > 0.001


def test_a_forest_can_be_asked_too() -> None:
    late, uniform = list[float](), list[float]()
    for seed in range(4):
        strategy = Guided(Digits(4), 4, model=lambda: ForestPredictor(0, trees=20), pool=60)
        rng = np.random.default_rng(seed)
        for _ in range(8):
            asked = strategy.ask(8, rng)
            strategy.tell([measure(a) for a in asked])
            uniform += [measure(Digits(4).sample(rng)).accuracy for _ in asked]
        late += [c.accuracy for c in list(strategy.archive.measured.values())[-24:]]
    assert ttest_ind(late, uniform, alternative="greater").pvalue < 0.01
