"""A predictor as one safetensors file: the table that it learned from, its model and seed, never code.

Loading fits the same model again, which takes a moment and gives the same answers under the same library versions; a
graph network's weights are in the file and are loaded as they are.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from metanas.errors import MetanasError
from metanas.files import save_arrays
from predictors.data import Data
from predictors.features import Table
from predictors.graph_network import GraphNetwork
from predictors.models import make_model
from predictors.predictor import Predictor

FORMAT = 2
LIBRARIES = ("numpy", "scikit-learn", "scipy", "torch")
WEIGHT = "weights."


@dataclass(frozen=True)
class Saved:
    """What a file holds: a model by name, its seed, the space of its architectures and what it learned from."""

    model: str
    seed: int
    space: str
    data: Data

    def make(self) -> Predictor:
        """The model, not fitted yet."""
        return make_model(self.model, self.seed, self.data.table.layout)


def library_versions() -> dict[str, str]:
    """Of what answers depend on."""
    return {name: version(name) for name in LIBRARIES}


def save_predictor(path: Path, saved: Saved, fitted: Predictor) -> None:
    """Writes a predictor that was fitted to `saved.data`, whole or not at all."""
    about = {
        "format": FORMAT,
        "space": saved.space,
        "model": saved.model,
        "seed": saved.seed,
        "layout": saved.data.table.layout,
        "tasks": saved.data.tasks,
        "versions": library_versions(),
    }
    arrays = {"features": saved.data.table.values, "targets": saved.data.targets}
    if isinstance(fitted, GraphNetwork):
        arrays |= {WEIGHT + name: array for name, array in fitted.arrays().items()}
    save_arrays(path, arrays, {"predictor": json.dumps(about)})


def read_predictor(path: Path) -> tuple[Saved, dict[str, np.ndarray]]:
    """What a file holds, and the weights of a graph network. Raises MetanasError where it is no saved predictor."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["predictor"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            _refuse_format(path, about)
            layout = tuple((name, width) for name, width in about["layout"])
            data = Data.of(Table(arrays["features"], layout), arrays["targets"], about["tasks"])
            saved = Saved(about["model"], about["seed"], about["space"], data)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MetanasError(
            f"'{path}' is not a saved predictor ({error}); write one with `metanas predictor retrain`."
        ) from error
    weights = {name.removeprefix(WEIGHT): array for name, array in arrays.items() if name.startswith(WEIGHT)}
    return saved, weights


def _refuse_format(path: Path, about: dict[str, Any]) -> None:
    if about["format"] != FORMAT:
        raise MetanasError(
            f"the predictor '{path}' has format {about['format']} and this metanas reads format {FORMAT}; "
            "write it anew with `metanas predictor retrain`, or install the metanas that wrote it."
        )


def load_predictor(path: Path, space: str, width: int) -> Predictor:
    """The saved predictor, fitted, for rows of `width` features of `space`. Raises MetanasError if it is another."""
    saved, weights = read_predictor(path)
    known = saved.data.table.values.shape[1]
    if saved.space != space or known != width:
        raise MetanasError(
            f"the predictor '{path}' knows {known} features of the space '{saved.space}', expected "
            f"{width} of '{space}'; retrain it with `metanas predictor retrain` on runs of that space."
        )
    model = saved.make()
    if isinstance(model, GraphNetwork):
        return model.restore(weights)
    return model.fit(saved.data.table.values, saved.data.targets)
