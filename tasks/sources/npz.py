"""NumPy archives: `images`, `labels`, and where there are any `groups` and `classes`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar
from zipfile import ZipFile

import numpy as np
from PIL import Image

from metanas.errors import MetanasError
from tasks.cache import CachedImages, InOneFile, array_image
from tasks.sources import DAMAGED, Where
from tasks.task import ImageForm, Task


@dataclass(frozen=True)
class ArchivedImages(InOneFile):
    """The array `array` of an npz file; its first `leading` axes count the images.

    They are unpacked one after the other, so that the array need not fit in memory.
    """

    at_once: ClassVar[bool] = True

    array: str
    leading: int

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], Image.Image]]:
        with ZipFile(self.place) as archive, archive.open(f"{self.array}.npy") as stream:
            shape, by_columns, dtype = _header(stream)
            start, shape = stream.tell(), shape[self.leading :]
            size = int(np.prod(shape)) * dtype.itemsize
            if by_columns:  # the pixels of an image lie all over the array
                images = read_array(self.place, self.array).reshape(self.count, *shape)

            def decode(index: int) -> Image.Image:
                if by_columns:
                    return array_image(images[index], self.name(index))
                try:
                    stream.seek(start + index * size)
                    pixels = np.frombuffer(stream.read(size), dtype).reshape(shape)
                except DAMAGED as error:
                    raise MetanasError(f"{self.name(index)} cannot be read ({error}): save the file again.") from error
                return array_image(pixels, self.name(index))

            yield decode


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an npz file; MetanasError where it is none."""
    try:
        with ZipFile(path) as archive:
            return [member.removesuffix(".npy") for member in archive.namelist()]
    except DAMAGED as error:
        raise MetanasError(f"'{path}' is not an npz file ({error}): save it with numpy.savez_compressed.") from error


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of an npz file, the others stay unread; MetanasError where it is missing or holds Python objects."""
    if name not in (names := array_names(path)):
        raise MetanasError(f"'{path}' has no array '{name}', it holds {', '.join(sorted(names))}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: np.ndarray = archive[name]
    except DAMAGED as error:
        raise MetanasError(f"Array '{name}' of '{path}' cannot be read ({error}): save it as plain numbers.") from error
    return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies column by column, and kind of the array that `stream` goes on with."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    return shape, by_columns, dtype


def archived_images(path: Path, array: str, leading: int) -> ArchivedImages:
    """The images of an npz file, unread; the file's own checksum of the array stands for their content."""
    if array not in (names := array_names(path)):
        raise MetanasError(f"'{path}' has no array '{array}', it holds {', '.join(sorted(names))}.")
    try:
        with ZipFile(path) as archive, archive.open(member := archive.getinfo(f"{array}.npy")) as stream:
            shape, _, _ = _header(stream)
    except DAMAGED as error:
        raise MetanasError(f"Array '{array}' of '{path}' cannot be read ({error}): save the file again.") from error
    return ArchivedImages(path, int(np.prod(shape[:leading])), f"{member.CRC} {member.file_size}", array, leading)


def class_names(path: Path, labels: np.ndarray, names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (N,) as indices, and the class names; without `names` the distinct labels name the classes."""
    if names is None:
        distinct, indices = np.unique(labels, return_inverse=True)
        return indices, tuple(map(str, distinct.tolist()))
    if labels.dtype.kind not in "iu":
        raise MetanasError(f"The labels of '{path}' are {labels.dtype}, expected whole numbers that index its classes.")
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        row = int(outside[0])
        raise MetanasError(f"'{path}': label {labels[row]} of sample {row} names none of its {len(names)} classes.")
    classes = tuple(map(str, names.tolist()))
    if len(set(classes)) < len(classes):
        raise MetanasError(f"'{path}' names a class twice: give each class a name of its own.")
    return labels.astype(np.int64), classes


def renamed(task: Task, names: Mapping[str, str]) -> Task:
    """The classes that `names` mentions, under their new names; two old classes may share a new one."""
    if missing := sorted(set(names) - set(task.classes)):
        raise MetanasError(f"labels_from: '{task.origin}' has no class '{missing[0]}', only {', '.join(task.classes)}.")
    kept = task.only(list(names))
    classes = tuple(dict.fromkeys(names.values()))
    new = np.array([classes.index(name) for name in names.values()])
    return replace(kept, labels=new[kept.labels], classes=classes, families=None)


def load(
    name: str,
    form: ImageForm,
    where: Where,
    path: Path,
    images: str = "images",
    labels: str = "labels",
    groups: str | None = "groups",
    classes: str = "classes",
    labels_from: dict[str, str] | None = None,
    invert: bool = False,
    licence: str = "unknown",
) -> list[Task]:
    """One task from arrays images (N, H, W[, C]) and labels (N,); `groups` (N,) and `classes` are used if present.

    `labels_from` keeps the classes it names, under new names: `{p0.00: ok, p1.00: defect}`. A groups array with one
    distinct value says nothing and counts as none; `groups: null` leaves the groups unused.
    """
    file = where.find(path)
    present = array_names(file)
    marks = read_array(file, labels)
    originals = archived_images(file, images, leading=marks.ndim)
    if len(originals) != marks.size and marks.shape[1:] == (1,):  # labels as a column
        originals = archived_images(file, images, leading=1)
    if len(originals) != marks.size:
        raise MetanasError(f"'{file}' holds {len(originals)} images and {marks.size} labels: one label an image.")
    indices, names = class_names(file, marks.reshape(-1), read_array(file, classes) if classes in present else None)
    sides = None
    if groups is not None and (groups in present or groups != "groups"):
        sides = read_array(file, groups).reshape(-1)
        if len(sides) != marks.size:
            raise MetanasError(f"'{file}' holds {len(sides)} groups and {marks.size} labels: one group an image.")
        sides = None if len(np.unique(sides)) == 1 else sides
    inputs = CachedImages(originals, form, invert)
    task = Task(name, "image", inputs, indices, names, groups=sides, licence=licence, origin=str(file))
    return [task if labels_from is None else renamed(task, labels_from)]
