"""Pools: splits by task, class and list; no overlap; holding out; weights; every mistake is named."""

import json
import os
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metanas.errors import MetanasError
from tasks.cache import InMemory
from tasks.pool import SPLITS, ByClass, Fractions, Pool, _drawn_classes, load_pool
from tasks.task import ImageForm, Task

FORM = ImageForm(8)
EVEN = {"train": 0.5, "validation": 0.25, "test": 0.25}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`NAME.npz` of 8 classes for a to c, and `lines/x.npz`, `lines/y.npz`, series of 4 classes."""
    folder = tmp_path_factory.mktemp("data")
    for name in "abc":
        images = np.random.default_rng(ord(name)).integers(0, 256, (16, 8, 8), dtype=np.uint8)
        classes = [f"{name}{i}" for i in range(8)]
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(16) % 8, classes=classes)
    (folder / "lines").mkdir()
    for name in "xy":
        values, labels = np.full((4, 5), ord(name)), np.arange(4)
        np.savez(folder / f"lines/{name}.npz", x_train=values, y_train=labels, x_test=values, y_test=labels)
    return folder


def spec(splits: dict[str, Any], *extra: dict[str, Any]) -> dict[str, Any]:
    sources = [{"name": name, "kind": "npz", "path": f"{name}.npz"} for name in "abc"]
    lines = {"name": "lines", "kind": "series", "path": "lines", "weight": 3}
    return {"name": "mine", "sources": [*sources, lines, *extra], "splits": splits}


def names(tasks: tuple[Task, ...]) -> list[str]:
    return [task.name for task in tasks]


def test_by_task_takes_names_and_patterns(data: Path) -> None:
    pool = load_pool(spec({"by": "task", "train": ["lines/*", "a"], "validation": ["b"], "test": ["c"]}), FORM, data)
    assert names(pool.train) == ["lines/x", "lines/y", "a"]
    assert names(pool.validation) == ["b"]
    assert names(pool.test) == ["c"]
    assert pool.weights == (1.5, 1.5, 1.0)  # a source's weight is shared by its tasks
    assert pool.test[0].read([0]).shape == (1, 1, 8, 8)


def test_by_class_divides_every_task_and_repeats(data: Path) -> None:
    splits = {"by": "class", "fractions": EVEN, "seed": 3, "train": ["lines/*"]}
    pool = load_pool(spec(splits), FORM, data)
    assert names(pool.train) == ["lines/x", "lines/y", "a", "b", "c"]
    for name in "abc":
        parts = [next(task for task in tasks if task.name == name) for tasks in pool.splits.values()]
        assert [len(part.classes) for part in parts] == [4, 2, 2]
        assert sorted(label for part in parts for label in part.classes) == [f"{name}{i}" for i in range(8)]
        assert sum(len(part) for part in parts) == 16
    again, other = load_pool(spec(splits), FORM, data), load_pool(spec(splits | {"seed": 4}), FORM, data)
    assert [task.classes for task in again.train] == [task.classes for task in pool.train]
    assert [task.classes for task in other.train] != [task.classes for task in pool.train]


def test_the_parts_of_a_task_hold_their_own_samples(data: Path) -> None:
    pool = load_pool(spec({"by": "class", "fractions": EVEN, "train": ["lines/*"]}), FORM, data)
    stored = np.load(data / "a.npz")
    for tasks in pool.splits.values():
        task = next(task for task in tasks if task.name == "a")
        for label, positions in zip(task.classes, task.by_class, strict=True):
            expected = stored["images"][stored["labels"] == int(label[1:])]
            np.testing.assert_array_equal(task.read(positions)[:, 0], expected)


@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=12),
    shares=st.tuples(*[st.integers(0, 5)] * 3).filter(any),
    seed=st.integers(0, 5),
)
def test_families_stay_together_and_shares_are_kept(sizes: list[int], shares: tuple[int, int, int], seed: int) -> None:
    families = tuple(f"f{i}" for i, size in enumerate(sizes) for _ in range(size))
    classes = tuple(f"c{i}" for i in range(len(families)))
    task = Task("t", "tabular", InMemory(np.zeros((0, 1))), np.zeros(0, int), classes, families=families)
    wanted = dict(zip(SPLITS, (share / sum(shares) for share in shares), strict=True))
    splits = ByClass(by="class", fractions=Fractions(**wanted), seed=seed)
    drawn = _drawn_classes(task, splits)
    assert sorted(label for part in drawn.values() for label in part) == sorted(classes)
    side = {label: split for split, part in drawn.items() for label in part}
    for family in set(families):
        assert len({side[label] for label, home in zip(classes, families, strict=True) if home == family}) == 1
    for split, share in wanted.items():
        # Greedy filling overshoots by less than the largest family; what is short, the others have too much.
        assert len(drawn.get(split, ())) < share * len(classes) + max(sizes) + 1e-9


def test_families_can_be_divided_when_asked() -> None:
    families, classes = ("f",) * 10, tuple("abcdefghij")
    task = Task("t", "tabular", InMemory(np.zeros((0, 1))), np.zeros(0, int), classes, families=families)
    fractions = Fractions(train=0.5, test=0.5)
    assert set(_drawn_classes(task, ByClass(by="class", fractions=fractions))) == {"train"}
    apart = _drawn_classes(task, ByClass(by="class", fractions=fractions, families_together=False))
    assert {split: len(part) for split, part in apart.items()} == {"train": 5, "test": 5}


def test_by_class_refuses_to_leave_one_class_alone(data: Path) -> None:
    with pytest.raises(MetanasError, match="'lines/x' has 4 classes, of which one alone would fall to"):
        load_pool(spec({"by": "class", "fractions": EVEN}), FORM, data)


def test_by_list_takes_classes_families_and_all(data: Path) -> None:
    images, labels = np.zeros((60, 105, 105), bool), np.repeat(np.arange(3), 20)
    np.savez(
        data / "omniglot_images_background.npz", images=images.reshape(3, 20, 105, 105), labels=labels.reshape(3, 20)
    )
    alphabets = [{"alphabet": "A", "first": 1, "last": 2}, {"alphabet": "B", "first": 3, "last": 3}]
    (data / "omniglot_alphabets.json").write_text(json.dumps(alphabets))
    omniglot = {"name": "o", "kind": "omniglot"}
    splits = {
        "by": "list",
        "train": {"o": ["family:A"], "a": ["a3", "a1"]},
        "test": {"o": ["B/character01"], "b": "all"},
    }
    pool = load_pool(spec(splits, omniglot), FORM, data)
    assert [task.classes for task in pool.train] == [("A/character01", "A/character02"), ("a3", "a1")]
    assert pool.train[1].read([0]).shape == (1, 1, 8, 8)
    assert [task.classes for task in pool.test] == [("B/character01",), tuple(f"b{i}" for i in range(8))]
    for entries, message in (
        ({"o": ["family:C"]}, "'family:C' is not known, expected one of A, B"),
        ({"a": ["a9"]}, "'a9' is not known, expected one of a0, a1"),
        ({"z": "all"}, "no task is called 'z', the pool has a, b, c"),
    ):
        with pytest.raises(MetanasError, match=message):
            load_pool(spec({"by": "list", "train": entries}, omniglot), FORM, data)


@pytest.mark.parametrize(
    "splits",
    [
        {"by": "task", "train": ["a", "b"], "test": ["b"]},
        {"by": "task", "train": ["*"], "validation": ["lines/x"]},
        {"by": "list", "train": {"a": ["a1", "a2"]}, "test": {"a": ["a2"]}},
        {"by": "class", "fractions": EVEN, "train": ["lines/*"], "test": ["lines/x"]},
    ],
)
def test_overlap_is_an_error(data: Path, splits: dict[str, Any]) -> None:
    with pytest.raises(MetanasError, match=r"class '.*' of '.*' lies in train and in .*: take it out of one"):
        load_pool(spec(splits), FORM, data)


@pytest.mark.parametrize(
    ("source", "splits"),
    [
        ("lines", {"by": "class", "fractions": {"train": 0.5, "validation": 0.5}, "test": ["a"]}),
        ("lines", {"by": "task", "train": ["a", "lines/x"], "validation": ["lines/y"], "test": ["b"]}),
        ("b", {"by": "list", "train": {"a": "all", "b": ["b1"]}, "test": {"b": ["b2", "b3"], "c": "all"}}),
    ],
)
def test_holding_out_a_source(data: Path, source: str, splits: dict[str, Any]) -> None:
    pool = load_pool(spec(splits), FORM, data, hold_out=source)
    held = ["lines/x", "lines/y"] if source == "lines" else [source]
    assert names(pool.test) == held
    assert all(len(task.classes) == (4 if source == "lines" else 8) for task in pool.test)
    assert not set(held) & set(names(pool.train + pool.validation))
    assert pool.train
    assert len(pool.weights) == len(pool.train)


def test_holding_out_one_line_of_a_folder(data: Path) -> None:
    splits = {"by": "task", "train": ["lines/*", "a"], "validation": ["b"], "test": ["c"]}
    pool = load_pool(spec(splits), FORM, data, hold_out="lines/x")
    assert (names(pool.train), names(pool.validation), names(pool.test)) == (["lines/y", "a"], ["b"], ["lines/x"])


def test_what_cannot_be_held_out(data: Path) -> None:
    splits = {"by": "task", "train": ["a"], "test": ["b"]}
    with pytest.raises(
        MetanasError, match=r"no task and no source 'd', it has a, b, c, lines \(with lines/x, lines/y\)"
    ):
        load_pool(spec(splits), FORM, data, hold_out="d")
    with pytest.raises(MetanasError, match="no task left to train on"):
        load_pool(spec(splits), FORM, data, hold_out="a")


def test_a_file_is_read_as_the_mapping_and_paths_start_beside_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = spec({"by": "task", "train": ["a"]})
    (data / "pool.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.delenv("METANAS_DATA", raising=False)
    assert _same(load_pool(data / "pool.yaml", FORM), load_pool(content, FORM, data))
    monkeypatch.setenv("METANAS_DATA", str(data))
    assert _same(load_pool(content, FORM), load_pool(content, FORM, data))
    assert _same(load_pool(content, FORM, base=data), load_pool(content, FORM, data))


def _same(first: Pool, second: Pool) -> bool:
    return [task.content_hash for task in first.train] == [task.content_hash for task in second.train]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorces": []}, "key 'sorces': Extra inputs are not permitted"),
        ({"sources": []}, "key 'sources'"),
        ({"splits": {"by": "chance"}}, "key 'splits'"),
        ({"splits": {"by": "task", "train": ["a"], "tset": ["b"]}}, r"key 'splits\.task\.tset'"),
        ({"splits": {"by": "task", "train": ["q*"]}}, "splits.train: no task is called 'q.'"),
        ({"splits": {"by": "class", "fractions": {"train": 0.5}}}, "the fractions add up to 0.5, expected 1"),
        ({"sources": [{"name": "a", "kind": "npz", "path": "a.npz", "weight": -1}]}, r"key 'sources\.0\.weight'"),
        ({"sources": [{"name": "a", "kind": "npz", "path": "a.npz"}] * 2}, "two sources 'a'"),
        ({"sources": [{"name": "a", "kind": "npz", "path": "gone.npz"}]}, "Source 'a': 'gone.npz' is not in"),
        ({"sources": [{"name": "a", "kind": "npz", "path": "a.npz", "lable": "x"}]}, "key 'lable' is not known"),
    ],
)
def test_mistakes_in_a_pool_are_named(data: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        load_pool(spec({"by": "task", "train": ["a"]}) | change, FORM, data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- a\n- b\n", "The pool file '{}' holds no keys"),
        (b"a: [1\n", "'{}' is not YAML: .*line"),
        ("name: Größe".encode("latin-1"), "'{}' is not text in UTF-8"),
        (None, "There is no pool file '{}'"),
    ],
)
def test_a_file_that_is_no_pool(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "pool.yaml").write_bytes(content)
    with pytest.raises(MetanasError, match=said.format(f"{tmp_path}{os.sep}pool.yaml")):
        load_pool(tmp_path / "pool.yaml", FORM)


class TestSharedSamples:
    """Of two sources that hold the same file."""

    TWICE: ClassVar = {"name": "again", "kind": "npz", "path": "a.npz"}

    def test_in_two_splits_are_refused(self, data: Path) -> None:
        splits = {"by": "task", "train": ["a", "c"], "validation": ["again"], "test": ["b"]}
        with pytest.raises(MetanasError, match="'a' in train and 'again' in validation share samples: take one out"):
            load_pool(spec(splits, self.TWICE), FORM, data)

    @pytest.mark.parametrize(("outer", "inner"), [("train", "validation"), ("test", "train")])
    def test_of_a_folder_and_one_within_it_are_refused(self, outer: str, inner: str, tmp_path: Path) -> None:
        for line, name, number in product("ab", "uv", range(2)):
            place = tmp_path / "lines" / line / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(place)
        sources = [
            {"name": "all", "kind": "folder", "path": "lines"},
            {"name": "one", "kind": "folder", "path": "lines/a"},
        ]
        splits = {"by": "task", outer: ["all/a", "all/b"], inner: ["one"]}
        with pytest.raises(MetanasError, match=r"lines/a/u/0.png' is of '(all/a|one)' in .* take one out"):
            load_pool({"name": "p", "sources": sources, "splits": splits}, FORM, tmp_path)
        load_pool({"name": "p", "sources": sources, "splits": splits | {outer: ["all/b"]}}, FORM, tmp_path)

    def test_held_out_are_refused(self, data: Path) -> None:
        splits = {"by": "task", "train": ["a", "c"], "validation": ["b"]}
        with pytest.raises(MetanasError, match="'a' in train and 'again' in test share samples"):
            load_pool(spec(splits, self.TWICE), FORM, data, hold_out="again")

    def test_other_classes_of_the_same_file_may_be_in_another_split(self, data: Path) -> None:
        given = {
            "by": "list",
            "train": {"a": ["a0", "a1", "a2"], "c": "all"},
            "validation": {"again": ["a3", "a4"]},
            "test": {"b": "all"},
        }
        assert names(load_pool(spec(given, self.TWICE), FORM, data).validation) == ["again"]

    def test_in_one_split_count_twice(self, data: Path) -> None:
        splits = {"by": "task", "train": ["a", "again"], "validation": ["b"], "test": ["c"]}
        assert names(load_pool(spec(splits, self.TWICE), FORM, data).train) == ["a", "again"]
