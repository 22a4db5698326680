"""Episodes as folders: order, labels and pixels, and an error that names the place of each mistake."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metanas.errors import MetanasError
from tasks.episode_folders import folder_episodes
from tasks.task import ImageForm


def shade(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (10, 10), value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two episodes; the shade of a file is ten times its class plus its number, the support a hundred more."""
    for episode in ("two", "one"):
        for number in (1, 0):
            shade(tmp_path / episode / "support" / "pit" / f"{number}.png", 100 + number)
            shade(tmp_path / episode / "support" / "crack" / f"{number}.png", 110 + number)
        shade(tmp_path / episode / "query" / "pit" / "q.png", 0)
        shade(tmp_path / episode / "query" / "crack" / "q.png", 10)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("no episode")
    return tmp_path


def test_episodes_classes_and_files_come_in_the_order_of_their_names(folder: Path) -> None:
    episodes = folder_episodes(folder, ImageForm(6))
    assert [episode.task for episode in episodes] == ["one", "two"]
    first = episodes[0]
    assert first.classes == ("crack", "pit")
    assert first.support_inputs.shape == (4, 1, 6, 6)
    assert first.support_labels.tolist() == [0, 0, 1, 1]
    assert (first.support_inputs[:, 0, 0, 0] * 255).round().tolist() == [110, 111, 100, 101]
    assert (first.query_inputs[:, 0, 0, 0] * 255).round().tolist() == [10, 0]
    assert first.query_labels.dtype == torch.int64
    assert (first.support_ids.tolist(), first.query_ids.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_letters_of_either_ink_are_the_same_episode_on_a_dark_ground(tmp_path: Path) -> None:
    for ink, paper in ((0, 255), (255, 0)):
        for side in ("support", "query"):
            for place, name in enumerate(("left", "right")):
                letter = Image.new("L", (10, 10), paper)
                letter.paste(ink, (2 + 4 * place, 2, 4 + 4 * place, 8))
                file = tmp_path / f"ink {ink}" / side / name / "0.png"
                file.parent.mkdir(parents=True)
                letter.save(file)
    of_ink, of_chalk = folder_episodes(tmp_path, ImageForm(10, dark_ground=True))
    assert of_ink.support_inputs.mean() == pytest.approx(0.12)  # 12 of 100 pixels are bright
    for side in ("support_inputs", "query_inputs"):
        assert torch.equal(getattr(of_ink, side), getattr(of_chalk, side))


def test_a_class_may_be_without_query_files(folder: Path) -> None:
    (folder / "one" / "query" / "pit" / "q.png").unlink()
    assert folder_episodes(folder, ImageForm(6, 3))[0].query_labels.tolist() == [0]


@pytest.mark.parametrize("side", ["support", "query"])
def test_a_missing_side_is_named(folder: Path, side: str) -> None:
    (folder / "two" / side).rename(folder / "two" / "other")
    with pytest.raises(MetanasError, match=f"There is no folder '.*two/{side}'"):
        folder_episodes(folder, ImageForm(6))


def test_a_query_class_without_support_is_named(folder: Path) -> None:
    shade(folder / "two" / "query" / "stain" / "0.png", 3)
    with pytest.raises(MetanasError, match=r"two/query/stain' is a class that '.*two/support' lacks"):
        folder_episodes(folder, ImageForm(6))


def test_an_empty_class_is_named(folder: Path) -> None:
    (folder / "one" / "support" / "stain").mkdir()
    with pytest.raises(MetanasError, match="one/support/stain' holds no file"):
        folder_episodes(folder, ImageForm(6))


def test_an_unreadable_file_is_named(folder: Path) -> None:
    (folder / "one" / "query" / "pit" / "q.png").write_bytes(np.arange(50, dtype=np.uint8).tobytes())
    with pytest.raises(MetanasError, match=r"query/pit/q\.png' cannot be read as an image"):
        folder_episodes(folder, ImageForm(6))


def test_a_query_without_files_is_named(folder: Path) -> None:
    for name in ("pit", "crack"):
        (folder / "one" / "query" / name / "q.png").unlink()
    with pytest.raises(MetanasError, match="one/query' holds no file"):
        folder_episodes(folder, ImageForm(6))


def test_one_class_is_no_episode(folder: Path) -> None:
    for side in ("support", "query"):
        (folder / "one" / side / "pit").rename(folder / side)
    with pytest.raises(MetanasError, match="one/support' holds 1 classes, expected two or more"):
        folder_episodes(folder, ImageForm(6))


def test_a_folder_without_episodes_says_so(tmp_path: Path) -> None:
    with pytest.raises(MetanasError, match="holds no episode"):
        folder_episodes(tmp_path, ImageForm(6))
    with pytest.raises(MetanasError, match=r"There is no folder '.*nowhere'"):
        folder_episodes(tmp_path / "nowhere", ImageForm(6))
