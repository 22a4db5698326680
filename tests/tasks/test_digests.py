"""Digests of files: of what they hold, read once, right whoever reads them at the same time."""

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import pytest

from metanas.caching import cache_folder
from metanas.errors import MetanasError
from tasks.digests import digests


def written(folder: Path, **texts: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return sorted(texts)


def of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kept() -> set[Path]:
    return set(cache_folder().glob("digests-*.json"))


def test_they_are_of_what_the_files_hold(tmp_path: Path) -> None:
    assert digests(tmp_path, written(tmp_path, a="one", b="two")) == {"a": of("one"), "b": of("two")}
    written(tmp_path, b="six", c="new")
    os.utime(tmp_path / "b", (1, 1))
    (tmp_path / "a").unlink()
    assert digests(tmp_path, ["b", "c"]) == {"b": of("six"), "c": of("new")}


def test_only_what_is_new_or_changed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(stream: BinaryIO, kind: str) -> object:
        read.append(Path(stream.name).name)
        return file_digest(stream, kind)

    file_digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr("tasks.digests.AT_ONCE", 2)
    names = written(tmp_path, a="one", b="two", c="three")
    digests(tmp_path, names)
    assert sorted(read) == names
    digests(tmp_path, ["a"])  # which does not make it forget the others
    digests(tmp_path, names)
    assert sorted(read) == names
    status = (tmp_path / "b").stat()
    written(tmp_path, b="six", d="new")
    os.utime(tmp_path / "b", ns=(status.st_atime_ns, status.st_mtime_ns))  # as a copy that keeps its times
    assert digests(tmp_path, ["b", "d"]) == {"b": of("six"), "d": of("new")}
    assert sorted(read[3:]) == ["b", "d"]


def test_one_that_cannot_be_read_is_no_other_and_is_tried_again(tmp_path: Path) -> None:
    names = written(tmp_path, a="one")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    unread = {name: str(tmp_path / name) for name in ("link", "pipe")}
    assert digests(tmp_path, [*names, *unread]) == {"a": of("one")} | unread
    written(tmp_path, target="two")
    assert digests(tmp_path, ["link"]) == {"link": of("two")}


def test_what_was_kept_and_is_torn_is_made_again(tmp_path: Path) -> None:
    before, names = kept(), written(tmp_path, a="one")
    digests(tmp_path, names)
    (file,) = kept() - before
    whole = file.read_bytes()
    file.write_bytes(whole[:9])
    assert digests(tmp_path, names) == {"a": of("one")}
    assert file.read_bytes() == whole


def test_processes_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    before, names = kept(), written(tmp_path, **{f"file{i}": str(i) for i in range(200)})
    expected = {name: of(name.removeprefix("file")) for name in names}
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        found = list(pool.map(digests, [tmp_path] * 8, [names[i:] + names[:i] for i in range(8)]))
    assert all(each == expected for each in found)
    (file,) = kept() - before
    assert {name: digest for name, (_, digest) in json.loads(file.read_bytes()).items()} == expected


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = written(tmp_path, a="one")
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "a"))
    with pytest.raises(MetanasError, match="METANAS_CACHE"):
        digests(tmp_path, names)
