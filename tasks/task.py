"""A task: one labelled problem, read lazily."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from metanas.errors import MetanasError

Modality = Literal["image", "series", "tabular", "text"]


class Inputs(Protocol):
    """The samples of a task, read when asked for."""

    @property
    def content(self) -> str:
        """Names what the samples are, from what is known of them unread; another when that changes."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Samples in the order of `indices`: images as uint8 (n, C, H, W), all else as float32 (n, ...)."""


@dataclass(frozen=True)
class ImageForm:
    """The form in which every image of a pool is delivered, whatever its file's size and colour.

    With `dark_ground` an image whose rim is bright is inverted: ink on paper looks like chalk on a board.
    """

    size: int = 28
    channels: int = 1
    dark_ground: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise MetanasError(f"image.size: {self.size} is not possible, expected 1 pixel or more.")
        if self.channels not in (1, 3):
            raise MetanasError(f"image.channels: {self.channels} is not possible, expected 1 (grey) or 3 (colour).")


@dataclass(frozen=True, eq=False)
class Task:
    """One labelled problem.

    `labels` (N,) are indices into `classes`. `groups` (N,) name the board, track or shift of each sample; a group
    never lies on both sides of an episode. `families` name, for each class, the alphabet or superclass that it
    belongs to; episodes may be asked to stay within one.
    """

    name: str
    modality: Modality
    inputs: Inputs
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray | None = None
    families: tuple[str, ...] | None = None
    licence: str = "unknown"
    synthetic: bool = False
    origin: str = ""  # the file or folder, for messages
    rows: np.ndarray | None = field(default=None, repr=False)  # the part of `inputs` in use, None for all

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def positions(self) -> np.ndarray:
        """Of its samples (N,) in `inputs`."""
        return np.arange(len(self)) if self.rows is None else self.rows

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Samples by their position in this task."""
        positions = np.asarray(indices, dtype=np.int64)
        return self.inputs.read(positions if self.rows is None else self.rows[positions])

    @cached_property
    def by_class(self) -> tuple[np.ndarray, ...]:
        """For every class, the positions of its samples in ascending order."""
        order = np.argsort(self.labels, kind="stable")
        bounds = np.searchsorted(self.labels[order], np.arange(len(self.classes) + 1))
        return tuple(order[a:b] for a, b in pairwise(bounds))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over classes, labels, groups and the content of the inputs, of which no sample is decoded.

        Files count by their names and what they hold, those of an archive by the checksums in it: a copy elsewhere is
        the same content. What was once read counts while size and times of change stay.
        """
        groups = None if self.groups is None else self.groups.tolist()
        rows = None if self.rows is None else self.rows.tolist()
        parts = (self.modality, self.classes, self.families, self.labels.tolist(), groups, rows, self.inputs.content)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def only(self, classes: Sequence[str]) -> "Task":
        """This task with some of its classes, in the given order."""
        old = [self.classes.index(name) for name in classes]
        new_label = np.full(len(self.classes), -1)
        new_label[old] = np.arange(len(old))
        labels = new_label[self.labels]
        keep = np.flatnonzero(labels >= 0)
        return replace(
            self,
            labels=labels[keep],
            classes=tuple(classes),
            groups=None if self.groups is None else self.groups[keep],
            families=None if self.families is None else tuple(self.families[i] for i in old),
            rows=keep if self.rows is None else self.rows[keep],
        )
