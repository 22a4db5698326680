"""The models behind one protocol (predictor.py), by name.

All are deterministic functions of their seed and of the table that they learned from, which is what a saved predictor
holds.
"""

import warnings
from collections.abc import Callable
from typing import Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import BayesianRidge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metanas.errors import MetanasError
from metanas.seeding import stream
from predictors.features import Layout
from predictors.forest import ForestPredictor
from predictors.gaussian import GaussianProcess
from predictors.graph_network import GraphNetwork
from predictors.predictor import Predictor

MEMBERS = 5
"""Of an ensemble of boosted trees or of networks."""


class Ridge:
    """Bayesian ridge regression (MacKay 1992) on standardised features."""

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        self._centre, self._scale = float(targets.mean()), float(targets.std()) or 1.0
        self._model = make_pipeline(StandardScaler(), BayesianRidge())
        self._model.fit(features, (targets - self._centre) / self._scale)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, spread = self._model.predict(features, return_std=True)
        return self._centre + self._scale * mean, self._scale * spread


class Ensemble:
    """Several fits of one scikit-learn model, each to a bootstrap sample; their spread is that of their answers."""

    def __init__(self, model: Callable[[int], RegressorMixin], seed: int) -> None:
        self._make, self.seed = model, seed

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Self:
        self._centre, self._scale = float(targets.mean()), float(targets.std()) or 1.0
        scaled = (targets - self._centre) / self._scale
        self._models = []
        for member in range(MEMBERS):
            rows = stream(self.seed, "bootstrap", member).integers(len(targets), size=len(targets))
            model = self._make(int(stream(self.seed, "member", member).integers(2**31)))
            _fit(model, features[rows], scaled[rows])
            self._models.append(model)
        return self

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = np.stack([model.predict(features) for model in self._models])
        return self._centre + self._scale * answers.mean(0), self._scale * answers.std(0)


def _fit(model: RegressorMixin, features: np.ndarray, targets: np.ndarray) -> None:
    with warnings.catch_warnings():
        # A network stopped early is an answer and no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, targets)


def _trees(seed: int, layout: Layout) -> Predictor:
    return ForestPredictor(seed, kind=ExtraTreesRegressor)


def _forest(seed: int, layout: Layout) -> Predictor:
    return ForestPredictor(seed, kind=RandomForestRegressor)


def _boosting(seed: int, layout: Layout) -> Predictor:
    def model(seed: int) -> RegressorMixin:
        return GradientBoostingRegressor(
            n_estimators=100, learning_rate=0.1, max_depth=3, subsample=0.5, max_features=0.3, random_state=seed
        )

    return Ensemble(model, seed)


def _gaussian_process(seed: int, layout: Layout) -> Predictor:
    return GaussianProcess()


def _ridge(seed: int, layout: Layout) -> Predictor:
    return Ridge()


def _mlp(seed: int, layout: Layout) -> Predictor:
    def model(seed: int) -> RegressorMixin:
        network = MLPRegressor(hidden_layer_sizes=(64, 64), solver="lbfgs", alpha=0.1, max_iter=200, random_state=seed)
        return make_pipeline(StandardScaler(), network)

    return Ensemble(model, seed)


def _graph_network(seed: int, layout: Layout) -> Predictor:
    return GraphNetwork(seed, layout, loss="squared")


def _graph_ranking(seed: int, layout: Layout) -> Predictor:
    return GraphNetwork(seed, layout, loss="pairwise")


MODELS: dict[str, Callable[[int, Layout], Predictor]] = {
    "trees": _trees,
    "forest": _forest,
    "boosting": _boosting,
    "gaussian process": _gaussian_process,
    "bayesian ridge": _ridge,
    "mlp ensemble": _mlp,
    "graph network": _graph_network,
    "graph network, ranking": _graph_ranking,
}
"""Makes an unfitted model from a seed and the layout of its features."""
GRAPH_MODELS = ("graph network", "graph network, ranking")
"""Those that need the block "adjacency"."""


def make_model(name: str, seed: int, layout: Layout) -> Predictor:
    """A model by its name. Raises MetanasError for a name that we do not know, or features that it cannot read."""
    if name not in MODELS:
        raise MetanasError(f"there is no predictor model '{name}'; choose one of {', '.join(MODELS)}.")
    return MODELS[name](seed, layout)
