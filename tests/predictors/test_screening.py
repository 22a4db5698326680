"""The screen prunes while it can tell and stands aside while it cannot."""

from copy import copy
from functools import partial

import numpy as np
import pytest
from scipy.stats import kendalltau

from metanas.config import PredictorConfig
from predictors.audit import missed_winners
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
    report = screen.report()
    assert (report["tau"], report["unseen"], report["used"], report["pruned"]) == (None, 0, False, 0)
    assert report["why"] == "stands aside: 0 unseen evaluations so far, 8 are needed to judge it"


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
    said, doubt, measured = screen._answers.T
    least = 0.05 * doubt.mean()
    scores = sorted(abs(said - measured) / np.maximum(doubt, least))
    spread = np.maximum(spread, least) * scores[int(np.ceil(0.6827 * (len(scores) + 1))) - 1]
    assert min((mean + spread)[chosen]) >= max(np.delete(mean + spread, chosen)), "a spread that covers what it says"
    assert sorted(screen.choose(features[:5], 10)) == [0, 1, 2, 3, 4]
    assert screen.pruned == 0


def test_it_stands_aside_when_it_predicts_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the default floor, over many seeds and sizes of generations: targets that features say nothing of."""
    monkeypatch.setattr("predictors.screening.ForestPredictor", partial(ForestPredictor, trees=10))
    floor, taus, pruned, reached = PredictorConfig().floor, [], 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        screen = Screen(floor, seed)
        for _ in range(5):
            screen.update(rng.random((8, 6)), rng.normal(size=8))
            if screen.tau is None:
                continue
            taus.append(screen.tau)
            reached += screen.tau >= floor
            screen.choose(rng.random((20, 6)), 7)
            pruned += screen.pruned > 0
    assert len(taus) == 240
    assert abs(np.mean(taus)) < 0.05
    assert reached > 20, "by chance"
    assert pruned <= 7, "240 choices, of which chance may prune one in a hundred"


def test_why_it_stands_aside_is_told() -> None:
    rng = np.random.default_rng(1)
    screen = Screen(floor=0.2, seed=0)
    for _ in range(2):
        screen.update(rows(rng, 40)[0], rng.normal(size=40))
    assert screen.tau is not None
    features = rows(rng, 20)[0]
    for floor, why in ((screen.tau + 0.01, ""), (max(0.0, screen.tau - 0.01), "may be chance (p=")):
        screen.floor = floor
        assert screen.choose(features, 7) == list(range(7))
        report = screen.report()
        assert (report["tau"], report["unseen"], report["used"], report["pruned"]) == (screen.tau, WINDOW, False, 0)
        assert report["why"].startswith(f"stands aside: Kendall's tau {screen.tau:.2f} on {WINDOW} unseen evaluations")
        assert why in report["why"]


def test_the_report_is_of_the_choice_that_was_made() -> None:
    """What it learns afterwards decides about the next generation."""
    rng = np.random.default_rng(0)
    screen = Screen(floor=0.2, seed=0)
    screen.update(*rows(rng, 60))
    features, targets = rows(rng, 60)
    assert screen.choose(features, 40) == list(range(40))
    screen.update(features[:40], targets[:40])
    assert screen.trusted
    report = screen.report()
    assert (report["used"], report["pruned"]) == (False, 0)
    assert report["why"].startswith("stands aside: 0 unseen evaluations")
    features, targets = rows(rng, 60)
    chosen = screen.choose(features, 40)
    screen.update(features[chosen], -10 * targets[chosen])
    assert not screen.trusted
    report = screen.report()
    assert (report["used"], report["pruned"]) == (True, 20)
    assert report["why"].startswith("prunes: ")


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
    known = {row.tobytes() for row in screen.features} if screen.predictor else set()
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


def trusted(audit: int, seed: int = 0) -> Screen:
    rng = np.random.default_rng(seed)
    screen = Screen(floor=0.2, seed=seed, audit=audit)
    screen.update(*rows(rng, 60))
    screen.update(*rows(rng, 60))
    assert screen.trusted
    return screen


def test_an_audit_takes_places_from_the_kept_and_draws_from_the_pruned() -> None:
    features, _ = rows(np.random.default_rng(9), 40)
    alone, audited = trusted(0).choose(features, 10), trusted(3).choose(features, 10)
    assert len(set(audited)) == 10
    assert audited[:7] == alone[:7]
    assert not set(audited[7:]) & set(audited[:7])
    assert audited == trusted(3).choose(features, 10), "a function of the seed and of how often it learned"
    drawn = {row for seed in range(8) for row in trusted(3, seed).choose(features, 10)[7:]}
    assert len(drawn) > 12, "any pruned candidate may be drawn"
    screen = trusted(3)
    assert len(screen.choose(features[:5], 10)) == 5
    assert screen.report()["audited"] == 0, "nothing was pruned, nothing is audited"


def test_audited_candidates_that_failed_do_not_count() -> None:
    features, targets = rows(np.random.default_rng(9), 40)
    features += 0.5 * np.arange(40)[:, None] / 40  # all different
    screen = trusted(3)
    chosen = screen.choose(features, 10)
    measured = chosen[:8]  # of the three audited one
    truth = np.where(np.arange(40) == chosen[7], 100, targets)
    screen.update(features[measured], truth[measured])
    report = screen.report()
    assert (report["pruned"], report["audited"], report["winners"]) == (33, 1, 1)
    screen = trusted(3)
    chosen = screen.choose(features, 10)
    screen.update(features[chosen[7:]], targets[chosen[7:]])
    assert screen.report()["audited"] == 0, "all that were kept failed: nothing to compare with"


def test_missed_winners_are_estimated_right_on_a_planted_case() -> None:
    """The screen believes the opposite for a tenth of the candidates: the truth about all of them is known here."""
    reports, missed, fitted = [], 0, trusted(5)
    for seed in range(25):
        rng = np.random.default_rng(100 + seed)
        screen = copy(fitted)
        screen.seed = seed
        features, targets = rows(rng, 40)
        jewel = rng.random(40) < 0.1
        truth = np.where(jewel, 100 + rng.random(40), targets)
        chosen = screen.choose(features, 10)
        kept = chosen[:5]
        best = truth[kept].max()
        pruned = [row for row in range(40) if row not in kept]
        missed += int((truth[pruned] > best).sum())
        screen.update(features[chosen], truth[chosen])
        report = screen.report()
        assert report["pruned"] == 35
        assert report["winners"] <= report["audited"] <= 5
        reports.append(report)
    found = missed_winners(reports)
    assert found is not None
    assert found.pruned == 25 * 35
    assert found.low <= missed <= found.high
    assert found.estimate == pytest.approx(missed, rel=0.6)
    assert missed > 20, "the case is worth estimating"


def test_a_perfect_screen_misses_nothing() -> None:
    reports = [{"pruned": 20, "audited": 2, "winners": 0}] * 3 + [{"pruned": 0, "audited": 0, "winners": 0}]
    found = missed_winners(reports)
    assert found is not None
    assert (found.pruned, found.audited, found.winners, found.estimate, found.low) == (60, 6, 0, 0.0, 0.0)
    assert found.high == pytest.approx(60 * (1 - 0.025 ** (1 / 6)))
    assert missed_winners([{"pruned": 5, "audited": 0, "winners": 0}]) is None


def test_the_interval_of_missed_winners_holds_the_estimate_where_generations_differ() -> None:
    found = missed_winners([{"pruned": 24, "audited": 1, "winners": 1}, {"pruned": 2, "audited": 2, "winners": 0}])
    assert found is not None
    assert found.low <= found.estimate == 24 <= found.high
