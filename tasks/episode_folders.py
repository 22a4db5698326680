"""Episodes that others made, as folders of images: `EPISODE/support/CLASS/FILE` and `EPISODE/query/CLASS/FILE`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metanas.errors import MetanasError
from tasks.cache import open_image, to_form
from tasks.episodes import Episode, as_tensor
from tasks.task import ImageForm


def folder_episodes(folder: Path, form: ImageForm) -> list[Episode]:
    """One episode for each subfolder, in the order of their names; the task is named after the subfolder.

    Classes and files count in the order of their names; ids count the files, support first. A class may be without
    query files, but not without support. Raises MetanasError for what is missing, empty or unreadable.
    """
    if not folder.is_dir():
        raise MetanasError(f"There is no folder '{folder}': name one that holds a subfolder for each episode.")
    if not (places := _visible(folder, directories=True)):
        raise MetanasError(f"'{folder}' holds no episode, expected subfolders with support/CLASS/FILES and query/...")
    return [_episode(place, form) for place in places]


def _episode(place: Path, form: ImageForm) -> Episode:
    support, query = _classes(place / "support"), _classes(place / "query")
    for name, files in support.items():
        if not files:
            raise MetanasError(f"'{place / 'support' / name}' holds no file: add images of the class or remove it.")
    if strangers := sorted(set(query) - set(support)):
        raise MetanasError(
            f"'{place / 'query' / strangers[0]}' is a class that '{place / 'support'}' lacks: add support images of it."
        )
    if len(support) < 2:
        raise MetanasError(f"'{place / 'support'}' holds {len(support)} classes, expected two or more folders.")
    if not any(query.values()):
        raise MetanasError(f"'{place / 'query'}' holds no file: add query images in folders named as the classes.")
    names = tuple(support)
    support_inputs, support_labels = _read(support, names, form)
    query_inputs, query_labels = _read(query, names, form)
    return Episode(
        support_inputs=support_inputs,
        support_labels=support_labels,
        query_inputs=query_inputs,
        query_labels=query_labels,
        ways=len(names),
        task=place.name,
        classes=names,
        support_ids=np.arange(len(support_labels)),
        query_ids=np.arange(len(support_labels), len(support_labels) + len(query_labels)),
    )


def _classes(side: Path) -> dict[str, list[Path]]:
    if not side.is_dir():
        raise MetanasError(f"There is no folder '{side}': an episode holds support/CLASS/FILES and query/CLASS/FILES.")
    return {folder.name: _visible(folder, directories=False) for folder in _visible(side, directories=True)}


def _visible(folder: Path, directories: bool) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir() == directories)


def _read(files: dict[str, list[Path]], names: tuple[str, ...], form: ImageForm) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) float32 in [0, 1] and labels (N,) int64."""
    flat = [(label, file) for label, name in enumerate(names) for file in files.get(name, [])]
    pixels = np.stack([to_form(open_image(file, str(file)), form) for _, file in flat])
    return as_tensor(pixels), torch.tensor([label for label, _ in flat])
