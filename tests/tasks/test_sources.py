"""Every kind of source reads files of its format: labels, classes, groups, families, pixels; mistakes are named."""

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import sys
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

from metanas.assembly import WorkerRecipe
from metanas.errors import MetanasError
from tasks.sources import KINDS, Where, load_source
from tasks.sources.torchvision_sets import SUPERCLASS
from tasks.task import ImageForm, Task
from tests.runs import tiny_config

FORM = ImageForm(8)


def load(folder: Path, kind: str, form: ImageForm = FORM, **options: object) -> list[Task]:
    return load_source(kind, "t", form, Where(folder), options)


def picture(path: Path, shade: int, mode: str = "L", size: tuple[int, int] = (10, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade,) * len(mode)).save(path)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Two lines with two classes each, files of many forms."""
    picture(tmp_path / "lines" / "press 1" / "ok" / "a 1.png", 10)
    picture(tmp_path / "lines" / "press 1" / "ok" / "ü.JPG", 20, "RGB")
    picture(tmp_path / "lines" / "press 1" / "riss é" / "b.bmp", 30, size=(64, 3))
    picture(tmp_path / "lines" / "press 2" / "ok" / "c.tiff", 40)
    picture(tmp_path / "lines" / "press 2" / "dent" / "d.webp", 50, "RGBA")
    (tmp_path / "lines" / "press 2" / "dent" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "lines" / ".hidden" / "ok").mkdir(parents=True)
    picture(tmp_path / "lines" / ".hidden" / "ok" / "no.png", 60)
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_folders_of_lines_are_a_task_each(lines: Path, zipped: bool) -> None:
    path = lines / "lines"
    if zipped:
        path = lines / "lines.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (lines / "lines").rglob("*"):
                archive.write(file, file.relative_to(lines / "lines").as_posix())
    first, second = load(lines, "folder", path=path.name, licence="ours")
    assert (first.name, first.classes, first.labels.tolist()) == ("t/press 1", ("ok", "riss é"), [0, 0, 1])
    assert (second.name, second.classes, second.labels.tolist()) == ("t/press 2", ("dent", "ok"), [0, 1])
    assert (first.modality, first.licence, first.groups) == ("image", "ours", None)
    assert first.read([0, 1, 2]).shape == (3, 1, 8, 8)
    np.testing.assert_allclose(first.read([2, 1, 0]).mean(axis=(1, 2, 3)), [30, 20, 10], atol=1)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(second)).read([1])[0], 40, atol=1)


@pytest.mark.parametrize("wrapped", ["", "press 1/"])
def test_a_folder_of_classes_is_one_task_also_zipped_whole(lines: Path, wrapped: str) -> None:
    (task,) = load(lines, "folder", path="lines/press 1")
    with zipfile.ZipFile(lines / "one.zip", "w") as archive:
        for file in (lines / "lines" / "press 1").rglob("*.*"):
            archive.write(file, wrapped + file.relative_to(lines / "lines" / "press 1").as_posix())
    (zipped,) = load(lines, "folder", path="one.zip")
    assert zipped.name == task.name == "t"
    assert zipped.classes == task.classes
    np.testing.assert_array_equal(zipped.read(range(3)), task.read(range(3)))


def test_groups_of_a_folder_come_from_the_file_names(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / "l" / "ok" / f"board{index // 2}_{index}.png", index)
    (task,) = load(tmp_path, "folder", path="l", groups=r"^(board\d+)_")
    assert task.groups is not None
    assert task.groups.tolist() == ["board0", "board0", "board1", "board1"]
    picture(tmp_path / "l" / "ok" / "other.png", 0)
    with pytest.raises(MetanasError, match=r"other\.png"):
        load(tmp_path, "folder", path="l", groups=r"^(board\d+)_")
    with pytest.raises(MetanasError, match="regular expression"):
        load(tmp_path, "folder", path="l", groups="(")


def test_folders_that_are_no_tasks_are_refused(lines: Path) -> None:
    (lines / "empty").mkdir()
    with pytest.raises(MetanasError, match=r"holds no images in class folders, expected empty/CLASS/FILE\.png"):
        load(lines, "folder", path="empty")
    picture(lines / "lines" / "stray class" / "e.png", 1)
    with pytest.raises(MetanasError, match=r"stray class/e\.png.*move them"):
        load(lines, "folder", path="lines")
    (lines / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(MetanasError, match=r"bad\.zip' is not a zip file"):
        load(lines, "folder", path="bad.zip")


def test_npz_takes_labels_groups_and_classes(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None].repeat(9, 1).repeat(9, 2)
    np.savez(
        tmp_path / "a.npz", images=images, labels=[0, 1, 2, 0, 1, 2], groups=list("aabbcc"), classes=["x", "y", "z"]
    )
    (task,) = load(tmp_path, "npz", path="a.npz")
    assert task.classes == ("x", "y", "z")
    assert task.groups is not None
    assert task.groups.tolist() == list("aabbcc")
    assert task.read([4, 0])[:, 0, 0, 0].tolist() == [4, 0]
    (without,) = load(tmp_path, "npz", path="a.npz", groups=None)
    assert without.groups is None
    (inverted,) = load(tmp_path, "npz", path="a.npz", invert=True)
    assert inverted.read([4])[0, 0, 0, 0] == 251


def test_npz_keeps_and_renames_classes(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None].repeat(9, 1).repeat(9, 2)
    classes = ["p0", "p.3", "p1"]
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 2, 0, 1, 2], groups=list("abcdef"), classes=classes)
    (task,) = load(tmp_path, "npz", path="a.npz", labels_from={"p1": "defect", "p0": "ok"})
    assert task.classes == ("defect", "ok")
    assert task.labels.tolist() == [1, 0, 1, 0]
    assert task.read(range(4))[:, 0, 0, 0].tolist() == [0, 2, 3, 5]
    assert task.groups is not None
    assert task.groups.tolist() == ["a", "c", "d", "f"]
    (merged,) = load(tmp_path, "npz", path="a.npz", labels_from={"p0": "ok", "p.3": "defect", "p1": "defect"})
    assert merged.classes == ("ok", "defect")
    assert merged.labels.tolist() == [0, 1, 1, 0, 1, 1]
    with pytest.raises(MetanasError, match=r"no class 'p2', only p0, p\.3, p1"):
        load(tmp_path, "npz", path="a.npz", labels_from={"p2": "ok"})


def test_an_array_larger_than_memory_is_unpacked_image_by_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (500, 64, 64), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.arange(500) % 5)
    (task,) = load(tmp_path, "npz", ImageForm(64), path="a.npz")
    np.testing.assert_array_equal(task.read([499, 0, 123])[:, 0], images[[499, 0, 123]])
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "anew"))
    (again,) = load(tmp_path, "npz", ImageForm(64), path="a.npz")
    tracemalloc.start()
    again.read([499])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 2


def test_an_array_by_columns_and_a_damaged_one(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    np.savez(tmp_path / "columns.npz", images=images.T, labels=[0, 1, 0, 1])  # as MATLAB's arrays come
    (task,) = load(tmp_path, "npz", ImageForm(9), path="columns.npz")
    np.testing.assert_array_equal(task.read([3])[0, 0], images.T[3])
    shades = np.random.default_rng(0).integers(0, 16, (400, 9, 9), dtype=np.uint8)
    np.savez_compressed(tmp_path / "torn.npz", images=shades, labels=np.arange(400) % 2)
    content = bytearray((tmp_path / "torn.npz").read_bytes())
    content[9000:9040] = b"x" * 40
    (tmp_path / "torn.npz").write_bytes(content)
    (torn,) = load(tmp_path, "npz", path="torn.npz")
    with pytest.raises(MetanasError, match=r"image \d+ of '.*torn\.npz' cannot be read"):
        torn.read([399])


def test_labels_may_be_a_column(tmp_path: Path) -> None:
    images = np.arange(4 * 81, dtype=np.uint8).reshape(4, 9, 9)
    np.savez(tmp_path / "column.npz", images=images, labels=[[0], [1], [0], [1]])
    (task,) = load(tmp_path, "npz", ImageForm(9), path="column.npz")
    assert task.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(task.read([2])[0, 0], images[2])


@pytest.mark.parametrize("place", ["labels", "header"])
def test_a_damaged_npz_is_named(tmp_path: Path, place: str) -> None:
    marks = np.random.default_rng(0).integers(0, 2, 5000)
    images = np.zeros((5000, 9, 9), np.uint8)
    first = {"labels": marks, "images": images} if place == "labels" else {"images": images, "labels": marks}
    np.savez_compressed(tmp_path / "torn.npz", **first)
    content = bytearray((tmp_path / "torn.npz").read_bytes())
    content[60:90] = b"x" * 30
    (tmp_path / "torn.npz").write_bytes(content)
    with pytest.raises(MetanasError, match=r"torn\.npz' cannot be read"):
        load(tmp_path, "npz", path="torn.npz")


def test_a_damaged_picture_in_a_zip_is_named(lines: Path) -> None:
    shutil.make_archive(str(lines / "press"), "zip", lines / "lines" / "press 1")
    content = bytearray((lines / "press.zip").read_bytes())
    at = content.index(b"ok/a 1.png") + 12
    content[at : at + 20] = b"x" * 20
    (lines / "press.zip").write_bytes(content)
    (task,) = load(lines, "folder", path="press.zip")
    with pytest.raises(MetanasError, match=r"a 1\.png' cannot be unpacked"):
        task.read(np.arange(len(task)))


def test_npz_without_classes_and_with_one_group(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 9, 9), np.uint8)  # channels first
    np.savez(tmp_path / "a.npz", images=images, labels=["no", "yes", "no", "yes"], groups=["", "", "", ""])
    (task,) = load(tmp_path, "npz", ImageForm(8, 3), path="a.npz")
    assert (task.classes, task.labels.tolist(), task.groups) == (("no", "yes"), [0, 1, 0, 1], None)
    assert task.read([0]).shape == (1, 3, 8, 8)


def test_npz_mistakes_are_named(tmp_path: Path) -> None:
    images = np.zeros((3, 9, 9), np.uint8)
    np.savez(tmp_path / "short.npz", images=images, labels=[0, 1])
    with pytest.raises(MetanasError, match="3 images and 2 labels"):
        load(tmp_path, "npz", path="short.npz")
    np.savez(tmp_path / "outside.npz", images=images, labels=[0, 1, 2], classes=["a", "b"])
    with pytest.raises(MetanasError, match="label 2 of sample 2 names none of its 2 classes"):
        load(tmp_path, "npz", path="outside.npz")
    with pytest.raises(MetanasError, match="no array 'pictures', it holds classes, images, labels"):
        load(tmp_path, "npz", path="outside.npz", images="pictures")
    with pytest.raises(MetanasError, match="no array 'boards'"):
        load(tmp_path, "npz", path="short.npz", images="labels", groups="boards")
    np.savez(tmp_path / "object.npz", images=images, labels=np.array([0, "a", None], dtype=object))
    with pytest.raises(MetanasError, match="save it as plain numbers"):
        load(tmp_path, "npz", path="object.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(MetanasError, match="is not an npz file"):
        load(tmp_path, "npz", path="text.npz")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_become_float_rows(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "speed": [1.5, 2.5, -1.0],
            "grade": ["L", "M", None],
            "hot": [True, False, True],
            "shift": ["early", "late", "late"],
            "failure": [7, 0, 7],
        }
    )
    if suffix == "csv":
        table.to_csv(tmp_path / "t.csv", index=False)
    else:
        table.to_parquet(tmp_path / "t.parquet")
    (task,) = load(tmp_path, "table", path=f"t.{suffix}", label="failure", drop=["id"], groups="shift")
    assert (task.modality, task.classes, task.labels.tolist()) == ("tabular", ("0", "7"), [1, 0, 1])
    assert task.groups is not None
    assert task.groups.tolist() == ["early", "late", "late"]
    rows = task.read([0, 1, 2])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:, :2], [[1.5, 1], [2.5, 0], [-1, 1]])
    np.testing.assert_array_equal(rows[:, 2:], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # missing, L, M


def test_table_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,0\n3,,1\n5,6,\n")
    with pytest.raises(MetanasError, match="no column 'z', it has a, b, y"):
        load(tmp_path, "table", path="t.csv", label="z")
    with pytest.raises(MetanasError, match="row 3 has no value in column 'y'"):
        load(tmp_path, "table", path="t.csv", label="y")
    with pytest.raises(MetanasError, match="column 'b' has no number in 1 rows, first in row 2"):
        load(tmp_path, "table", path="t.csv", label="a", drop=["y"])
    with pytest.raises(MetanasError, match="3 rows and 0 features"):
        load(tmp_path, "table", path="t.csv", label="a", drop=["y", "b"])
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3,4,5,6\n")
    with pytest.raises(MetanasError, match=r"ragged\.csv' cannot be read as a table"):
        load(tmp_path, "table", path="ragged.csv", label="a")


def test_parquet_without_its_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    for package in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MetanasError, match=r"t\.parquet' needs pyarrow .*metanas\[parquet\]"):
        load(tmp_path, "table", path="t.parquet", label="y")


def test_series_from_npz_and_folders_of_npz(tmp_path: Path) -> None:
    first, second = np.arange(10.0).reshape(2, 5), np.arange(15.0).reshape(3, 5)
    (tmp_path / "ucr").mkdir()
    for name in ("a", "b"):
        np.savez(
            tmp_path / "ucr" / f"{name}.npz",
            x_train=first,
            y_train=[0, 1],
            x_test=second,
            y_test=[1, 1, 0],
            classes=[5, 9],
        )
    (task,) = load(tmp_path, "series", path="ucr/a.npz")
    assert (task.modality, task.classes, task.labels.tolist()) == ("series", ("5", "9"), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(task.read([1, 4]), np.stack([first[1], second[2]])[:, None])
    assert task.read([0]).dtype == np.float32
    assert [each.name for each in load(tmp_path, "series", path="ucr")] == ["t/a", "t/b"]


def test_series_as_a_plain_pair_of_arrays_with_groups(tmp_path: Path) -> None:
    values = np.arange(20.0).reshape(4, 5)
    np.savez(tmp_path / "pair.npz", x=values, y=[[2], [3], [2], [3]], groups=["m1", "m1", "m2", "m2"])
    (task,) = load(tmp_path, "series", path="pair.npz")
    assert (task.classes, task.labels.tolist()) == (("2", "3"), [0, 1, 0, 1])
    assert task.groups is not None
    assert task.groups.tolist() == ["m1", "m1", "m2", "m2"]
    np.testing.assert_array_equal(task.read([3])[0, 0], values[3])
    np.savez(tmp_path / "short.npz", x=values, y=[2, 3, 2, 3], groups=["m1", "m2"])
    with pytest.raises(MetanasError, match=r"holds series \(4, 5\) and 2 groups: one a series"):
        load(tmp_path, "series", path="short.npz")
    np.savez(tmp_path / "words.npz", x=[["a", "b"], ["c", "d"]], y=[0, 1])
    with pytest.raises(MetanasError, match="not of numbers"):
        load(tmp_path, "series", path="words.npz")


def test_series_from_one_csv_a_class(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "worn.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "s" / "fine.csv").write_text("7,8,9\n\n")
    (task,) = load(tmp_path, "series", path="s")
    assert (task.classes, task.labels.tolist()) == (("fine", "worn"), [0, 1, 1])
    np.testing.assert_array_equal(task.read([0, 2]), [[[7, 8, 9]], [[4, 5, 6]]])
    (tmp_path / "s" / "worn.csv").write_text("1,2,3\n4,5\n")
    with pytest.raises(MetanasError, match=r"worn\.csv': row 2 has 2 values, the first row 3"):
        load(tmp_path, "series", path="s")
    (tmp_path / "s" / "worn.csv").write_text("1,2\n")
    with pytest.raises(MetanasError, match="bring them to one length"):
        load(tmp_path, "series", path="s")
    (tmp_path / "s" / "worn.csv").write_text("1,x,3\n")
    with pytest.raises(MetanasError, match="row 1 holds something that is no number"):
        load(tmp_path, "series", path="s")
    (tmp_path / "s" / "worn.csv").write_text("1,2,3\n", encoding="utf-16")
    with pytest.raises(MetanasError, match=r"worn\.csv' is not text in UTF-8"):
        load(tmp_path, "series", path="s")
    (tmp_path / "s" / "worn.csv").write_text("1,nan,3\n")
    with pytest.raises(MetanasError, match="series 1 has a missing value"):
        load(tmp_path, "series", path="s")


def test_scikit_learns_sets(tmp_path: Path) -> None:
    (digits,) = load(tmp_path, "sklearn", ImageForm(16), set="digits")
    assert (digits.modality, len(digits), digits.classes) == ("image", 1797, tuple("0123456789"))
    pixels = digits.read(range(20))
    assert (pixels.shape, pixels.dtype) == ((20, 1, 16, 16), np.uint8)
    assert pixels.max() > 230
    assert pixels[:, :, :, 0].mean() < 5  # dark beside the ink
    (wine,) = load(tmp_path, "sklearn", set="wine")
    assert (wine.modality, wine.read([0]).shape, len(wine.classes)) == ("tabular", (1, 13), 3)
    with pytest.raises(MetanasError, match="key 'set'"):
        load(tmp_path, "sklearn", set="boston")


def omniglot_folder(root: Path, part: str = "background") -> None:
    for alphabet, characters in {"Early_Aramaic": 2, "Korean": 1, "Korean_Old": 1}.items():
        for number in range(1, characters + 1):
            for drawer in range(3):
                path = root / f"omniglot-py/images_{part}" / alphabet / f"character{number:02d}/{drawer}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                paper = np.full((105, 105), True)
                paper[:40, :40] = False
                Image.fromarray(paper).save(path)


def test_omniglot_in_torchvisions_layout(tmp_path: Path) -> None:
    omniglot_folder(tmp_path)
    (task,) = load(tmp_path, "omniglot")
    assert task.classes[:3] == ("Early Aramaic/character01", "Early Aramaic/character02", "Korean Old/character01")
    assert task.families == ("Early Aramaic", "Early Aramaic", "Korean Old", "Korean")
    pixels = task.read([0])[0, 0]
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)  # bright ink on dark
    (some,) = load(tmp_path, "omniglot", alphabets=["early", "Korean"])
    assert some.families == ("Early Aramaic", "Early Aramaic", "Korean")
    assert len(some) == 9
    with pytest.raises(MetanasError, match="'Kor' is the beginning of Korean and Korean Old, expected"):
        load(tmp_path, "omniglot", alphabets=["Kor"])
    with pytest.raises(MetanasError, match="'Klingon' is not known, expected one of Early Aramaic, Korean"):
        load(tmp_path, "omniglot", alphabets=["Klingon"])


def test_omniglot_in_single_files(tmp_path: Path) -> None:
    images = np.ones((3, 20, 105, 105), bool)
    images[1, :, :40, :40] = False
    np.savez_compressed(tmp_path / "omniglot_images_evaluation.npz", images=images, labels=np.zeros((3, 20), int))
    listing = [
        {"alphabet": "Old", "first": 1, "last": 964},
        {"alphabet": "A", "first": 965, "last": 966},
        {"alphabet": "B", "first": 967, "last": 967},
    ]
    (tmp_path / "omniglot_alphabets.json").write_text(json.dumps(listing))
    (task,) = load(tmp_path, "omniglot", part="evaluation")
    assert task.classes == ("A/character01", "A/character02", "B/character01")
    assert task.families == ("A", "A", "B")
    assert task.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert task.read([19, 20, 39, 40])[:, 0, 0, 0].tolist() == [0, 255, 255, 0]


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def test_fashion_mnist_and_emnist_in_torchvisions_layout(tmp_path: Path) -> None:
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 0, :] = 255  # a bright first row
    for half in ("train", "t10k"):
        idx(tmp_path / f"FashionMNIST/raw/{half}-images-idx3-ubyte", images)
        idx(tmp_path / f"FashionMNIST/raw/{half}-labels-idx1-ubyte", np.array([0, 3, 3, 9]))
    (fashion,) = load(tmp_path, "fashion-mnist", ImageForm(28))
    assert fashion.classes == ("T-shirt/top", "Dress", "Ankle boot")
    assert fashion.labels.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(fashion.read([2])[0, 0], images[2])
    for part in ("train", "test"):
        idx(tmp_path / f"EMNIST/raw/emnist-letters-{part}-images-idx3-ubyte", images)
        idx(tmp_path / f"EMNIST/raw/emnist-letters-{part}-labels-idx1-ubyte", np.array([1, 2, 2, 26]))
    (letters,) = load(tmp_path, "emnist", ImageForm(28), part="letters")
    assert letters.classes == ("a", "b", "z")
    np.testing.assert_array_equal(letters.read([0])[0, 0], images[0].T)  # EMNIST's files lie on their side
    assert pickle.loads(pickle.dumps(letters)).read([3]).shape == (1, 1, 28, 28)
    (tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte").write_bytes(b"torn")
    with pytest.raises(MetanasError, match=r"train-images-idx3-ubyte' is no idx file of bytes on 3 axes"):
        load(tmp_path, "fashion-mnist")


def test_a_large_idx_file_is_mapped(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 28, 28), dtype=np.uint8)
    idx(tmp_path / "FashionMNIST/raw/train-images-idx3-ubyte", images)
    idx(tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte", np.arange(5000) % 10)
    load(tmp_path, "fashion-mnist", ImageForm(28))  # what is imported once
    tracemalloc.start()
    (task,) = load(tmp_path, "fashion-mnist", ImageForm(28))
    sample = task.read([4321])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(sample[0, 0], images[4321])
    assert peak < images.nbytes / 2


def test_the_content_hash_tells_changes_without_decoding_samples(tmp_path: Path) -> None:
    def hashes(folder: Path) -> dict[str, str]:
        options = {
            "folder": {"path": "l"},
            "npz": {"path": "a.npz"},
            "table": {"path": "t.csv", "label": "y"},
            "series": {"path": "s"},
        }
        return {kind: load(folder, kind, **keys)[0].content_hash for kind, keys in options.items()}

    here, images = tmp_path / "here", np.zeros((2, 9, 9), np.uint8)
    picture(here / "l" / "ok" / "a.png", 1)
    picture(here / "l" / "bad" / "b.bmp", 2)
    (here / "l" / "bad" / "torn.png").write_bytes(b"nobody decodes this yet")
    np.savez(here / "a.npz", images=images, labels=[0, 1])
    (here / "t.csv").write_text("x,y\n1,a\n2,b\n")
    (here / "s").mkdir()
    (here / "s" / "worn.csv").write_text("1,2,3\n")
    first = hashes(here)
    shutil.copytree(here, tmp_path / "copied")
    for file in (tmp_path / "copied").rglob("*"):
        os.utime(file, (1, 1))
    assert hashes(tmp_path / "copied") == first
    picture(here / "l" / "bad" / "b.bmp", 3)  # of the same size
    images[1, 4, 4] = 1
    np.savez(here / "a.npz", images=images, labels=[0, 1])
    (here / "t.csv").write_text("x,y\n1,a\n3,b\n")
    (here / "s" / "worn.csv").write_text("1,2,4\n")
    second = hashes(here)
    assert [kind for kind in first if first[kind] == second[kind]] == []
    np.savez(here / "a.npz", images=images, labels=[0, 2])
    assert hashes(here)["npz"] != second["npz"]


def test_cifar100_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    names = sorted(SUPERCLASS)
    content = {
        "train": {"data": np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072) % 256, "fine_labels": [0, 99]},
        "test": {"data": np.zeros((1, 3072), np.int64), "fine_labels": [1]},
        "meta": {"fine_label_names": names},
    }
    (tmp_path / "cifar-100-python").mkdir()
    sums = {}
    for file, entry in content.items():
        packed = pickle.dumps({key: v.astype(np.uint8) if isinstance(v, np.ndarray) else v for key, v in entry.items()})
        (tmp_path / "cifar-100-python" / file).write_bytes(packed)
        sums[file] = hashlib.md5(packed).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    (task,) = load(tmp_path, "cifar100", ImageForm(32, 3))
    assert task.labels.tolist() == [0, 99]
    assert task.families is not None
    assert (task.classes[0], task.families[0]) == ("apple", "fruit and vegetables")
    np.testing.assert_array_equal(task.read([1])[0].ravel(), np.arange(3072, 2 * 3072) % 256)
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"torn")
    with pytest.raises(MetanasError, match="CIFAR-100"):
        load(tmp_path, "cifar100")


def test_superclasses_are_twenty_of_five() -> None:
    assert len(SUPERCLASS) == 100
    counts = pd.Series(SUPERCLASS).value_counts()
    assert len(counts) == 20
    assert set(counts) == {5}


def test_gtsrb_in_torchvisions_layout_has_tracks_as_groups(tmp_path: Path) -> None:
    for sign in ("00000", "00001"):
        for track in range(2):
            for frame in range(2):
                path = tmp_path / "gtsrb/GTSRB/Training" / sign / f"{track:05d}_{frame:05d}.ppm"
                picture(path, 100, "RGB")
        (tmp_path / "gtsrb/GTSRB/Training" / sign / f"GT-{sign}.csv").write_text("Filename;Width\n")
    (task,) = load(tmp_path, "gtsrb")
    assert task.groups is not None
    assert task.groups.tolist() == ["00000_00000"] * 2 + ["00000_00001"] * 2 + ["00001_00000"] * 2 + ["00001_00001"] * 2


@pytest.mark.parametrize("kind", ["omniglot", "cifar100", "emnist", "fashion-mnist", "gtsrb", "tiny-imagenet"])
def test_a_missing_data_set_is_not_downloaded_unasked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "data").mkdir()
    with pytest.raises(MetanasError, match=r"Source 's': .*beside' or '.*data'.*put it there"):
        load_source(kind, "s", FORM, Where(tmp_path / "beside", tmp_path / "data"), {})
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "downloader"),
    [
        ("omniglot", "Omniglot"),
        ("cifar100", "CIFAR100"),
        ("emnist", "EMNIST"),
        ("fashion-mnist", "FashionMNIST"),
        ("gtsrb", "GTSRB"),
    ],
)
def test_a_download_without_a_connection_is_one_sentence(
    tmp_path: Path, kind: str, downloader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.datasets, downloader, unreachable)
    with pytest.raises(MetanasError, match="no route"):
        load_source(kind, "s", FORM, Where(tmp_path, tmp_path, download=True), {})


def test_the_pools_own_folder_goes_before_the_data_folder(tmp_path: Path) -> None:
    for place in ("beside", "data"):
        picture(tmp_path / place / "l" / place / "a.png", 1)
    picture(tmp_path / "data" / "m" / "ok" / "a.png", 1)
    where = Where(tmp_path / "beside", tmp_path / "data")
    assert load_source("folder", "s", FORM, where, {"path": "l"})[0].classes == ("beside",)
    assert load_source("folder", "s", FORM, where, {"path": "m"})[0].classes == ("ok",)
    assert load_source("folder", "s", FORM, Where(), {"path": str(tmp_path / "data" / "l")})[0].classes == ("data",)


def test_unknown_kinds_and_keys_are_named_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match="kind 'foldr' is not known, expected one of cifar100, emnist"):
        load(tmp_path, "foldr")
    with pytest.raises(MetanasError, match="key 'groop' is not known, kind 'npz' takes path, images, labels, groups"):
        load(tmp_path, "npz", path="a.npz", groop="x")
    with pytest.raises(MetanasError, match="key 'path': Missing"):
        load(tmp_path, "npz")
    with pytest.raises(MetanasError, match="key 'drop': Input should be a valid list"):
        load(tmp_path, "table", path="t.csv", label="y", drop="a")


def test_every_kind_names_a_function_of_a_module() -> None:
    for kind, place in KINDS.items():
        assert place.startswith("tasks.sources."), kind
        assert place.count(":") == 1, kind


@pytest.fixture
def learn2learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Where:
    """A data folder with a small Omniglot; torchvision would ask for the zip files beside the folders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the unmaintained package and its own imports are warned of
        pytest.importorskip("learn2learn", reason="learn2learn is not installed", exc_type=ImportError)
    from torchvision.datasets import Omniglot

    monkeypatch.setattr(Omniglot, "_check_integrity", lambda self: True)
    omniglot_folder(tmp_path, "background")
    omniglot_folder(tmp_path, "evaluation")
    return Where(None, tmp_path)


def test_a_learn2learn_data_set_is_a_task(learn2learn: Where) -> None:
    options = {"dataset": "FullOmniglot", "invert": True}
    (task,) = load_source("learn2learn", "t", ImageForm(28), learn2learn, options)
    (own,) = load_source("omniglot", "t", ImageForm(28), learn2learn, {})
    assert (len(task), len(task.classes)) == (24, 8)  # both parts of torchvision's Omniglot
    assert np.bincount(task.labels).tolist() == [3] * 8
    np.testing.assert_array_equal(task.read([0]), own.read([0]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(task)).read([23]), own.read([0]))


@pytest.fixture
def small_taskset(learn2learn: Where, monkeypatch: pytest.MonkeyPatch) -> Where:
    """The taskset "omniglot" as learn2learn makes it, of these few characters: classes shuffled, then cut into three.

    Its images are plain, of a shade that tells the class.
    """
    import learn2learn as l2l
    from learn2learn.vision.benchmarks import _TASKSETS

    def small(root: str, **_: object) -> tuple[tuple[object, ...], tuple[list[object], ...]]:
        shades = torch.arange(24, dtype=torch.uint8)
        images = (10 * shades)[:, None, None].expand(24, 8, 8)
        whole = l2l.data.MetaDataset(torch.utils.data.TensorDataset(images, shades // 3))
        classes = list(range(8))
        random.shuffle(classes)
        parts = [l2l.data.FilteredMetaDataset(whole, classes[a:b]) for a, b in ((0, 3), (3, 5), (5, 8))]
        return tuple(parts), ([], [], [])

    monkeypatch.setitem(_TASKSETS, "omniglot", small)
    assert learn2learn.data is not None
    for part in ("background", "evaluation"):
        (learn2learn.data / f"omniglot-py/images_{part}.zip").write_bytes(b"as torchvision leaves it")
    return learn2learn


@pytest.mark.parametrize("missing", ["background", "evaluation"])
def test_a_learn2learn_taskset_is_not_downloaded_unasked(small_taskset: Where, missing: str) -> None:
    assert small_taskset.data is not None
    (small_taskset.data / f"omniglot-py/images_{missing}.zip").unlink()
    with pytest.raises(MetanasError, match=rf"omniglot-py/images_{missing}.zip\) is not in .* --download"):
        load_source("learn2learn", "t", FORM, small_taskset, {"taskset": "omniglot"})


def test_a_learn2learn_taskset_is_a_task(small_taskset: Where) -> None:
    parts = [
        load_source("learn2learn", "t", FORM, small_taskset, {"taskset": "omniglot", "part": part})[0]
        for part in ("train", "validation", "test")
    ]
    assert [(len(task), len(task.classes)) for task in parts] == [(9, 3), (6, 2), (9, 3)]
    assert sorted(label for task in parts for label in task.classes) == list("01234567")
    for task in parts:
        shades = task.read(range(len(task)))[:, 0, 0, 0]
        assert [str(shade // 30) for shade in shades] == [task.classes[label] for label in task.labels]
    with pytest.raises(MetanasError, match=r"no taskset 'nothing', expected one of omniglot, mini-imagenet"):
        load_source("learn2learn", "t", FORM, small_taskset, {"taskset": "nothing"})


def test_workers_draw_from_a_taskset_that_was_downloaded(small_taskset: Where) -> None:
    """They load the pool anew, with no leave to download."""
    sources = [
        {"name": part, "kind": "learn2learn", "taskset": "omniglot", "part": part} for part in ("train", "validation")
    ]
    splits = {"by": "task", "train": ["train"], "validation": ["validation"]}
    draw = {"ways": 2, "shots": 1, "queries": 1}
    config = tiny_config(
        pool={"name": "p", "sources": sources, "splits": splits}, train=draw | {"ways": 3}, validation=draw
    )
    samplers = WorkerRecipe(config, small_taskset.data)().samplers
    for split in ("train", "validation"):
        episode = samplers[split].episode(0)
        shades = (episode.query_inputs[:, 0, 0, 0] * 255).round().int()
        assert [str(int(shade) // 30) for shade in shades] == [episode.classes[label] for label in episode.query_labels]


def test_learn2learn_mistakes_are_named(learn2learn: Where) -> None:
    with pytest.raises(MetanasError, match=r"no data set 'Nothing', expected one of .*FullOmniglot"):
        load_source("learn2learn", "t", FORM, learn2learn, {"dataset": "Nothing"})
    with pytest.raises(MetanasError, match="either 'dataset' or 'taskset'"):
        load_source("learn2learn", "t", FORM, learn2learn, {})
    with pytest.raises(MetanasError, match="--download"):
        load_source("learn2learn", "t", FORM, learn2learn, {"taskset": "omniglot"})
    with pytest.raises(MetanasError, match="needs a data folder"):
        load_source("learn2learn", "t", FORM, Where(), {"dataset": "FullOmniglot"})


def test_without_learn2learn_its_source_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "learn2learn", None)
    with pytest.raises(MetanasError, match="learn2learn, which is not installed: run `make setup`"):
        load_source("learn2learn", "t", FORM, Where(None, tmp_path), {"dataset": "FullOmniglot"})


def test_real_omniglot_has_its_alphabets(data_dir: Path) -> None:
    where = Where(None, data_dir)
    (background,) = load_source("omniglot", "t", FORM, where, {})
    (evaluation,) = load_source("omniglot", "t", FORM, where, {"part": "evaluation"})
    assert (len(background), len(background.classes), len(set(background.families or ()))) == (19280, 964, 30)
    assert (len(evaluation), len(evaluation.classes), len(set(evaluation.families or ()))) == (13180, 659, 20)
    minimal = ["Balinese", "Early Aramaic", "Greek", "Korean", "Latin"]
    (five,) = load_source("omniglot", "t", FORM, where, {"alphabets": minimal})
    assert sorted(set(five.families or ())) == minimal
    assert 5 < evaluation.read(range(200)).mean() < 60  # little ink on much dark


def test_real_factory_sets(data_dir: Path) -> None:
    where = Where(None, data_dir)
    rename = {"p0.00": "ok", "p1.00": "defect"}
    (elpv,) = load_source("npz", "elpv", FORM, where, {"path": "elpv.npz", "groups": None, "labels_from": rename})
    assert (elpv.classes, elpv.groups, len(elpv)) == (("ok", "defect"), None, 2223)
    (pcb,) = load_source("npz", "pcb", FORM, where, {"path": "deeppcb_crops.npz"})
    assert len(set(pcb.groups.tolist() if pcb.groups is not None else ())) == 11
    (neu,) = load_source("npz", "neu", FORM, where, {"path": "neu_det.npz"})
    assert (len(neu.classes), neu.groups) == (6, None)
    (steel,) = load_source("folder", "x", FORM, where, {"path": "factory/x_sdd"})
    assert (len(steel), len(steel.classes)) == (1360, 7)
    assert steel.read([0, 700, 1359]).shape == (3, 1, 8, 8)


def test_real_photographs(data_dir: Path) -> None:
    where = Where(None, data_dir)
    (cifar,) = load_source("cifar100", "c", ImageForm(8, 3), where, {"part": "test"})
    assert (len(cifar), len(cifar.classes), len(set(cifar.families or ()))) == (9998, 100, 20)
    (signs,) = load_source("gtsrb", "g", FORM, where, {})
    assert signs.groups is not None
    assert (len(signs.classes), len(set(signs.groups.tolist()))) == (43, 1307)
    (tiny,) = load_source("tiny-imagenet", "t", ImageForm(8, 3), where, {})
    assert (len(tiny), len(tiny.classes)) == (10000, 200)
    assert tiny.read([0, 9999]).shape == (2, 3, 8, 8)


def test_real_series_and_tables(data_dir: Path) -> None:
    where = Where(None, data_dir)
    series = load_source("series", "ucr", FORM, where, {"path": "series"})
    assert len(series) == 64
    assert all(len(task) == len(task.labels) >= 32 for task in series)
    path = "tabular/steel_plates_faults.csv"
    (steel,) = load_source("table", "s", FORM, where, {"path": path, "label": "failure.type", "drop": ["target"]})
    assert (len(steel.classes), steel.read([0]).shape) == (7, (1, 27))
