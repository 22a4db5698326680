"""Digests of files: of what they hold, read once, right whoever reads them at the same time."""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


def test_a_file_is_read_once_while_size_and_time_stay(tmp_path: Path) -> None:
    names = written(tmp_path, a="one")
    first, status = digests(tmp_path, names), (tmp_path / "a").stat()
    written(tmp_path, a="six")
    os.utime(tmp_path / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests(tmp_path, names) == first
    os.utime(tmp_path / "a", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digests(tmp_path, names) == {"a": of("six")}


def test_one_that_cannot_be_read_has_none_and_is_tried_again(tmp_path: Path) -> None:
    names = written(tmp_path, a="one")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "folder").mkdir()
    assert digests(tmp_path, [*names, "link", "folder"]) == {"a": of("one"), "link": "", "folder": ""}
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
    names = written(tmp_path, **{f"file{i}": str(i) for i in range(200)})
    expected = {name: of(name.removeprefix("file")) for name in names}
    with ProcessPoolExecutor(4) as pool:
        found = list(pool.map(digests, [tmp_path] * 8, [names[i:] + names[:i] for i in range(8)]))
    assert all(each == expected for each in found)
    assert digests(tmp_path, names) == expected


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = written(tmp_path, a="one")
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "a"))
    with pytest.raises(MetanasError, match="METANAS_CACHE"):
        digests(tmp_path, names)
