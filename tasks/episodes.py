"""Episodes: n-way k-shot q-query draws from the tasks of a split.

An episode is a pure function of the sampler's seed and name and of the episode's index, so that any process may draw
any episode at any time.
"""

import sys
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metanas.errors import MetanasError
from metanas.seeding import stream, torch_stream
from tasks.augment import augmentation
from tasks.sides import Divider, Sides
from tasks.task import Task

Range = int | tuple[int, int]
"""A fixed number, or a lowest and a highest between which each episode draws."""
DRAWS = 20
"""Draws of classes that an episode tries where groups cannot be divided among them."""
ALL: Literal["all"] = "all"
"""Every class that the drawn task, or the family within it, offers."""


@dataclass(frozen=True)
class EpisodeSpec:
    """What to draw.

    "all" `ways` are every class of the drawn task, or of the family within it. Drawn `ways` and `shots` are clipped
    from above to what the task and its groups offer; where shots are drawn, so are `queries`, down to one. `imbalance`
    b varies the shots of each class from 1 - b to 1 + b times `shots`, at least one, as far as the groups allow.
    `within_family` is the share of the episodes that take all their classes from one alphabet or superclass. With
    `rotations`, each quarter turn of a class is a class of its own.
    """

    ways: Range | Literal["all"] = 5
    shots: Range = 1
    queries: int = 15
    imbalance: float = 0.0
    within_family: float = 0.0
    rotations: bool = False
    augment: str | None = None
    augment_side: Literal["support", "both"] = "both"

    def __post_init__(self) -> None:
        for key, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            low, high = _bounds(getattr(self, key))
            if not least <= low <= high:
                raise MetanasError(f"{key}: {getattr(self, key)} is not possible, expected {least} or more, low first.")
        if not 0 <= self.imbalance < 1:
            raise MetanasError(f"imbalance: {self.imbalance} is not possible, expected 0 or more and below 1.")
        if not 0 <= self.within_family <= 1:
            raise MetanasError(f"within_family: {self.within_family} is not possible, expected a share from 0 to 1.")
        if self.augment is not None:
            augmentation(self.augment)

    @property
    def least(self) -> tuple[int, int]:
        """The fewest shots and queries of a class that an episode may draw."""
        return _bounds(self.shots)[0], 1 if _is_drawn(self.shots) else self.queries


@dataclass(frozen=True)
class Episode:
    """A support and a query set that share no sample and no group; labels count from 0 to `ways` - 1.

    Inputs are float32 (S, C, H, W) and (Q, C, H, W) in [0, 1] for images, (S, ...) and (Q, ...) for all else. Ids are
    positions in the task.
    """

    support_inputs: Tensor
    support_labels: Tensor
    query_inputs: Tensor
    query_labels: Tensor
    ways: int
    task: str
    classes: tuple[str, ...]
    support_ids: np.ndarray
    query_ids: np.ndarray


class EpisodeSampler:
    """Draws episodes from `tasks`, each task as often as its weight says.

    Raises MetanasError at once where a task cannot give what `spec` asks for, and says by how much it is short.
    """

    def __init__(
        self, tasks: Sequence[Task], spec: EpisodeSpec, seed: int, name: str, weights: Sequence[float] | None = None
    ) -> None:
        if not tasks:
            raise MetanasError(f"There is no task to draw episodes from for '{name}': name some in the pool's splits.")
        self.tasks, self.spec, self.seed, self.name = tuple(tasks), spec, seed, name
        self._size: int | None = None
        shares = np.ones(len(tasks)) if weights is None else np.asarray(weights, dtype=np.float64)
        self._shares = np.cumsum(shares / shares.sum())
        self._dividers = tuple(Divider(task) for task in self.tasks)
        self._candidates = tuple(_candidates(divider, spec) for divider in self._dividers)

    def shrunk(self, size: int) -> "EpisodeSampler":
        """Draws the same episodes of images, but `size` pixels wide and high: means over areas."""
        other = copy(self)
        other._size = size
        return other

    def episode(self, index: int) -> Episode:
        """The episode with that index; MetanasError where groups leave a class too little on one side."""
        spec, rng = self.spec, stream(self.seed, self.name, index)
        drawn = min(int(np.searchsorted(self._shares, rng.random(), side="right")), len(self.tasks) - 1)
        task, (everything, families) = self.tasks[drawn], self._candidates[drawn]
        within = rng.random() < spec.within_family
        for left in reversed(range(DRAWS)):
            labels, turns = _draw_classes(families[rng.integers(len(families))] if within else everything, spec, rng)
            try:
                support, query = _draw_samples(self._dividers[drawn], labels, spec, rng)
                break
            except MetanasError:  # no division of the groups serves all of these classes; others may do
                if not left:
                    raise
        support_ids, query_ids = np.concatenate(support), np.concatenate(query)
        sizes = [len(ids) for ids in (*support, *query)]
        ways = np.arange(len(labels))
        targets = torch.from_numpy(np.repeat(np.tile(ways, 2), sizes))
        inputs = as_tensor(task.read(np.concatenate([support_ids, query_ids])))
        inputs = _turned(inputs, np.repeat(np.tile(turns, 2), sizes))
        inputs = self._augmented(inputs, len(support_ids), index)
        if self._size is not None:
            inputs = F.interpolate(inputs, (self._size, self._size), mode="area")
        names = tuple(
            task.classes[label] + (f" turned {90 * turn}" if turn else "")
            for label, turn in zip(labels.tolist(), turns.tolist(), strict=True)
        )
        cut = len(support_ids)
        return Episode(
            support_inputs=inputs[:cut],
            support_labels=targets[:cut],
            query_inputs=inputs[cut:],
            query_labels=targets[cut:],
            ways=len(ways),
            task=task.name,
            classes=names,
            support_ids=support_ids,
            query_ids=query_ids,
        )

    def _augmented(self, inputs: Tensor, support: int, index: int) -> Tensor:
        if self.spec.augment is None:
            return inputs
        change, generator = augmentation(self.spec.augment), torch_stream(self.seed, self.name, index, "augment")
        if self.spec.augment_side == "both":
            return change(inputs, generator)
        return torch.cat([change(inputs[:support], generator), inputs[support:]])


def _bounds(value: Range | Literal["all"]) -> tuple[int, int]:
    if value == ALL:
        return 2, sys.maxsize
    return value if isinstance(value, tuple) else (value, value)


def _is_drawn(value: Range) -> bool:
    return isinstance(value, tuple)


def _candidates(divider: Divider, spec: EpisodeSpec) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The labels among which an episode draws its classes: of the whole task, and of each family where asked."""
    task = divider.task
    if task.modality != "image" and (spec.rotations or spec.augment):
        raise MetanasError(f"Task '{task.name}' holds no images: leave out rotations and augment.")
    if spec.within_family and task.families is None:
        raise MetanasError(f"Task '{task.name}' has no families of classes: leave out within_family.")
    everything = np.arange(len(task.classes))
    if spec.within_family < 1:
        _check_ways(divider, [everything], spec, "")
    if not spec.within_family or task.families is None:
        return everything, ()
    names = np.array(task.families)
    families = [np.flatnonzero(names == name) for name in dict.fromkeys(task.families)]
    return everything, _check_ways(divider, families, spec, " in its largest family")


def _check_ways(
    divider: Divider, offers: Sequence[np.ndarray], spec: EpisodeSpec, where: str
) -> tuple[np.ndarray, ...]:
    """Those of `offers` that have enough classes for an episode, each class with enough samples."""
    turns, least = (4 if spec.rotations else 1), _bounds(spec.ways)[0]
    enough = tuple(labels for labels in offers if turns * len(labels) >= least)
    if not enough:
        largest = max(map(len, offers), default=0)
        raise MetanasError(
            f"Task '{divider.task.name}' has {largest} classes{where}, {least - turns * largest} short of an episode "
            f"of {least} ways: ask for fewer ways."
        )
    shots, queries = spec.least
    for label in np.concatenate(enough):
        _check_size(divider, int(label), shots, queries)
    if spec.ways == ALL or least >= turns * max(map(len, enough)):  # an episode takes every class
        for labels in enough:
            divider.check(labels, shots, queries)
    return enough


def _check_size(divider: Divider, label: int, shots: int, queries: int) -> None:
    task = divider.task
    members = len(task.by_class[label])
    name = f"Class '{task.classes[label]}' of task '{task.name}'"
    asked = f"{shots} support and {queries} query samples"
    if (missing := shots + queries - members) > 0:
        raise MetanasError(
            f"{name} has {members} samples, {missing} short of {asked}: add {missing}, or ask for fewer."
        )
    if divider.groups_of(label) == 1:
        raise MetanasError(
            f"{name} lies in one group, 1 short of {asked} that share no group: add samples of another group, "
            "or read the task without groups."
        )
    divider.check(np.array([label]), shots, queries)


def _draw(value: Range, offered: int, rng: np.random.Generator) -> int:
    low, high = _bounds(value)
    return int(rng.integers(low, max(low, min(high, offered)) + 1))


def _draw_classes(candidates: np.ndarray, spec: EpisodeSpec, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels and quarter turns (ways,), every class and turn equally often."""
    offered = len(candidates) * (4 if spec.rotations else 1)
    ways = offered if spec.ways == ALL else _draw(spec.ways, offered, rng)
    picks = rng.choice(offered, ways, replace=False)
    return candidates[picks % len(candidates)], picks // len(candidates)


def _draw_samples(
    divider: Divider, labels: np.ndarray, spec: EpisodeSpec, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positions of the support and the query samples of each class; turns of one class share its two sides."""
    sizes = np.array([len(divider.task.by_class[label]) for label in labels])
    mean = _draw(spec.shots, int(sizes.min()) - spec.queries, rng)
    shots = np.full(len(labels), mean)
    if spec.imbalance:
        spread = rng.uniform(1 - spec.imbalance, 1 + spec.imbalance, len(labels))
        shots = np.maximum(1, np.rint(mean * spread).astype(int))
    queries = np.full(len(labels), spec.queries)
    if _is_drawn(spec.shots):
        queries = np.minimum(queries, np.maximum(1, sizes - mean))
    shots = np.minimum(shots, sizes - queries)
    sides_of, shots, queries = _divided(divider, labels, shots, queries, rng, spec.least)
    support = [rng.permutation(sides_of[label][0])[:count] for label, count in zip(labels, shots, strict=True)]
    query = [rng.permutation(sides_of[label][1])[:count] for label, count in zip(labels, queries, strict=True)]
    return support, query


Divided = tuple[Sides, np.ndarray, np.ndarray]


def _divided(
    divider: Divider,
    labels: np.ndarray,
    shots: np.ndarray,
    queries: np.ndarray,
    rng: np.random.Generator,
    least: tuple[int, int],
) -> Divided:
    """The two sides with shots and queries (ways,), as many as were drawn or, where groups cannot give them, fewer.

    Queries go first, down to the `least` of each; by bisection, for a division that fails was tried many times.
    """
    spare = max(0, int(queries.max()) - least[1]), max(0, int(shots.max()) - least[0])

    def attempt(cut: int) -> Divided | MetanasError:
        fewer = np.minimum(shots, np.maximum(shots - max(0, cut - spare[0]), least[0]))
        asked = np.minimum(queries, np.maximum(queries - cut, least[1]))
        try:
            return divider.sides(labels, fewer, asked, rng), fewer, asked
        except MetanasError as error:
            return error

    if not isinstance(found := attempt(0), MetanasError):
        return found
    low, high = 0, sum(spare)
    if not high or isinstance(found := attempt(high), MetanasError):
        raise found
    while high - low > 1:
        middle = (low + high) // 2
        if isinstance(trial := attempt(middle), MetanasError):
            low = middle
        else:
            found, high = trial, middle
    return found


def as_tensor(samples: np.ndarray) -> Tensor:
    """Samples as networks take them: float32, images of uint8 in [0, 1]."""
    tensor = torch.from_numpy(samples)
    return tensor.float() / 255 if samples.dtype == np.uint8 else tensor.float()


def _turned(images: Tensor, turns: np.ndarray) -> Tensor:
    """Each image turned by its number of quarter turns, counter-clockwise."""
    if not turns.any():
        return images
    turned = images.clone()
    for turn in (1, 2, 3):
        rows = torch.from_numpy(np.flatnonzero(turns == turn))
        turned[rows] = torch.rot90(images[rows], turn, (2, 3))
    return turned
