"""A run's folder: what is damaged or missing in it is one sentence that says what to do."""

from pathlib import Path

import numpy as np
import pytest

from metanas.errors import MetanasError
from metanas.run import RunFolder

STATE = {"version": np.array(7), "w": np.arange(6.0)}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """With two checkpoints kept one after the other."""
    folder = RunFolder(tmp_path)
    for step in (3, 7):
        folder.save(f"{step:08d}-0", {"step": step}, STATE)
    return folder


def test_the_last_checkpoint_comes_back_and_is_the_only_one(folder: RunFolder) -> None:
    content, state = folder.last() or (None, {})
    assert content == {"step": 7}
    for name, array in STATE.items():
        np.testing.assert_array_equal(state[name], array)
    names = {path.name for path in (folder.path / "checkpoint").iterdir()}
    assert names == {"00000007-0.json", "00000007-0.safetensors", "last"}


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).last() is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "00000007-0.json",
            r"00000007-0\.json' is not JSON .*remove the folder '.*checkpoint' .*`metanas train .*`\.$",
        ),
        ("00000007-0.safetensors", r"00000007-0\.safetensors' cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named(folder: RunFolder, name: str, said: str) -> None:
    path = folder.path / "checkpoint" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MetanasError, match=said) as caught:
        folder.last()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "00000007-0.json",
            r"00000007-0\.json', the last checkpoint of the run, is missing; put it back .* --resume`\.$",
        ),
        ("00000007-0.safetensors", r"00000007-0\.safetensors' cannot be read"),
    ],
)
def test_a_missing_file_of_the_checkpoint_is_named(folder: RunFolder, name: str, said: str) -> None:
    (folder.path / "checkpoint" / name).unlink()
    with pytest.raises(MetanasError, match=said):
        folder.last()


@pytest.mark.parametrize(("content", "said"), [("store: [", "is not YAML"), ("", "holds no keys")])
def test_a_damaged_configuration_is_named_by_what_asks_for_the_store(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(MetanasError, match=rf"config\.yaml' {said}"):
        _ = RunFolder(tmp_path).store_url
