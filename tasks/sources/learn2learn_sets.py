"""learn2learn's vision data sets and tasksets (Arnold et al. 2020) as tasks; the package is optional."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any, Literal

import numpy as np

from metanas.errors import MetanasError
from tasks.cache import CachedImages
from tasks.sources import Where
from tasks.sources.torchvision_sets import DatasetImages, find_or_download
from tasks.task import ImageForm, Task

Part = Literal["train", "validation", "test"]

TASKSETS: Mapping[str, Sequence[str]] = {
    "omniglot": [f"omniglot-py/images_{part}.zip" for part in ("background", "evaluation")],
    "mini-imagenet": [f"mini-imagenet-cache-{part}.pkl" for part in ("train", "validation", "test")],
    "tiered-imagenet": [f"tiered-imagenet/{part}_labels.pkl" for part in ("train", "val", "test")],
    "fc100": [f"FC100_{part}.pickle" for part in ("train", "val", "test")],
    "cifarfs": ["cifarfs/cifar100"],
}
"""Taskset -> what lies in the data folder when it is there whole; learn2learn downloads what is missing, unasked."""


def load(
    name: str,
    form: ImageForm,
    where: Where,
    dataset: str | None = None,
    taskset: str | None = None,
    part: Part = "train",
    options: dict[str, Any] | None = None,
    invert: bool = False,
    licence: str = "unknown",
) -> list[Task]:
    """One task with the classes of a learn2learn `dataset` (such as FullOmniglot, MiniImagenet, CIFARFS, FC100) or of
    the `part` of a `taskset` (such as omniglot, mini-imagenet, cifarfs).

    `options` go to the data set's class or to `get_tasksets`; a data set that is cut into parts takes `part` as its
    mode, `invert` turns ink on paper into bright on dark. Episodes are drawn by our sampler, not by learn2learn's.
    """
    if (dataset is None) == (taskset is None):
        raise MetanasError("expected either 'dataset' or 'taskset', one of the two.")
    try:
        import_module("learn2learn")
    except ImportError as error:
        raise MetanasError("needs the package learn2learn, which is not installed: run `make setup`.") from error
    given = options or {}
    make: Callable[[], Any]
    if taskset:
        if taskset not in TASKSETS:
            raise MetanasError(f"learn2learn has no taskset '{taskset}', expected one of {', '.join(TASKSETS)}.")
        (root, _), *_ = [find_or_download(where, file, f"learn2learn's {taskset}") for file in TASKSETS[taskset]]
        make = partial(_from_taskset, taskset, part, str(root), given)
    elif where.data is None:
        raise MetanasError("needs a data folder: name it with --data or METANAS_DATA.")
    else:
        root = where.data
        make = partial(_from_class, str(dataset), part, str(root), where.download, given)
    images = make()
    values = [images.indices_to_labels[index] for index in range(len(images))]
    distinct, labels = np.unique(np.array(values), return_inverse=True)
    title = f"learn2learn {dataset or taskset} {part} {sorted(given.items())}"
    inputs = CachedImages(DatasetImages(make, len(images), title, root), form, invert)
    return [Task(name, "image", inputs, labels, tuple(map(str, distinct.tolist())), licence=licence, origin=title)]


def _from_class(dataset: str, part: Part, root: str, download: bool, options: dict[str, Any]) -> Any:
    """A MetaDataset: (image, label) pairs with `indices_to_labels`."""
    l2l = import_module("learn2learn")
    kind = getattr(l2l.vision.datasets, dataset, None)
    if kind is None:
        known = [key for key, value in vars(l2l.vision.datasets).items() if isinstance(value, type)]
        raise MetanasError(f"learn2learn has no data set '{dataset}', expected one of {', '.join(sorted(known))}.")
    arguments = {"mode": part, "download": download}
    accepted = signature(kind.__init__).parameters
    given = {key: value for key, value in arguments.items() if key in accepted} | options
    try:
        return l2l.data.MetaDataset(kind(root, **given))
    except (OSError, RuntimeError, TypeError) as error:
        raise MetanasError(f"learn2learn's {dataset} cannot be read from '{root}' ({error}).") from error


def _from_taskset(taskset: str, part: Part, root: str, options: dict[str, Any]) -> Any:
    """The MetaDataset behind a taskset; how the taskset itself would draw from it does not matter."""
    l2l = import_module("learn2learn")
    try:
        with _always_the_same_chance():
            sets = l2l.vision.benchmarks.get_tasksets(taskset, num_tasks=1, root=root, **options)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise MetanasError(f"learn2learn's taskset '{taskset}' cannot be read from '{root}' ({error}).") from error
    return getattr(sets, part).dataset


@contextmanager
def _always_the_same_chance() -> Iterator[None]:
    """learn2learn divides Omniglot's classes by Python's global generator: every process must divide them alike."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)
