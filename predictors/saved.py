"""A predictor as one safetensors file: the table that it learned from, its model and seed, never code.

Loading fits the same model again, which takes a moment and gives the same answers under the same library versions; a
graph network's weights are in the file and are loaded as they are.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
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

FORMAT = 3
READABLE = (2, FORMAT)
"""Format 2 is without `context`."""
LIBRARIES = ("numpy", "scikit-learn", "scipy", "torch")
WEIGHT, CONTEXT = "weights.", "context."


@dataclass(frozen=True)
class Saved:
    """What a file holds: a model by name, its seed, the space of its architectures and what it learned from.

    `context` are arrays that the features of further rows are made from; whoever makes features knows what they mean.
    A file holds, too, by which `libraries` it was written, and the `answers` (n,) of the model to what it learned from.
    """

    model: str
    seed: int
    space: str
    data: Data
    context: Mapping[str, np.ndarray] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    answers: np.ndarray | None = None

    def make(self) -> Predictor:
        """The model, not fitted yet."""
        return make_model(self.model, self.seed, self.data.table.layout)


@dataclass(frozen=True)
class Loaded:
    """A saved predictor, fitted, and where it lies."""

    path: Path
    saved: Saved
    predictor: Predictor

    def predict(self, table: Table) -> tuple[np.ndarray, np.ndarray]:
        """Mean and spread, (n,) each. Raises MetanasError for a table of other blocks than it knows."""
        if table.layout != self.saved.data.table.layout:
            raise MetanasError(
                f"the predictor '{self.path}' knows features {dict(self.saved.data.table.layout)} and is asked about "
                f"{dict(table.layout)}; retrain it with `metanas predictor retrain`."
            )
        return self.predictor.predict(table.values)


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
    values = saved.data.table.values
    arrays = {"features": values, "targets": saved.data.targets, "answers": fitted.predict(values)[0]}
    arrays |= {CONTEXT + name: array for name, array in saved.context.items()}
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
            layout = tuple(part for name, width in about["layout"] for part in _parts(name, width))
            data = Data.of(Table(arrays["features"], layout), arrays["targets"], about["tasks"])
            context, libraries = _named(arrays, CONTEXT), about.get("versions", {})
            answers = arrays.get("answers")  # not in older files
            saved = Saved(about["model"], about["seed"], about["space"], data, context, libraries, answers)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MetanasError(
            f"'{path}' is not a saved predictor ({error}); write one with `metanas predictor retrain`."
        ) from error
    return saved, _named(arrays, WEIGHT)


def _parts(name: str, width: int) -> list[tuple[str, int]]:
    """Once seconds were a third column of the costs."""
    return [("costs", 2), ("latency", 1)] if (name, width) == ("costs", 3) else [(name, width)]


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _refuse_format(path: Path, about: dict[str, Any]) -> None:
    if about["format"] not in READABLE:
        raise MetanasError(
            f"the predictor '{path}' has format {about['format']} and this metanas reads format {FORMAT}; "
            "write it anew with `metanas predictor retrain`, or install the metanas that wrote it."
        )


def load_predictor(path: Path, space: str) -> Loaded:
    """The saved predictor, fitted. Raises MetanasError if it is of another space.

    Warns where it does not answer as it did when it was written: libraries change.
    """
    saved, weights = read_predictor(path)
    if saved.space != space:
        raise MetanasError(
            f"the predictor '{path}' knows the space '{saved.space}', expected '{space}'; retrain it with "
            "`metanas predictor retrain` on runs of that space."
        )
    model = saved.make()
    values = saved.data.table.values
    fitted = model.restore(weights) if isinstance(model, GraphNetwork) else model.fit(values, saved.data.targets)
    if saved.answers is not None and not np.allclose(fitted.predict(values)[0], saved.answers, rtol=1e-4, atol=1e-6):
        warnings.warn(
            f"the predictor '{path}' answers otherwise than when it was written, with {_listed(saved.libraries)}; here "
            f"are {_listed(library_versions())}: retrain it with `metanas predictor retrain`.",
            stacklevel=2,
        )
    return Loaded(path, saved, fitted)


def _listed(libraries: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in libraries.items())
