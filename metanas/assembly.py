"""Makes the parts that a configuration names, in the driver and, from the same recipe, in every worker."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metanas.api import Architecture
from metanas.config import RunConfig, SearchConfig, SpaceConfig, load_config, read_keys
from metanas.errors import MetanasError
from metanas.learning.executor import Executor, executor_for
from metanas.learning.learner import Learner, Precision, native_precision
from metanas.learning.meta import Method
from metanas.learning.worker import TRAINING, WARM_UP, Sampler, Worker
from metanas.native import lacking
from metanas.seeding import stream, torch_stream
from metanas.spaces import fused, images, winograd
from metanas.spaces.cells import Cells
from metanas.spaces.conv4 import Conv4
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Family, Space
from metanas.spaces.stages import Stages
from tasks.cache import CachedImages
from tasks.episode_folders import folder_episodes
from tasks.episodes import Episode, EpisodeSampler
from tasks.pool import Pool, load_pool
from tasks.task import ImageForm, Task

SUPERNET = "supernet"
CONV4 = "conv-4"
RANDOM = "random architecture"
NETWORKS = (SUPERNET, CONV4, RANDOM)
FOLDERS = "episode folders"
CURVED: tuple[Method, ...] = ("maml", "difference")
"""Their meta-gradients hold second derivatives of the body, which bfloat16 rounds away (docs/learning.md)."""


def make_space(config: RunConfig | SearchConfig) -> Space:
    """The search space of a configuration's images."""
    return space_for(config.image, config.space)


def space_for(form: ImageForm, config: SpaceConfig) -> Space:
    """The search space for images of a form; a wrong option is named."""
    options = {key: _frozen(value) for key, value in config.options.items()}
    try:
        if config.name == "cells":
            return Cells(channels=form.channels, **options)
        if config.name == "mobile":
            return Mobile(channels=form.channels, **options)
        return Stages(channels=form.channels, size=form.size, **options)
    except TypeError as error:
        raise MetanasError(f"space.options of the space '{config.name}': {error}; see docs/spaces.md.") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def make_family(config: RunConfig, network: str) -> Family:
    """What a named network is an architecture of; Conv-4 normalises as the space's default network does."""
    if network != CONV4:
        return make_space(config)
    options = config.space.options
    return Conv4(config.image.channels, options.get("norm") or options.get("norms", ["support"])[0])


def random_architecture(config: RunConfig) -> Architecture:
    """The baseline's architecture, a function of the seed."""
    return make_space(config).sample(stream(config.seed, RANDOM))


def make_learner(config: RunConfig, network: str = SUPERNET, device: str = "cpu") -> Learner:
    """A network with freshly drawn weights, a function of the seed, on a PyTorch device."""
    generator = torch_stream(config.seed, "weights", network)
    return Learner.drawn(make_family(config, network), config.inner, precision_of(config), generator, device)


def precision_of(config: RunConfig) -> Precision:
    """What the configuration says, or what `auto` means here."""
    if config.precision != "auto":
        return config.precision
    rounds_away = config.inner.steps > 0 and config.inner.method in CURVED
    return "float32" if rounds_away else native_precision(_device())


def answering_precision(config: RunConfig, device: str | None = None) -> Precision:
    """What to adapt and to answer in: bfloat16 where the run had it and the device has instructions for it.

    A run goes on in the precision that it began with; what it left is used on other machines, too.
    """
    return "float32" if config.precision == "float32" else native_precision(device or _device())


def make_pool(config: RunConfig, data: Path | None, download: bool = False) -> Pool:
    """The task pool of the configuration."""
    spec = config.pool if isinstance(config.pool, dict) else Path(config.pool)
    return load_pool(spec, config.image, data=data, hold_out=config.hold_out, download=download)


def read_pool(
    path: Path,
    data: Path | None = None,
    settings: Sequence[str] = (),
    hold_out: str | None = None,
    download: bool = False,
) -> Pool:
    """The pool of a run's configuration, or of a pool's own file, which has no images' form and takes the default.

    `data`, `settings`, `hold_out` and `download` are as of `metanas train`. Raises MetanasError.
    """
    return read_asked_pool(path, data, settings, hold_out, download)[0]


def read_asked_pool(
    path: Path, data: Path | None, settings: Sequence[str], hold_out: str | None, download: bool
) -> tuple[Pool, RunConfig | None]:
    """The pool as of `read_pool`, and the configuration that asks episodes of it, None for a pool's own file."""
    if not path.is_file():
        raise MetanasError(f"there is no file '{path}'; give a pool's YAML file or a run's configuration.")
    content = read_keys(path, settings)
    if "sources" in content:
        return load_pool(content, ImageForm(), data, path.parent, hold_out, download), None
    config = load_config(path, settings)
    config = config.model_copy(update={"hold_out": hold_out or config.hold_out})
    return make_pool(config, data, download), config


def asked_of_classes(config: RunConfig) -> dict[str, set[tuple[int, int]]]:
    """The fewest shots and queries of a class that episodes of each split take, of the test split one for each test."""
    asked = {"train": {config.train.least}, "validation": {config.validation.least}}
    return asked | ({"test": {test.draw.least for test in config.test}} if config.test else {})


def left_out(tasks: Sequence[Task]) -> str | None:
    """What lies among the images of tasks and is no sample; None where nothing does."""
    images = (task.inputs for task in tasks if isinstance(task.inputs, CachedImages))
    files = list(dict.fromkeys(file for inputs in images for file, _ in inputs.originals.left_out))
    return f"left out as no image: {len(files)} file{'s' * (len(files) > 1)} such as '{files[0]}'" if files else None


def only_images(tasks: Sequence[Task], instead: str) -> None:
    """Raises MetanasError for a task of anything else, which says what to do `instead`."""
    for task in tasks:
        if task.modality != "image":
            raise MetanasError(
                f"the task '{task.name}' is {task.modality}, and the networks of the search spaces take images; "
                f"{instead}."
            )


def make_samplers(config: RunConfig, pool: Pool) -> dict[str, Sampler]:
    """Episodes for warm-up, training, validation and every named test.

    Raises MetanasError for tasks that are no images.
    """
    only_images([*pool.train, *pool.validation, *pool.test], "leave it out of the splits")
    train = EpisodeSampler(pool.train, config.train, config.seed, "train", pool.weights)
    warm_up = train if config.warmup_size is None else train.shrunk(config.warmup_size)
    samplers: dict[str, Sampler] = {WARM_UP: warm_up, TRAINING: train}
    if pool.validation:
        samplers["validation"] = EpisodeSampler(pool.validation, config.validation, config.seed, "validation")
    if pool.test:
        for test in config.test:
            samplers[test.name] = EpisodeSampler(pool.test, test.draw, config.seed, f"test {test.name}")
    return samplers


def training_pool(config: RunConfig, data: Path | None, download: bool = False) -> Pool:
    """The pool that meta-training needs. Raises MetanasError as `check_trainable` does."""
    check_trainable(config, pool := make_pool(config, data, download))
    return pool


def check_trainable(config: RunConfig, pool: Pool) -> None:
    """Raises MetanasError where the pool lacks what the configuration draws from it, or no network takes its images."""
    if not pool.validation:
        raise MetanasError(
            f"the pool '{pool.name}' has no task in its validation split, on which architectures are compared; name "
            "some under splits.validation."
        )
    make_samplers(config, pool)
    make_space(config)
    if config.warmup_size is not None:
        try:
            space_for(replace(config.image, size=config.warmup_size), config.space)
        except MetanasError as error:
            raise MetanasError(f"warmup_size: {error}") from error


def uncompiled(config: RunConfig) -> str | None:
    """Why no operations are compiled for this processor, so that training takes longer; None where they are."""
    if _device() != "cpu":
        return None
    convolutions = (images.SOURCE, winograd.SOURCE) if (precision := precision_of(config)) == "float32" else ()
    return lacking(*((source, getattr(torch, precision)) for source in (fused.SOURCE, *convolutions)))


@dataclass(frozen=True)
class FixedEpisodes:
    """Episodes that others made, by index."""

    episodes: tuple[Episode, ...]
    seed: int = 0

    def episode(self, index: int) -> Episode:
        return self.episodes[index]


@dataclass(frozen=True)
class WorkerRecipe:
    """Picklable: makes the same worker in any process."""

    config: RunConfig
    data: Path | None = None
    episodes: Path | None = None  # episode folders, in place of the pool

    def __call__(self) -> Worker:
        samplers: dict[str, Sampler]
        if self.episodes is not None:
            samplers = {FOLDERS: FixedEpisodes(tuple(folder_episodes(self.episodes, self.config.image)))}
        else:
            samplers = make_samplers(self.config, make_pool(self.config, self.data))
        return Worker({name: make_learner(self.config, name, _device()) for name in NETWORKS}, samplers)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_executor(recipe: WorkerRecipe) -> Executor:
    """Ray actors; this process when the configuration asks for no workers, or when there is a GPU to batch tasks on."""
    return executor_for(recipe, recipe.config.workers if _device() == "cpu" else 0)
