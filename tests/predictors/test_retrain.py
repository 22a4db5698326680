"""Retraining says honestly how well architectures not seen are ranked."""

import numpy as np
import pytest

from metanas.errors import MetanasError
from predictors.ranking import kendall
from predictors.retrain import retrain


def table(seed: int, count: int, repeats: int = 1) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Architectures of 12 binary genes, of which three matter; costs follow the gene that matters least."""
    rng = np.random.default_rng(seed)
    genes = rng.integers(2, size=(count, 12)).astype(float)
    quality = genes[:, 0] * 2 + genes[:, 1] + 0.2 * genes[:, 2] + 0.05 * rng.normal(size=count)
    features = np.column_stack([genes, 10 + genes[:, 2] + 0.1 * rng.random(count), rng.random(count)])
    groups = np.repeat(np.arange(count), repeats)
    return features[groups], quality[groups], groups.tolist()


def brute_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b by counting pairs (Kendall 1945)."""
    i, j = np.triu_indices(len(a), 1)
    x, y = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
    return float((x * y).sum() / np.sqrt((x != 0).sum() * (y != 0).sum()))


def test_kendall_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=30), rng.integers(5, size=30)
    assert kendall(a, b) == pytest.approx(brute_tau(a, b))
    assert kendall(a, np.ones(30)) == 0.0


def test_a_learnable_ranking_beats_the_costs() -> None:
    features, targets, groups = table(0, 60)
    predictor, report = retrain(features, targets, groups, seed=1)
    assert (report.rows, report.architectures) == (60, 60)
    assert report.params.tau == pytest.approx(brute_tau(features[:, -2], targets))
    assert report.macs.tau == pytest.approx(brute_tau(features[:, -1], targets))
    assert report.predictor.low > report.params.high
    for correlation in (report.predictor, report.params, report.macs):
        assert correlation.low <= correlation.tau <= correlation.high
    fresh, quality, _ = table(5, 60)
    assert kendall(predictor.predict(fresh)[0], quality) > 0.6, "the one handed back knows all rows"


def test_repeated_rows_of_one_architecture_leak_nothing() -> None:
    """With targets of pure noise, a row whose twin is in training would be ranked perfectly."""
    rng = np.random.default_rng(0)
    features, _, groups = table(0, 60, repeats=2)
    targets = np.repeat(rng.normal(size=60), 2)
    _, report = retrain(features, targets, groups, seed=0)
    assert report.architectures == 60
    assert report.predictor.low < 0.1
    assert report.predictor.tau < 0.25


def test_the_interval_covers_what_more_data_say() -> None:
    """The cost of the example orders with tau t in the limit; the 95% intervals of small samples hold t mostly."""
    features, targets, _ = table(99, 3000)
    limit = brute_tau(features[:, -2], targets)
    held = 0
    for seed in range(8):
        _, report = retrain(*table(seed, 30), seed=seed)
        held += report.params.low <= limit <= report.params.high
    assert held >= 6


def test_the_same_seed_gives_the_same_report() -> None:
    assert retrain(*table(0, 20), seed=4)[1] == retrain(*table(0, 20), seed=4)[1]


def test_too_few_architectures_are_counted() -> None:
    with pytest.raises(MetanasError, match=r"measurements of 9 architectures .* needs at least 10"):
        retrain(*table(0, 9, repeats=5), seed=0)
