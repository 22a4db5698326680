"""A file is there whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from metanas.errors import MetanasError
from metanas.files import load_arrays, save_arrays, whole, write_text


def test_what_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old é")
    with pytest.raises(ZeroDivisionError), whole(path) as partial:  # noqa: PT012 (it breaks off half-way)
        partial.write_text("ne")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old é"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_arrays_come_back_as_they_are_however_they_lie_in_memory(tmp_path: Path) -> None:
    arrays = {"across": np.arange(6.0).reshape(2, 3).T, "number": np.array(3)}
    save_arrays(tmp_path / "a.safetensors", arrays, {"seed": "1"})
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert file.metadata() == {"seed": "1"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
    for name, array in load_arrays(tmp_path / "a.safetensors").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_others_may_read_arrays_as_they_may_read_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "{}")
    save_arrays(tmp_path / "a.safetensors", {"a": np.arange(6.0)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "a.json").stat().st_mode


def test_a_damaged_file_of_arrays_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": np.arange(6.0)})
    for content in (path.read_bytes()[:-1], path.read_bytes()[:10], b""):
        path.write_bytes(content)
        with pytest.raises(MetanasError, match=r"a\.safetensors' cannot be read .*: copy it again"):
            load_arrays(path)
