"""What an architecture can be measured by on one task: training alone, whole or by a proxy, shared weights, zero-cost
scores; or a benchmark's table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.executor import executor_for
from metanas.learning.samples import Classification, Samples
from metanas.learning.worker import Measure, Worker
from metanas.measuring.cost import costs
from metanas.measuring.estimation import Measured, Record
from metanas.measuring.oneshot import OneShot
from metanas.measuring.scores import SCORES, randomise
from metanas.measuring.standalone import Training, make_classifier, train_alone
from metanas.parsing import STRICT
from metanas.seeding import stream, torch_stream
from metanas.spaces.scaling import Scalable
from metanas.spaces.space import Space
from metanas.tables.catalogue import load_table

ALONE, SHARED, TABLE = "alone", "shared", "table"


@dataclass(frozen=True)
class Proxy:
    """What is cheaper than the task itself and should rank architectures alike (EcoNAS, Zhou et al. 2020, section 3).

    A fraction of the training `data` of each class, `channels` times the widths, images of `size` pixels in place of
    their own. The fourth means, fewer epochs, and early stopping are those of the training.
    """

    __pydantic_config__: ClassVar = STRICT

    data: float = 1.0
    channels: float = 1.0
    size: PositiveInt | None = None

    def __post_init__(self) -> None:
        if not 0 < self.data <= 1:
            raise MetanasError(f"proxy.data must be above 0 and at most 1, but is {self.data}.")
        if self.channels <= 0:
            raise MetanasError(f"proxy.channels must be above 0, but is {self.channels}.")


@dataclass(frozen=True)
class Estimator:
    """How architectures are measured, by name: "alone", "shared", a zero-cost score, or what a "table" says.

    `proxy`, `training` and `warm_start` (the folder of a run or search whose shared weights training begins with)
    belong to "alone", `batch`, the images of a score, to the scores; MetanasError where another has them.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str = ALONE
    proxy: Proxy = Proxy()
    training: Training = field(default_factory=Training)
    warm_start: str | None = None
    batch: PositiveInt = 64

    def __post_init__(self) -> None:
        names = (ALONE, SHARED, *SCORES, TABLE)
        if self.name not in names:
            raise MetanasError(f"evaluator.name: there is no '{self.name}'; name one of {', '.join(names)}.")
        owners = {"proxy": {ALONE}, "training": {ALONE}, "warm_start": {ALONE}, "batch": set(SCORES)}
        plain = {"proxy": Proxy(), "training": Training(), "warm_start": None, "batch": 64}
        for key, own in owners.items():
            if self.name not in own and getattr(self, key) != plain[key]:
                raise MetanasError(f"evaluator.{key} belongs to {' and '.join(sorted(own))}, not to '{self.name}'.")


class Alone:
    """The best accuracy over the epochs of training alone, all of it or by a proxy; a share is one of the epochs.

    With `shared`, the weights of an earlier run or search, training starts from those.
    """

    def __init__(
        self,
        estimator: Estimator,
        space: Space,
        train: Samples,
        validation: Samples,
        seed: int,
        shared: Mapping[str, Tensor] | None = None,
    ) -> None:
        proxy = estimator.proxy
        size = proxy.size or train.inputs.shape[-1]
        if proxy.channels != 1:
            if shared is not None:
                raise MetanasError("proxy.channels must be 1 where training starts from the weights of another run.")
            space = cast(Scalable, space).scaled(depth=1, width=proxy.channels, size=size)
        if proxy.data < 1:
            train = train.split(proxy.data, stream(seed, "proxy"))[0]
        self.space, self.training, self.seed, self.shared = space, estimator.training, seed, shared
        self.train, self.validation, self.size = resized(train, size), resized(validation, size), size

    def __call__(self, architecture: Architecture, share: float = 1.0) -> float:
        network = make_classifier(self.space, architecture, self.train.ways, self.size, self.seed, self.shared)
        training = replace(self.training, epochs=max(1, round(share * self.training.epochs)))
        return max(train_alone(network, self.train, self.validation, training, self.seed))


class ZeroCost:
    """A score of the network at random weights, on one batch of the training samples, whatever the share."""

    def __init__(self, estimator: Estimator, space: Space, train: Samples, seed: int) -> None:
        rows = stream(seed, "batch").permutation(len(train))[: estimator.batch]
        self.score, self.space, self.seed = SCORES[estimator.name], space, seed
        self.batch = train.take(np.sort(rows))

    def __call__(self, architecture: Architecture, share: float = 1.0) -> float:
        network = make_classifier(self.space, architecture, self.batch.ways, self.batch.inputs.shape[-1], self.seed)
        randomise(network, torch_stream(self.seed, "scores"))
        return self.score(network, self.batch)


def resized(samples: Samples, size: int) -> Samples:
    """The samples with images of `size` pixels, smaller ones by averaging."""
    if samples.inputs.shape[-1] == size:
        return samples
    images = F.interpolate(samples.inputs, size=(size, size), mode="bilinear", antialias=True)
    return Samples(images.clamp(0, 1), samples.labels, samples.ways)


@dataclass(frozen=True)
class MeasureRecipe:
    """Picklable: makes a worker that holds the measure, in any process."""

    estimator: Estimator
    space: Space
    train: Samples
    validation: Samples
    seed: int
    shared: Mapping[str, Tensor] | None = None

    def __call__(self) -> Worker:
        return Worker({}, {}, {self.estimator.name: self._measure()})

    def _measure(self) -> Measure:
        if self.estimator.name == ALONE:
            return Alone(self.estimator, self.space, self.train, self.validation, self.seed, self.shared)
        return ZeroCost(self.estimator, self.space, self.train, self.seed)


@dataclass(frozen=True)
class SharedRecipe:
    """Picklable: makes a worker that measures by the shared weights that were last loaded into it."""

    space: Space
    task: Classification
    seed: int

    def __call__(self) -> Worker:
        shared = OneShot(self.space, self.task, self.seed)
        return Worker({SHARED: shared.learner}, {}, {SHARED: shared.measure})


@dataclass(frozen=True)
class TableRecipe:
    """Picklable: makes a worker that looks up what a benchmark's table says."""

    folder: Path
    name: str

    def __call__(self) -> Worker:
        return Worker({}, {}, {TABLE: load_table(self.folder, self.name).validate})


@contextmanager
def evaluator(
    recipe: MeasureRecipe,
    task: str,
    workers: int = 0,
    record: Record = lambda rows: None,
) -> Iterator[Measured]:
    """Measures architectures as the recipe says, in this process or on as many Ray actors.

    `task` names the task in the records, which go to `record`. The costs are those of the whole network, whatever the
    proxy.
    """
    size = recipe.train.inputs.shape[-1]
    with executor_for(recipe, workers) as executor:
        yield Measured(
            executor,
            recipe.estimator.name,
            costs(recipe.space, size),
            recipe.space,
            task,
            recipe.seed,
            record,
        )
