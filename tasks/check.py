"""What is wrong with a pool before an hour of training goes into it, and what to do about it."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
from PIL import Image

from metanas.errors import MetanasError
from tasks.cache import CachedImages, array_image, to_form
from tasks.likeness import Looks, looks, near_duplicates, near_duplicates_between, together
from tasks.pool import Pool
from tasks.sides import Divider
from tasks.task import ImageForm, Task

Level = Literal["error", "warning", "info"]

USUAL = 0.9  # share of a task's images from which on a size or colour mode is the rule and the others are odd
COUNTS_SHOWN = 30  # classes up to which every count is listed
NOUNS = {
    "image": ("image", "images"),
    "series": ("series", "series"),
    "tabular": ("row", "rows"),
    "text": ("text",) * 2,
}


@dataclass(frozen=True)
class Finding:
    """One thing that the check saw. An error stops training or spoils its figures, a warning may."""

    level: Level
    task: str
    what: str
    to_do: str = ""


@dataclass
class _Look:
    """What one pass over the samples of a task saw: a key for each sample, and for images more."""

    names: list[str] = field(default_factory=list)  # of every sample, by position
    keys: list[bytes] = field(default_factory=list)  # hash of the content, b"" where unreadable
    unreadable: list[str] = field(default_factory=list)  # messages
    shapes: list[tuple[int, int] | None] = field(default_factory=list)  # width and height
    modes: list[str | None] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)  # of the readable, uint8 (16, 16)
    positions: list[int] = field(default_factory=list)  # of the thumbnails

    @cached_property
    def looks(self) -> Looks:
        return looks(self.thumbnails, self.positions)


def check_pool(
    pool: Pool, shots: int, queries: int, asked: Mapping[str, Collection[tuple[int, int]]] | None = None
) -> list[Finding]:
    """Findings on every task of every split, worst first; reads every sample once.

    `shots` and `queries` are what episodes will ask of each class, `asked` what those of a split will where it differs.
    """
    findings: list[Finding] = []
    seen: dict[str, list[tuple[Task, _Look]]] = {}
    for split, tasks in pool.splits.items():
        for task in tasks:
            look = _look_at(task)
            seen.setdefault(split, []).append((task, look))
            findings += [
                _counts(split, task),
                *_files(task, look),
            ]
            for takes in sorted((asked or {}).get(split, [(shots, queries)])):
                findings += _too_small(task, *takes)
            findings += _same_in_task(task, look)
    for first, second in combinations(seen, 2):
        findings += _same_in_splits(first, seen[first], second, seen[second])
        findings += _alike_in_splits(first, seen[first], second, seen[second])
        findings += _groups_in_splits(first, pool.splits[first], second, pool.splits[second])
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(dict.fromkeys(findings), key=lambda finding: order[finding.level])


def _look_at(task: Task) -> _Look:
    look = _Look()
    if task.modality != "image":
        for position in range(len(task)):
            look.names.append(f"{NOUNS[task.modality][0]} {position}")
            look.keys.append(hashlib.sha256(task.read([position]).tobytes()).digest())
        return look
    with _opened(task) as (name, decode):
        for position in range(len(task)):
            look.names.append(name(position).removeprefix(f"{task.origin}/").removesuffix(f" of '{task.origin}'"))
            try:
                image = decode(position)
            except MetanasError as error:
                look.unreadable.append(str(error))
                look.keys.append(b"")
                look.shapes.append(None)
                look.modes.append(None)
                continue
            look.keys.append(hashlib.sha256(repr((image.size, image.mode)).encode() + image.tobytes()).digest())
            look.shapes.append(image.size)
            look.modes.append(image.mode)
            look.thumbnails.append(to_form(image, ImageForm(16, 1))[0])
            look.positions.append(position)
    return look


@contextmanager
def _opened(task: Task) -> Iterator[tuple[Callable[[int], str], Callable[[int], Image.Image]]]:
    """Name and image of each position: as it lies on disk, or as delivered where there is no file."""
    rows = task.positions
    if isinstance(task.inputs, CachedImages):
        originals = task.inputs.originals
        with originals.opened() as decode:
            yield lambda position: originals.name(int(rows[position])), lambda position: decode(int(rows[position]))
    else:
        yield (
            lambda position: f"image {position}",
            lambda position: array_image(np.moveaxis(task.read([position])[0], 0, -1), task.name),
        )


def _counts(split: str, task: Task) -> Finding:
    counts = [len(positions) for positions in task.by_class]
    listed = sorted(zip(counts, task.classes, strict=True))
    shown = ", ".join(f"{name}: {count}" for count, name in listed[:COUNTS_SHOWN])
    more = f" and {len(listed) - COUNTS_SHOWN} larger classes" if len(listed) > COUNTS_SHOWN else ""
    return Finding(
        "info",
        task.name,
        f"{split}: {_number(len(task), task)} in {len(counts)} classes, {min(counts)} to {max(counts)} each "
        f"({shown}{more}); licence: {task.licence}" + ("; synthetic" if task.synthetic else ""),
    )


def _too_small(task: Task, shots: int, queries: int) -> Iterator[Finding]:
    noun = NOUNS[task.modality][1]
    if len(task.classes) < 2:
        yield Finding("error", task.name, "has one class only", f"add {noun} of a second class")
    counts = {name: len(positions) for name, positions in zip(task.classes, task.by_class, strict=True)}
    short = {name: shots + queries - count for name, count in counts.items() if count < shots + queries}
    if short:
        have = ", ".join(f"'{name}' has {_number(counts[name], task)}" for name in short)
        add = ", ".join(f"add {_number(missing, task)} to '{name}'" for name, missing in short.items())
        what = f"an episode takes {shots} shots and {queries} queries of a class: {have}"
        yield Finding("error", task.name, what, f"{add}, or ask for fewer")
    divider = Divider(task)
    for label, (name, positions) in enumerate(zip(task.classes, task.by_class, strict=True)):
        if task.groups is not None and len(sides := set(task.groups[positions].tolist())) == 1:
            yield Finding(
                "error",
                task.name,
                f"all {len(positions)} {noun} of class '{name}' are of group '{min(sides)}', so that support and query "
                "cannot be kept apart",
                f"add {noun} of another group to '{name}', or leave the groups unused",
            )
        elif name not in short:
            try:
                divider.check(np.array([label]), shots, queries)
            except MetanasError as error:
                what, _, to_do = str(error).removesuffix(".").rpartition(": ")
                yield Finding("error", task.name, what, to_do)


def _files(task: Task, look: _Look) -> Iterator[Finding]:
    for message in look.unreadable:
        what, _, to_do = message.removesuffix(".").rpartition(": ")
        yield Finding("error", task.name, what, to_do)
    if isinstance(task.inputs, CachedImages):
        for file, reason in task.inputs.originals.left_out:
            yield Finding("warning", task.name, f"'{file}' is left out: {reason}", "remove it or move it to its class")
    yield from _odd(task, look, [None if shape is None else f"{shape[0]}x{shape[1]}" for shape in look.shapes], "size")
    yield from _odd(task, look, look.modes, "colour mode")


def _odd(task: Task, look: _Look, values: Sequence[str | None], quality: str) -> Iterator[Finding]:
    counts = Counter(value for value in values if value is not None)
    if len(counts) < 2:
        return
    usual, count = counts.most_common(1)[0]
    if count < USUAL * counts.total():
        return
    odd = [f"'{name}' ({value})" for name, value in zip(look.names, values, strict=True) if value not in (None, usual)]
    yield Finding(
        "warning",
        task.name,
        f"{len(odd)} of {counts.total()} images have another {quality} than {usual}: {_examples(odd)}",
        "make sure that they belong there and were taken like the others",
    )


def _same_in_task(task: Task, look: _Look) -> Iterator[Finding]:
    first: dict[bytes, int] = {}
    same: list[str] = []
    contradictory: list[str] = []
    for position, key in enumerate(look.keys):
        if not key:
            continue
        earlier = first.setdefault(key, position)
        pair = f"{_with_class(task, look, earlier)} and {_with_class(task, look, position)}"
        if task.labels[earlier] != task.labels[position]:
            contradictory.append(pair)
        elif earlier != position and not _one_group(task, earlier, position):
            same.append(pair)
    if same:
        what = f"exact duplicates of {_number(len(same), task)}: {_examples(same)}"
        yield Finding("warning", task.name, what, "remove all but one of each, or give them one group")
    if contradictory:
        what = f"{_number(len(contradictory), task)} under two classes: {_examples(contradictory)}"
        yield Finding("error", task.name, what, "decide for one class and remove the other")
    distinct = set(first.values())
    near = [
        f"{_with_class(task, look, a)} and {_with_class(task, look, b)}"
        for a, b in near_duplicates(look.looks)
        if a in distinct and b in distinct and not _one_group(task, a, b)
    ]
    if near:
        what = f"near duplicates of {_number(len(near), task)}: {_examples(near)}"
        yield Finding("warning", task.name, what, "look at them, and give shots of the same object one group")


def _one_group(task: Task, first: int, second: int) -> bool:
    """Samples of one group never meet on both sides of an episode, so that likeness does no harm."""
    return task.groups is not None and bool(task.groups[first] == task.groups[second])


def _same_in_splits(
    first: str, left: Sequence[tuple[Task, _Look]], second: str, right: Sequence[tuple[Task, _Look]]
) -> Iterator[Finding]:
    known = {
        key: f"{_with_class(task, look, position)} of '{task.name}'"
        for task, look in left
        for position, key in enumerate(look.keys)
        if key
    }
    for task, look in right:
        same = [
            f"{known[key]} and {_with_class(task, look, position)}"
            for position, key in enumerate(look.keys)
            if key in known
        ]
        if same:
            yield Finding(
                "error",
                task.name,
                f"{_number(len(same), task)} both in {first} and in {second}: {_examples(same)}",
                f"remove them from {first}",
            )


def _alike_in_splits(
    first: str, left: Sequence[tuple[Task, _Look]], second: str, right: Sequence[tuple[Task, _Look]]
) -> Iterator[Finding]:
    """Such as two shots of one object; exact duplicates are an error of their own."""
    exact = {key for _, look in left for key in look.keys}
    known = together([look.looks for _, look in left])
    owners = [(task, look, position) for task, look in left for position in look.looks.positions]
    for task, look in right:
        near = [
            f"{_with_class(*owners[a])} of '{owners[a][0].name}' and {_with_class(task, look, b)}"
            for a, b in near_duplicates_between(known, look.looks)
            if look.keys[b] not in exact
        ]
        if near:
            yield Finding(
                "warning",
                task.name,
                f"{_number(len(near), task)} in {second} that look like ones in {first}: {_examples(near)}",
                f"look at them, and remove those that show the same object from {first}",
            )


def _groups_in_splits(first: str, left: Sequence[Task], second: str, right: Sequence[Task]) -> Iterator[Finding]:
    for task in right:
        for other in left:
            if other.name != task.name or other.groups is None or task.groups is None:
                continue
            if both := sorted(set(other.groups.tolist()) & set(task.groups.tolist())):
                shown = _examples([f"'{group}'" for group in both])
                yield Finding(
                    "warning",
                    task.name,
                    f"{len(both)} of its groups both in {first} and in {second}: {shown}",
                    "split this task as a whole (splits.by: task), or cut it into sources by group",
                )


def _with_class(task: Task, look: _Look, position: int) -> str:
    return f"{look.names[position]} [{task.classes[task.labels[position]]}]"


def _number(count: int, task: Task) -> str:
    return f"{count} {NOUNS[task.modality][count != 1]}"


def _examples(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")
