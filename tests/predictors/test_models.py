"""Every model learns a planted signal, finds none in noise, and is a function of its seed."""

import numpy as np
import pytest
import torch

from metanas.errors import MetanasError
from predictors.features import Layout
from predictors.forest import ForestPredictor
from predictors.graph_network import GraphNetwork, pairwise_loss
from predictors.graphs import Graph, adjacency
from predictors.models import MODELS, make_model
from predictors.ranking import kendall, normal_scores, quality, regret, top_recall


def cells(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Chains of four edges with three operations; what they are worth is a sum over their operations."""
    genes = np.random.default_rng(seed).integers(3, size=(count, 4))
    graphs = [Graph(5, (0,), tuple((i, i + 1, int(g)) for i, g in enumerate(row))) for row in genes]
    block = np.stack([adjacency([graph], 3) for graph in graphs])
    onehot = np.eye(3)[genes].reshape(count, -1)
    worth = np.array([0.0, 1.0, 3.0])[genes] @ np.array([1.0, 0.7, 0.5, 0.3])
    layout = (("architecture", 12), ("adjacency", block.shape[1]))
    return np.hstack([onehot, block]), worth, layout


@pytest.mark.parametrize("name", MODELS)
def test_a_planted_signal_is_found_and_noise_is_not(name: str) -> None:
    features, worth, layout = cells(0, 60)
    fresh, truth, _ = cells(1, 80)
    mean, spread = make_model(name, 0, layout).fit(features, worth).predict(fresh)
    assert mean.shape == spread.shape == (80,)
    assert (spread >= 0).all()
    assert kendall(mean, truth) > 0.6
    assert abs(mean.mean() - truth.mean()) < 0.7, "on the scale of the targets, also by a ranking loss"
    shuffled = np.random.default_rng(2).permutation(worth)
    taus = kendall(make_model(name, 0, layout).fit(features, shuffled).predict(fresh)[0], truth)
    assert abs(taus) < 0.4


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_the_same_answers_exactly(name: str) -> None:
    features, worth, layout = cells(0, 25)
    answers = [make_model(name, 3, layout).fit(features, worth).predict(features) for _ in range(2)]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_constant_targets_are_answered_by_themselves() -> None:
    features, _, layout = cells(0, 20)
    for name in ("trees", "gaussian process", "bayesian ridge", "boosting"):
        mean, _ = make_model(name, 0, layout).fit(features, np.full(20, 0.25)).predict(features)
        np.testing.assert_allclose(mean, 0.25, atol=0.1)


def test_the_forests_spread_is_that_of_its_trees() -> None:
    features, worth, _ = cells(0, 40)
    predictor = ForestPredictor(seed=3, trees=20).fit(features, worth)
    mean, spread = predictor.predict(features)
    forest = predictor._forest
    np.testing.assert_allclose(mean, forest.predict(features))
    trees = [[tree.predict(features[i : i + 1])[0] for tree in forest.estimators_] for i in range(len(features))]
    np.testing.assert_allclose(spread, np.std(trees, axis=1), atol=1e-12)


def test_the_ranking_loss_counts_pairs() -> None:
    scores, targets = torch.tensor([0.3, -1.0, 2.0, 0.5]), torch.tensor([1.0, 0.0, 1.0, 3.0])
    pairs = [(i, j) for i in range(4) for j in range(4) if targets[i] > targets[j]]
    expected = np.mean([np.log1p(np.exp(float(scores[j] - scores[i]))) for i, j in pairs])
    assert float(pairwise_loss(scores, targets)) == pytest.approx(expected)
    assert float(pairwise_loss(scores, torch.ones(4))) == 0.0


def test_a_graph_network_without_graphs_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(MetanasError, match="reads the block 'adjacency', which these features lack"):
        GraphNetwork(0, (("architecture", 3),))
    with pytest.raises(MetanasError, match="no predictor model 'oracle'; choose one of trees"):
        make_model("oracle", 0, ())


def test_measures_by_hand() -> None:
    measured = np.array([0.1, 0.9, 0.5, 0.8])
    predicted = np.array([0.0, 0.2, 0.9, 0.3])
    assert regret(predicted, measured) == pytest.approx(0.4)
    assert top_recall(predicted, measured, 0.5) == 0.5
    assert quality(measured, measured).regret == 0.0
    assert top_recall(measured, measured) == 1.0
    scores = normal_scores(np.array([5.0, -1.0, 100.0]))
    assert scores[1] < scores[0] < scores[2]
    np.testing.assert_allclose((scores[0], scores[1]), (0.0, -scores[2]), atol=1e-12)
