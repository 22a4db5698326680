"""Folders of image files, or a zip of them: `class/file` is one task, `line/class/file` one task a line."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import ClassVar
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image

from metanas.errors import MetanasError
from tasks.cache import CachedImages, open_image
from tasks.digests import digests
from tasks.sources import DAMAGED, Where
from tasks.task import ImageForm, Task

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".ppm", ".pgm", ".pbm"))


@lru_cache(maxsize=8)
def _archive(place: Path, content: str, process: int) -> ZipFile:
    """An open zip file: its directory is read once a process, not once an episode."""
    return ZipFile(place)


@dataclass(frozen=True)
class ImageFiles:
    """Image files by their names below `place`, a folder or a zip file."""

    at_once: ClassVar[bool] = False

    place: Path
    names: tuple[str, ...]
    content: str
    left_out: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return str(self.place / self.names[index])

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], Image.Image]]:
        yield self._open_member if self.place.is_file() else self._open_file

    def _open_file(self, index: int) -> Image.Image:
        return open_image(self.place / self.names[index], self.name(index))

    def _open_member(self, index: int) -> Image.Image:
        try:
            data = _archive(self.place, self.content, os.getpid()).read(self.names[index])
        except DAMAGED as error:
            raise MetanasError(f"'{self.name(index)}' cannot be unpacked ({error}): zip it again.") from error
        return open_image(BytesIO(data), self.name(index))


def files_in(root: Path) -> list[str]:
    """The names of all visible files below a folder or in a zip, sorted."""
    names = _members(root) if root.is_file() else _names_below(root)
    return sorted(name for name in names if not _hidden(name))


def contents_of(root: Path, names: Sequence[str]) -> dict[str, str]:
    """What stands for the content of files below a folder or in a zip, by name."""
    if not root.is_file():
        return digests(root, names)
    members = _members(root)
    return {name: members[name] for name in names}


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _names_below(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root, onerror=_unreadable, followlinks=True):
        for name in names:
            yield Path(folder, name).relative_to(root).as_posix()


def _unreadable(error: OSError) -> None:
    raise MetanasError(f"'{error.filename}' cannot be read ({error.strerror}): make it readable, or take it away.")


def _members(root: Path) -> dict[str, str]:
    try:
        with ZipFile(root) as archive:
            return {member.filename: str(member.CRC) for member in archive.infolist() if not member.is_dir()}
    except BadZipFile as error:
        raise MetanasError(f"'{root}' is not a zip file ({error}): make it again, or name a folder.") from error


def image_files(
    root: Path, contents: Mapping[str, str], names: Sequence[str], left_out: Mapping[str, str] | None = None
) -> ImageFiles:
    """The files `names`, of whose `contents` the digest is made; `left_out` says why others are not."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"\0{name}\0{contents[name]}".encode(errors="surrogateescape"))
    others = tuple((str(root / name), reason) for name, reason in (left_out or {}).items())
    return ImageFiles(root, tuple(names), digest.hexdigest(), others)


def class_task(name: str, files: ImageFiles, form: ImageForm, groups: str | None, licence: str) -> Task:
    """One task of files `.../class/file`; `groups` is a pattern as in `load`."""
    folders = [PurePosixPath(file).parent.name for file in files.names]
    classes, labels = np.unique(folders, return_inverse=True)
    return Task(
        name,
        "image",
        CachedImages(files, form),
        labels,
        tuple(classes.tolist()),
        groups=None if groups is None else _groups(files, groups),
        licence=licence,
        origin=str(files.place),
    )


def _groups(files: ImageFiles, pattern: str) -> np.ndarray:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise MetanasError(f"groups '{pattern}' is not a regular expression ({error}).") from error
    found = [compiled.search(PurePosixPath(name).name) for name in files.names]
    if None in found:
        missed = files.name(found.index(None))
        raise MetanasError(f"groups '{pattern}' does not match the file name of '{missed}': correct the pattern.")
    return np.array([match[min(1, compiled.groups)] for match in found if match is not None])


def load(
    name: str, form: ImageForm, where: Where, path: Path, groups: str | None = None, licence: str = "unknown"
) -> list[Task]:
    """`path/class/file` as one task `name`, or `path/line/class/file` as tasks `name/line`.

    `path` is a folder (torchvision's ImageFolder layout) or a zip file. `groups` is a regular expression on the file
    name whose first bracket (or whole match) names the group: `^(board\\d+)_`. Files are decoded when first read.
    """
    root = where.find(path)
    files = files_in(root)
    images = [file for file in files if PurePosixPath(file).suffix.lower() in SUFFIXES]
    tops = {file.split("/")[0] for file in images}
    outer = root.is_file() and len(tops) == 1 and all(file.count("/") > 1 for file in images)  # a folder zipped whole
    depth = {file: file.count("/") - outer for file in images}
    left_out = {file: "it is no image file" for file in files if file not in depth}
    left_out |= {file: "it lies in no class folder" for file in images if depth[file] == 0}
    if root.is_dir():
        empty = [Path(folder) for folder, below, inside in os.walk(root) if not below + inside]
        left_out |= {folder.relative_to(root).as_posix(): "it is an empty folder" for folder in empty}
    by_depth = {level: [file for file in images if depth[file] == level] for level in set(depth.values()) - {0}}
    if not by_depth:
        raise MetanasError(f"'{root}' holds no images in class folders, expected {root.name}/CLASS/FILE.png.")
    if len(by_depth) > 1 or max(by_depth) > 2:
        examples = " and ".join(f"'{found[0]}'" for found in by_depth.values())
        raise MetanasError(f"'{root}' holds {examples}, expected CLASS/FILE or LINE/CLASS/FILE throughout: move them.")
    contents = contents_of(root, images)
    ((level, samples),) = by_depth.items()
    if level == 1:
        return [class_task(name, image_files(root, contents, samples, left_out), form, groups, licence)]
    lines: dict[str, list[str]] = {}
    for file in samples:
        lines.setdefault(file.split("/")[int(outer)], []).append(file)
    others: dict[str, dict[str, str]] = {line: {} for line in lines}
    for file, reason in left_out.items():
        below = file.split("/")[int(outer) :]
        line = below[0] if below and below[0] in lines else next(iter(lines))  # what is of no line has to be told, too
        others[line][file] = reason
    return [
        class_task(f"{name}/{line}", image_files(root, contents, found, others[line]), form, groups, licence)
        for line, found in lines.items()
    ]
