"""Time series of equal length: npz files in the form of the UCR archive (Dau et al. 2019), or one CSV a class."""

from pathlib import Path

import numpy as np

from metanas.errors import MetanasError
from tasks.cache import InMemory
from tasks.sources import Where
from tasks.sources.npz import array_names, class_names, read_array
from tasks.task import ImageForm, Task


def load(name: str, form: ImageForm, where: Where, path: Path, licence: str = "unknown") -> list[Task]:
    """Series as float32 (n, channels, length).

    `path` is an npz file with `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test`, which are joined (x is
    (n, length) or (n, channels, length)), and if present `classes` and `groups` (n,); a folder of such files (a task
    `name/FILE` each); or a folder of `CLASS.csv` files without header, one series a row.
    """
    root = where.find(path)
    if root.is_file():
        return [_archive_task(name, root, licence)]
    if archives := sorted(root.glob("*.npz")):
        return [_archive_task(f"{name}/{file.stem}", file, licence) for file in archives]
    if tables := sorted(root.glob("*.csv")):
        return [_csv_task(name, root, tables, licence)]
    raise MetanasError(f"'{root}' holds neither npz files nor a CSV file for each class.")


def _archive_task(name: str, file: Path, licence: str) -> Task:
    present = array_names(file)
    ends = ("",) if "x" in present else ("_train", "_test")
    parts = [read_array(file, f"x{end}") for end in ends]
    if len({part.shape[1:] for part in parts}) > 1:
        raise MetanasError(f"'{file}': x_train {parts[0].shape} and x_test {parts[1].shape} differ in length.")
    if any(part.dtype.kind not in "biuf" for part in parts):
        raise MetanasError(f"'{file}' holds series of {parts[0].dtype}, not of numbers: save them as such.")
    values = np.concatenate(parts).astype(np.float32)
    marks = np.concatenate([read_array(file, f"y{end}").reshape(-1) for end in ends])
    groups = read_array(file, "groups").reshape(-1) if "groups" in present else None
    counts = {"labels": len(marks)} | ({} if groups is None else {"groups": len(groups)})
    for what, count in counts.items():
        if values.ndim not in (2, 3) or len(values) != count:
            raise MetanasError(f"'{file}' holds series {values.shape} and {count} {what}: one a series.")
    names = read_array(file, "classes") if "classes" in present else None
    labels, classes = class_names(file, marks, names)
    return _task(name, values, labels, classes, file, licence, groups)


def _csv_task(name: str, root: Path, files: list[Path], licence: str) -> Task:
    series = [_rows(file) for file in files]
    lengths = [rows.shape[1] for rows in series]
    for file, length in zip(files, lengths, strict=True):
        if length != lengths[0]:
            raise MetanasError(
                f"'{file}' holds series of {length} values and '{files[0]}' of {lengths[0]}: bring them to one length."
            )
    labels = np.repeat(np.arange(len(files)), [len(rows) for rows in series])
    return _task(name, np.concatenate(series), labels, tuple(file.stem for file in files), root, licence)


def _rows(file: Path) -> np.ndarray:
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise MetanasError(f"'{file}' is not text in UTF-8 ({error}): save it in that encoding.") from error
    if not lines:
        raise MetanasError(f"'{file}' is empty, expected one series a row.")
    rows: list[list[float]] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append([float(value) for value in line.split(",")])
        except ValueError as error:
            raise MetanasError(f"'{file}': row {number} holds something that is no number ({error}).") from error
        if len(rows[-1]) != len(rows[0]):
            raise MetanasError(f"'{file}': row {number} has {len(rows[-1])} values, the first row {len(rows[0])}.")
    return np.array(rows, dtype=np.float32)


def _task(
    name: str,
    values: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    origin: Path,
    licence: str,
    groups: np.ndarray | None = None,
) -> Task:
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise MetanasError(f"'{origin}': series {bad[0]} has a missing value: fill the gap or remove the series.")
    shaped = values[:, None] if values.ndim == 2 else values  # (n, channels, length)
    return Task(name, "series", InMemory(shaped), labels, classes, groups=groups, licence=licence, origin=str(origin))
