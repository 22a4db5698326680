"""A pool: tasks from many sources, split into meta-train, meta-validation and meta-test.

A pool is a YAML file, or the same mapping inside a run's config:

    name: my-pool
    sources:
      - {name: signs, kind: gtsrb}
      - {name: lines, kind: folder, path: my_lines, weight: 2}
    splits: {by: class, fractions: {train: 0.8, validation: 0.2}, test: [lines/*]}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from metanas.errors import MetanasError
from metanas.files import read_yaml
from metanas.parsing import parse
from metanas.seeding import stream
from tasks.cache import CachedImages
from tasks.sources import Where, data_folder, load_source
from tasks.task import ImageForm, Task

SPLITS = ("train", "validation", "test")

Assignment = dict[str, dict[str, tuple[str, ...]]]
"""Split -> task -> the classes of that task that lie in the split."""


class Source(BaseModel):
    """One entry of `sources`; what else it takes depends on its kind (see the function of that kind)."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str
    kind: str
    weight: PositiveFloat = 1.0


class _Splits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class ByTask(_Splits):
    """Whole tasks, by names or patterns such as `lines/*`."""

    by: Literal["task"]
    train: list[str]
    validation: list[str] = []
    test: list[str] = []


class Fractions(_Splits):
    """The share of each task's classes that goes to each split."""

    train: NonNegativeFloat
    validation: NonNegativeFloat = 0.0
    test: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _whole(self) -> "Fractions":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the fractions add up to {total:g}, expected 1")
        return self


class ByClass(_Splits):
    """Each task's classes by seeded chance; tasks named under a split go there whole.

    A family (alphabet, superclass) stays on one side unless `families_together` is false.
    """

    by: Literal["class"]
    fractions: Fractions
    seed: int = 0
    families_together: bool = True
    train: list[str] = []
    validation: list[str] = []
    test: list[str] = []


class ByList(_Splits):
    """For each split, tasks with their classes, `family:NAME` for all classes of a family, or `all`."""

    by: Literal["list"]
    train: dict[str, list[str] | Literal["all"]]
    validation: dict[str, list[str] | Literal["all"]] = {}
    test: dict[str, list[str] | Literal["all"]] = {}


class PoolSpec(BaseModel):
    """The schema of a pool file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    sources: list[Source] = Field(min_length=1)
    splits: Annotated[ByTask | ByClass | ByList, Field(discriminator="by")]


@dataclass(frozen=True)
class Pool:
    """The tasks of each split; a task that is split by class lies in several, with other classes in each.

    `weights` says, for each task of `train`, how often episodes draw it: its source's weight, shared evenly among the
    source's tasks, so that a source of twenty lines does not drown the others.
    """

    name: str
    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    test: tuple[Task, ...]
    weights: tuple[float, ...]

    @property
    def splits(self) -> dict[str, tuple[Task, ...]]:
        """Name of the split -> its tasks."""
        return {split: getattr(self, split) for split in SPLITS}

    @property
    def contents(self) -> dict[str, str]:
        """Every task in its split -> its content hash."""
        return {f"{task.name} ({split})": task.content_hash for split, tasks in self.splits.items() for task in tasks}


def load_pool(
    spec: Mapping[str, Any] | Path,
    form: ImageForm,
    data: Path | None = None,
    base: Path | None = None,
    hold_out: str | None = None,
    download: bool = False,
) -> Pool:
    """The pool that a mapping or a YAML file describes; files of samples are not opened yet.

    Paths are looked up below `base` (a file's own folder, else the working folder), then below `data` (METANAS_DATA
    when not given). `hold_out` names a source, or one task such as `lines/caps`: it leaves train and validation
    and is the whole of test. Raises MetanasError for every mistake in the file or in what it names.
    """
    if isinstance(spec, Path):
        base = base or spec.parent
        spec = _read(spec)
    parsed = _parse(spec)
    where = Where(base, data_folder(data), download)
    by_source = {
        source.name: load_source(source.kind, source.name, form, where, source.model_extra or {})
        for source in parsed.sources
    }
    tasks = {task.name: task for loaded in by_source.values() for task in loaded}
    held = _held_out(hold_out, by_source)
    assignment = _assign(parsed.splits, tasks, held)
    _refuse_overlap(assignment)
    weight = {
        task.name: source.weight / len(by_source[source.name])
        for source in parsed.sources
        for task in by_source[source.name]
    }
    parts = {
        split: tuple(_part(tasks[name], classes) for name, classes in named.items())
        for split, named in assignment.items()
    }
    if held:
        parts["test"] = tuple(tasks[name] for name in held)
    _refuse_common_samples(parts)
    if not parts["train"]:
        raise MetanasError(f"Pool '{parsed.name}' has no task left to train on: name some under splits.train.")
    return Pool(parsed.name, **parts, weights=tuple(weight[task.name] for task in parts["train"]))


def _held_out(hold_out: str | None, by_source: Mapping[str, Sequence[Task]]) -> list[str]:
    """The names of the tasks that `hold_out` names as a source, or as one of them."""
    if hold_out is None:
        return []
    if hold_out in by_source:
        return [task.name for task in by_source[hold_out]]
    if hold_out in (tasks := [task.name for loaded in by_source.values() for task in loaded]):
        return [hold_out]
    lines = [name for name in tasks if name not in by_source]
    choices = f"source '{hold_out}', it has {_listed(by_source)}" + (f" (with {_listed(lines)})" if lines else "")
    raise MetanasError(f"hold-out: the pool has no task and no {choices}.")


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise MetanasError(f"There is no pool file '{path}': give the path of a YAML file with sources and splits.")
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise MetanasError(f"The pool file '{path}' holds no keys, expected name, sources and splits.")
    return content


def _parse(spec: Mapping[str, Any]) -> PoolSpec:
    parsed = parse(PoolSpec, spec, "The pool")
    names = [source.name for source in parsed.sources]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MetanasError(f"Pool '{parsed.name}' has two sources '{min(twice)}': give each a name of its own.")
    return parsed


def _assign(splits: ByTask | ByClass | ByList, tasks: Mapping[str, Task], held: Sequence[str]) -> Assignment:
    """What lies where, leaving out the tasks that are held out."""
    if isinstance(splits, ByList):
        assignment = {split: _listed_classes(split, getattr(splits, split), tasks) for split in SPLITS}
    else:
        named = {split: _matching(split, getattr(splits, split), tasks) for split in SPLITS}
        assignment = {split: {name: tasks[name].classes for name in names} for split, names in named.items()}
        if isinstance(splits, ByClass):
            whole = {name for names in named.values() for name in names}
            for name in sorted(set(tasks) - whole - set(held)):
                for split, classes in _drawn_classes(tasks[name], splits).items():
                    assignment[split][name] = classes
    return {
        split: {name: classes for name, classes in named.items() if name not in held}
        for split, named in assignment.items()
    }


def _matching(split: str, patterns: Sequence[str], tasks: Mapping[str, Task]) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in tasks if name == pattern or fnmatchcase(name, pattern)]
        if not matches:
            raise MetanasError(f"splits.{split}: no task is called '{pattern}', the pool has {_listed(tasks)}.")
        found.update(dict.fromkeys(matches))
    return list(found)


def _listed_classes(
    split: str, entries: Mapping[str, list[str] | Literal["all"]], tasks: Mapping[str, Task]
) -> dict[str, tuple[str, ...]]:
    chosen = {}
    for name, wanted in entries.items():
        if name not in tasks:
            raise MetanasError(f"splits.{split}: no task is called '{name}', the pool has {_listed(tasks)}.")
        task = tasks[name]
        families = task.families or ("",) * len(task.classes)
        members: dict[str, None] = {}
        for entry in task.classes if wanted == "all" else wanted:
            family = entry.removeprefix("family:") if entry.startswith("family:") else None
            pairs = zip(task.classes, families, strict=True)
            found = [label for label, home in pairs if (label == entry if family is None else home == family)]
            if not found:
                choices = _listed(task.classes if family is None else sorted(set(families)))
                raise MetanasError(f"splits.{split}.{name}: '{entry}' is not known, expected one of {choices}.")
            members.update(dict.fromkeys(found))
        chosen[name] = tuple(members)
    return chosen


def _drawn_classes(task: Task, splits: ByClass) -> dict[str, tuple[str, ...]]:
    """The classes of one task by chance: each unit goes where most classes are still wanted."""
    together = task.families if task.families is not None and splits.families_together else task.classes
    units: dict[str, list[str]] = {}
    for label, unit in zip(task.classes, together, strict=True):
        units.setdefault(unit, []).append(label)
    wanted = np.array([getattr(splits.fractions, split) for split in SPLITS]) * len(task.classes)
    drawn: dict[str, list[str]] = {split: [] for split in SPLITS}
    for index in stream(splits.seed, "classes of", task.name).permutation(len(units)):
        members = list(units.values())[index]
        neediest = int(wanted.argmax())
        drawn[SPLITS[neediest]] += members
        wanted[neediest] -= len(members)
    for split, classes in drawn.items():
        if len(classes) == 1:
            raise MetanasError(
                f"splits: '{task.name}' has {len(task.classes)} classes, of which one alone would fall to {split}: "
                f"name '{task.name}' whole under splits.train, validation or test, or change the fractions."
            )
    return {split: tuple(c for c in task.classes if c in set(classes)) for split, classes in drawn.items() if classes}


def _refuse_overlap(assignment: Assignment) -> None:
    for index, first in enumerate(SPLITS):
        for second in SPLITS[index + 1 :]:
            for name in assignment[first].keys() & assignment[second].keys():
                if both := set(assignment[first][name]) & set(assignment[second][name]):
                    raise MetanasError(
                        f"splits: class '{min(both)}' of '{name}' lies in {first} and in {second}: take it out of one."
                    )


def _refuse_common_samples(parts: Mapping[str, Sequence[Task]]) -> None:
    """Two sources may hold the same files or set."""
    for first, second in combinations(parts, 2):
        for one, other in product(parts[first], parts[second]):
            if one.inputs.content == other.inputs.content and set(one.positions) & set(other.positions):
                raise MetanasError(
                    f"splits: '{one.name}' in {first} and '{other.name}' in {second} share samples: take one out."
                )
    owners = {split: {name: task.name for task in tasks for name in _names(task)} for split, tasks in parts.items()}
    for first, second in combinations(owners, 2):
        for name in sorted(owners[first].keys() & owners[second].keys()):
            raise MetanasError(
                f"splits: '{name}' is of '{owners[first][name]}' in {first} and of '{owners[second][name]}' in "
                f"{second}: take one out."
            )


def _names(task: Task) -> list[str]:
    """What the images of a task lie as: files, or positions in one."""
    inputs = task.inputs
    return [inputs.originals.name(row) for row in task.positions] if isinstance(inputs, CachedImages) else []


def _part(task: Task, classes: tuple[str, ...]) -> Task:
    return task if classes == task.classes else task.only(classes)


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = list(names)
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
