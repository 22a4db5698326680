"""The forest's mean and spread, its determinism, and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from metanas.errors import MetanasError
from predictors.features import COSTS, architecture_features
from predictors.forest import ForestPredictor
from predictors.saved import load_predictor, save_predictor


def table(seed: int = 0, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = np.round(rng.random((count, 5)), 2)
    return features, features[:, 0] - 2 * features[:, 3] + 0.01 * rng.normal(size=count)


def test_features_stand_beside_costs() -> None:
    encodings, costs = np.eye(3, dtype=np.float32)[[0, 2]], np.log([[10.0, 200.0], [30.0, 900.0]])
    found = architecture_features(encodings, costs)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found[:, :3], encodings)
    np.testing.assert_array_equal(found[:, -COSTS:], costs)


def test_the_mean_is_the_forests_and_the_spread_that_of_its_trees() -> None:
    features, targets = table()
    predictor = ForestPredictor(seed=3, trees=20).fit(features, targets)
    mean, spread = predictor.predict(features)
    forest = predictor._forest
    np.testing.assert_allclose(mean, forest.predict(features))
    trees = [[tree.predict(features[i : i + 1])[0] for tree in forest.estimators_] for i in range(len(features))]
    np.testing.assert_allclose(spread, np.std(trees, axis=1))


def test_unknown_ground_is_more_uncertain_than_known() -> None:
    features, targets = table(count=100)
    predictor = ForestPredictor(seed=0).fit(features[:, :4][features[:, 0] < 0.5], targets[features[:, 0] < 0.5])
    _, known = predictor.predict(features[:, :4][features[:, 0] < 0.5])
    _, unknown = predictor.predict(features[:, :4][features[:, 0] >= 0.5])
    assert unknown.mean() > known.mean()


def test_one_seed_gives_one_forest() -> None:
    features, targets = table()
    a, b, other = (ForestPredictor(seed).fit(features, targets).predict(table(1)[0]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], other[0])


def test_a_saved_predictor_gives_the_same_answers_exactly(tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor = ForestPredictor(seed=9, trees=30, leaf=3).fit(*table())
    save_predictor(path, predictor, "stages")
    loaded = load_predictor(path, "stages", width=5)
    np.testing.assert_array_equal(loaded.predict(table(1)[0]), predictor.predict(table(1)[0]))
    assert (loaded.seed, loaded.trees, loaded.leaf) == (9, 30, 3)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("space", "width"), [("cells", 5), ("stages", 6)])
def test_a_predictor_of_something_else_is_refused(tmp_path: Path, space: str, width: int) -> None:
    path = tmp_path / "predictor.safetensors"
    save_predictor(path, ForestPredictor(seed=0, trees=2).fit(*table()), "stages")
    with pytest.raises(MetanasError, match=f"knows 5 features of the space 'stages', expected {width} of '{space}'"):
        load_predictor(path, space, width)


def test_a_file_that_is_no_predictor_is_named(tmp_path: Path) -> None:
    text, weights, newer = tmp_path / "text", tmp_path / "weights", tmp_path / "newer"
    text.write_text("no predictor")
    save_file({"features": np.ones((2, 2))}, weights)
    about = {"format": 2, "space": "stages"}
    save_predictor(newer, ForestPredictor(seed=0, trees=2).fit(*table()), "stages")
    save_file(load_file(newer), newer, metadata={"predictor": json.dumps(about)})
    for path in (text, weights, tmp_path / "missing"):
        with pytest.raises(MetanasError, match=f"{path.name}' is not a saved predictor"):
            load_predictor(path, "stages", 5)
    with pytest.raises(MetanasError, match="has format 2 and this metanas reads up to 1"):
        load_predictor(newer, "stages", 5)
