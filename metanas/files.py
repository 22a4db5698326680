"""Files that are whole or not there: written beside their place, then moved to it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from metanas.errors import MetanasError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside `path` for what is to be written, which goes to `path` when all of it is, else away."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """A text file."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path, to_do: str) -> Any:
    """What a JSON file holds. Raises MetanasError, which says what `to_do`, when it is none, and FileNotFoundError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MetanasError(f"'{path}' is not JSON ({error}); {to_do}.") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises MetanasError when it is none in UTF-8, and FileNotFoundError."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise MetanasError(f"'{path}' is not text in UTF-8 ({error}); save it in that encoding.") from error
    except yaml.YAMLError as error:
        raise MetanasError(f"'{path}' is not YAML: {' '.join(str(error).split())}.") from error


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """A safetensors file of arrays by name, with `about` as its metadata."""
    with whole(path) as partial:
        # Not by its `save_file`, whose files none but their owner may read.
        partial.write_bytes(save({name: np.array(array, order="C") for name, array in arrays.items()}, about))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name. Raises MetanasError when it is damaged, or none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise MetanasError(f"'{path}' cannot be read ({error}): copy it again, or make it anew.") from error
