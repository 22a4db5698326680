"""The image cache: right pixels, each decoded once, shared by processes, unreadable files named when read."""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from metanas.caching import cache_folder
from metanas.errors import MetanasError
from tasks.cache import CachedImages, InMemory, array_image, open_image, to_form
from tasks.sources import Where
from tasks.sources.folder import load
from tasks.task import ImageForm, Task


@dataclass(frozen=True)
class Counted:
    """Originals that note which of them were decoded; image i is a plain shade i."""

    count: int
    content: str
    at_once: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    decoded: list[int] = field(default_factory=list)
    place: Path = Path("counted")

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index}"

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], Image.Image]]:
        def decode(index: int) -> Image.Image:
            self.decoded.append(index)
            return Image.new("L", (9, 9), index)

        yield decode


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "cache"))


def test_each_image_is_decoded_once_and_only_when_asked_for() -> None:
    originals = Counted(50, "once")
    images = CachedImages(originals, ImageForm(4))
    assert images.read([7, 3, 7])[:, 0, 0, 0].tolist() == [7, 3, 7]
    assert originals.decoded == [3, 7]
    assert images.read([3, 8])[:, 0, 0, 0].tolist() == [3, 8]
    assert originals.decoded == [3, 7, 8]
    later = Counted(50, "once")
    assert CachedImages(later, ImageForm(4)).read([8, 7, 3])[:, 0, 0, 0].tolist() == [8, 7, 3]
    assert later.decoded == []


def test_an_archive_is_decoded_whole_at_the_first_miss() -> None:
    originals = Counted(6, "archive", at_once=True)
    CachedImages(originals, ImageForm(4)).read([2])
    assert originals.decoded == list(range(6))


def test_another_content_form_or_ink_is_another_cache() -> None:
    first = CachedImages(Counted(3, "a"), ImageForm(4)).read([1, 2])
    for images in (
        CachedImages(Counted(3, "b"), ImageForm(4)),
        CachedImages(Counted(3, "a", place=Path("elsewhere")), ImageForm(4)),
        CachedImages(Counted(3, "a"), ImageForm(5)),
        CachedImages(Counted(3, "a"), ImageForm(4, 3)),
        CachedImages(Counted(3, "a"), ImageForm(4), invert=True),
        CachedImages(Counted(3, "a"), ImageForm(4, dark_ground=True)),
    ):
        images.read([1, 2])
        assert isinstance(images.originals, Counted)
        assert images.originals.decoded == [1, 2]
    inverted = CachedImages(Counted(3, "a"), ImageForm(4), invert=True).read([1, 2])
    np.testing.assert_array_equal(inverted, 255 - first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("invert", [False, True])
def test_ink_on_paper_and_chalk_on_a_board_are_the_same_on_a_dark_ground(channels: int, invert: bool) -> None:
    chalk = np.random.default_rng(0).integers(0, 40, (12, 12), dtype=np.uint8)
    chalk[1:-1, 1:-1] = 200  # a fat letter: most of the image is ink
    form = ImageForm(12, channels, dark_ground=True)
    for plain in (chalk, 255 - chalk):
        pixels = to_form(Image.fromarray(plain), form, invert)
        np.testing.assert_array_equal(pixels, to_form(Image.fromarray(chalk), replace(form, dark_ground=False)))


def test_a_copy_sent_to_a_process_is_small_and_reads_the_same() -> None:
    images = CachedImages(Counted(5000, "sent"), ImageForm(32))
    expected = images.read([5, 6])
    packed = pickle.dumps(images)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed).read([5, 6]), expected)


def _read_all(folder: Path, order: np.ndarray, answers: "multiprocessing.Queue[bytes]") -> None:
    (task,) = load("t", ImageForm(8), Where(folder), Path("pictures"))
    pixels = np.empty((len(task), 1, 8, 8), np.uint8)
    for index in order:
        pixels[index] = task.read([index])[0]
    answers.put(pixels.tobytes())


def test_processes_that_fill_at_the_same_time_all_read_right_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shades = random.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    for index, pixels in enumerate(shades):
        folder = tmp_path / "pictures" / f"class {index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    expected = np.concatenate([shades[0::2], shades[1::2]])[:, None].tobytes()
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[bytes] = context.Queue()
    workers = [context.Process(target=_read_all, args=(tmp_path, random.permutation(60), answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=60) == expected for _ in workers] == [True] * 3
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def test_a_row_without_its_flag_is_written_again() -> None:
    images = CachedImages(Counted(4, "torn"), ImageForm(4))
    images.read([0, 1, 2, 3])
    (folder,) = cache_folder().iterdir()
    rows = bytearray((folder / "rows").read_bytes())
    rows[16:32] = b"\7" * 16  # image 1, torn while it was written
    (folder / "rows").write_bytes(rows)
    (folder / "filled").write_bytes(b"\1\0\1\1")
    again = Counted(4, "torn")
    assert CachedImages(again, ImageForm(4)).read([0, 1, 2, 3])[:, 0, 3, 3].tolist() == [0, 1, 2, 3]
    assert again.decoded == [1]


def test_a_cache_folder_that_cannot_be_made_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(MetanasError, match="METANAS_CACHE"):
        CachedImages(Counted(2, "blocked"), ImageForm(4)).read([0])


def test_the_cache_lies_in_the_users_cache_folder_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("METANAS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "metanas"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "metanas"


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_shrinking_by_a_whole_factor_is_the_mean_of_each_area(factor: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size * factor, size * factor), dtype=np.uint8)
    expected = pixels.reshape(size, factor, size, factor).mean(axis=(1, 3))
    delivered = to_form(Image.fromarray(pixels), ImageForm(size))
    assert delivered.shape == (1, size, size)
    assert np.abs(delivered[0] - expected).max() <= 1  # Pillow rounds after each of the two directions


def test_colour_becomes_luma_and_grey_becomes_three_equal_channels() -> None:
    colours = np.zeros((1, 3, 3), np.uint8)
    colours[0] = np.diag([255, 255, 255])
    (grey,) = to_form(Image.fromarray(colours.repeat(3, axis=0)), ImageForm(3))
    np.testing.assert_allclose(grey[0], [0.299 * 255, 0.587 * 255, 0.114 * 255], atol=1)
    coloured = to_form(Image.new("L", (5, 5), 77), ImageForm(3, 3))
    assert coloured.shape == (3, 3, 3)
    assert set(coloured.ravel().tolist()) == {77}


def test_channels_of_a_colour_image_come_first() -> None:
    delivered = to_form(Image.new("RGB", (4, 4), (10, 20, 30)), ImageForm(4, 3))
    assert delivered[:, 0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_keep_their_range_and_transparency_is_white(tmp_path: Path) -> None:
    deep = np.full((6, 6), 257 * 100, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert set(to_form(open_image(tmp_path / "deep.png", "deep"), ImageForm(3)).ravel().tolist()) == {100}
    Image.new("RGBA", (6, 6), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert set(to_form(open_image(tmp_path / "clear.png", "clear"), ImageForm(3)).ravel().tolist()) == {255}


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    upright = to_form(open_image(tmp_path / "photo.png", "photo"), ImageForm(8))[0]
    assert upright[:4].max() == 0
    assert upright[4:].min() == 255


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.ones((2, 2), bool), 255),
        (np.full((2, 2, 1), 200, np.uint8), 200),
        (np.full((3, 2, 2), 200, np.uint8), 200),
        (np.full((2, 2, 3), 257 * 9, np.uint16), 9),
        (np.full((2, 2), 0.2, np.float32), 51),
    ],
)
def test_arrays_of_all_usual_kinds_become_images(pixels: np.ndarray, expected: int) -> None:
    assert set(to_form(array_image(pixels, "x"), ImageForm(2)).ravel().tolist()) == {expected}


@pytest.mark.parametrize("pixels", [np.full((2, 2), 300.0), np.full((2, 2), -0.5), np.zeros((2, 2, 2, 2)), np.zeros(4)])
def test_an_array_that_is_no_image_is_refused_by_name(pixels: np.ndarray) -> None:
    with pytest.raises(MetanasError, match="sample 5"):
        array_image(pixels, "sample 5")


def test_an_unreadable_file_loads_and_is_named_when_read(tmp_path: Path) -> None:
    folder = tmp_path / "line" / "crack é"
    folder.mkdir(parents=True)
    Image.effect_noise((40, 40), 50).save(folder / "a good.png")
    whole = (folder / "a good.png").read_bytes()
    broken = {"b empty.png": b"", "c cut.png": whole[: len(whole) // 2], "d text.png": b"not an image"}
    for name, content in broken.items():
        (folder / name).write_bytes(content)
    os.symlink(folder / "gone.png", folder / "e link.png")
    (task,) = load("line", ImageForm(8), Where(tmp_path), Path("line"))
    assert len(task) == 5
    assert task.read([0]).shape == (1, 1, 8, 8)
    for index, name in enumerate([*broken, "e link.png"], start=1):
        with pytest.raises(MetanasError, match=f"crack é/{name}.*replace or remove it"):
            task.read([index])
    with pytest.raises(MetanasError, match=r"b empty.png' cannot be read as an image \(it is empty\)"):
        task.read([0, 1])


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    folder = tmp_path / "line" / "ok"
    folder.mkdir(parents=True)
    for shade in (10, 200):
        Image.new("L", (4, 4), shade).save(folder / "a.png")
        os.utime(folder / "a.png", (shade, shade))
        (task,) = load("line", ImageForm(4), Where(tmp_path), Path("line"))
        assert task.read([0]).max() == shade


def test_samples_in_memory_come_in_the_asked_order() -> None:
    samples = np.arange(12, dtype=np.float32).reshape(4, 3)
    task = Task("t", "tabular", InMemory(samples), np.array([0, 1, 0, 1]), ("a", "b"))
    np.testing.assert_array_equal(task.read([2, 0]), samples[[2, 0]])
    np.testing.assert_array_equal(task.only(["b"]).read([1]), samples[[3]])
