"""The screen prunes while it can tell and stands aside while it cannot."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from predictors.forest import ForestPredictor
from predictors.screening import ENOUGH, WINDOW, Screen


def rows(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and a target that they determine."""
    features = rng.integers(4, size=(count, 6)).astype(float)
    return features, features @ np.array([3.0, 1.0, 0.5, 0.0, -1.0, -2.0])


def test_nothing_is_pruned_before_there_is_a_measure() -> None:
    rng = np.random.default_rng(0)
    screen = Screen(floor=0.2, seed=0)
    assert screen.predict(rows(rng, 3)[0]) is None
    assert screen.choose(rows(rng, 9)[0], 4) == [0, 1, 2, 3]
    screen.update(*rows(rng, 30))
    assert screen.choose(rows(rng, 9)[0], 4) == [0, 1, 2, 3], "fitted, but not judged yet"
    assert screen.report() == {"tau": None, "unseen": 0, "used": False, "pruned": 0}


def test_tau_is_that_of_the_previous_fit_on_rows_it_had_not_seen() -> None:
    rng = np.random.default_rng(0)
    first, second = rows(rng, 40), rows(rng, 20)
    screen = Screen(floor=0.2, seed=5)
    screen.update(*first)
    known = [row.tolist() for row in first[0]]
    new = np.array([row.tolist() not in known for row in second[0]])
    expected = kendalltau(ForestPredictor(5).fit(*first).predict(second[0][new])[0], second[1][new]).statistic
    # Rows of the first fit again, with absurd targets: they must not count.
    screen.update(np.vstack([second[0], first[0]]), np.concatenate([second[1], -first[1]]))
    assert screen.tau == pytest.approx(expected)
    assert screen.unseen == new.sum()


def test_a_trusted_screen_picks_the_best_by_mean_and_spread() -> None:
    rng = np.random.default_rng(0)
    screen = Screen(floor=0.2, seed=0)
    screen.update(*rows(rng, 60))
    screen.update(*rows(rng, 60))
    assert screen.trusted
    features, targets = rows(rng, 40)
    chosen = screen.choose(features, 10)
    assert len(set(chosen)) == 10
    assert screen.report()["pruned"] == 30
    assert targets[chosen].mean() > np.quantile(targets, 0.75)
    assert screen.predictor is not None
    mean, spread = screen.predictor.predict(features)
    assert min((mean + spread)[chosen]) >= max(np.delete(mean + spread, chosen))
    assert sorted(screen.choose(features[:5], 10)) == [0, 1, 2, 3, 4]
    assert screen.pruned == 0


def test_it_stands_aside_when_it_predicts_noise() -> None:
    rng = np.random.default_rng(1)
    screen = Screen(floor=0.2, seed=0)
    for _ in range(4):
        screen.update(rows(rng, 40)[0], rng.normal(size=40))
    assert screen.tau is not None
    assert abs(screen.tau) < 0.4
    screen.floor = screen.tau + 0.01
    features = rows(rng, 20)[0]
    assert screen.choose(features, 7) == list(range(7))
    assert screen.report() == {"tau": screen.tau, "unseen": WINDOW, "used": False, "pruned": 0}


def test_trust_is_lost_when_the_world_turns() -> None:
    rng = np.random.default_rng(2)
    screen = Screen(floor=0.2, seed=0)
    screen.update(*rows(rng, 60))
    screen.update(*rows(rng, 30))
    assert screen.trusted
    features, targets = rows(rng, 60)
    screen.update(features, -targets)
    assert not screen.trusted


def test_few_answers_are_pooled_over_generations() -> None:
    rng = np.random.default_rng(3)
    screen = Screen(floor=0.2, seed=0)
    screen.update(*rows(rng, 40))
    features, targets = np.unique(rows(rng, 400)[0], axis=0)[::7], None
    known = {row.tobytes() for row in screen.predictor.features} if screen.predictor else set()
    features = np.array([row for row in features if row.tobytes() not in known])
    targets = features.sum(1)
    half = ENOUGH // 2
    screen.update(features[:half], targets[:half])
    assert screen.tau is None
    assert screen.unseen == half
    screen.update(features[half:ENOUGH], targets[half:ENOUGH])
    assert screen.tau is not None
    assert screen.unseen == ENOUGH


def test_constant_targets_and_empty_updates_are_no_trust() -> None:
    rng = np.random.default_rng(4)
    screen = Screen(floor=0.1, seed=0)
    screen.update(np.empty((0, 6)), np.empty(0))
    assert screen.predictor is None
    for _ in range(2):
        screen.update(rows(rng, 30)[0], np.ones(30))
    assert screen.tau == 0.0
    assert not screen.trusted
