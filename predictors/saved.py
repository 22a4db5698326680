"""A predictor as one safetensors file: the table that it learned from and its settings, never code.

Loading fits the same forest again, which takes a moment and gives the same answers under the same library versions.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from metanas.errors import MetanasError
from predictors.forest import ForestPredictor

FORMAT = 1
LIBRARIES = ("numpy", "scikit-learn", "scipy")


def save_predictor(path: Path, predictor: ForestPredictor, space: str) -> None:
    """Writes a fitted predictor of the architectures of `space`, whole or not at all."""
    about = {
        "format": FORMAT,
        "space": space,
        "seed": predictor.seed,
        "trees": predictor.trees,
        "leaf": predictor.leaf,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    table = {
        "features": np.ascontiguousarray(predictor.features, dtype=np.float64),
        "targets": np.ascontiguousarray(predictor.targets, dtype=np.float64),
    }
    partial = path.with_name(path.name + ".partial")
    save_file(table, partial, metadata={"predictor": json.dumps(about)})
    os.replace(partial, path)


def load_predictor(path: Path, space: str, width: int) -> ForestPredictor:
    """Fits the saved predictor again, for rows of `width` features of `space`. Raises MetanasError if it is another."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["predictor"])
            features, targets = file.get_tensor("features"), file.get_tensor("targets")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MetanasError(
            f"'{path}' is not a saved predictor ({error}); write one with `metanas predictor retrain`."
        ) from error
    if about["format"] > FORMAT:
        raise MetanasError(
            f"the predictor '{path}' has format {about['format']} and this metanas reads up to {FORMAT}; "
            "install a newer metanas."
        )
    if about["space"] != space or features.shape[1] != width:
        raise MetanasError(
            f"the predictor '{path}' knows {features.shape[1]} features of the space '{about['space']}', expected "
            f"{width} of '{space}'; retrain it with `metanas predictor retrain` on runs of that space."
        )
    return ForestPredictor(about["seed"], about["trees"], about["leaf"]).fit(features, targets)
