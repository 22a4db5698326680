"""Glyphs: which letters are there, that they can be told apart, and that their rendering is kept."""

import pickle
import unicodedata
from collections import Counter

import numpy as np
import pytest

from metanas.caching import cache_folder
from metanas.errors import MetanasError
from tasks.sources import Where, load_source
from tasks.sources.glyphs import load
from tasks.task import ImageForm, Task


@pytest.fixture(scope="module")
def glyphs() -> Task:
    (task,) = load_source("glyphs", "letters", ImageForm(28), Where(), {})
    return task


def test_there_are_many_letters_of_six_scripts_in_eight_faces(glyphs: Task) -> None:
    assert len(glyphs.classes) > 1100
    assert glyphs.families is not None
    assert set(glyphs.families) == {"Latin", "Greek", "Cyrillic", "Georgian", "Armenian", "Lao"}
    assert min(Counter(glyphs.families).values()) >= 25
    assert min(map(len, glyphs.by_class)) >= 8
    assert max(map(len, glyphs.by_class)) <= 16


def test_no_digit_is_among_the_letters(glyphs: Task) -> None:
    letters = [unicodedata.lookup(name) for name in glyphs.classes]
    assert all(unicodedata.category(letter).startswith("L") for letter in letters)
    assert not any("DIGIT" in name for name in glyphs.classes)
    assert all(unicodedata.numeric(letter, None) is None for letter in letters)


def test_ink_is_bright_centred_and_fills_the_frame(glyphs: Task) -> None:
    pixels = glyphs.read(np.arange(0, len(glyphs), 7))
    assert pixels.shape[1:] == (1, 28, 28)
    assert pixels.dtype == np.uint8
    ink = pixels[:, 0] > 0
    assert not ink[:, 0].any()
    rows, columns = ink.any(2), ink.any(1)
    margins = [(side.argmax(1), side[:, ::-1].argmax(1)) for side in (rows, columns)]
    for before, after in margins:
        assert (abs(before - after) <= 2).all()
    assert (np.minimum(*(before + after for before, after in margins)) <= 5).all()
    assert (pixels.max((1, 2, 3)) > 80).all()


def test_no_two_letters_look_alike(glyphs: Task) -> None:
    """Letters that are one drawing in every alphabet occur once, and no drawing is a sample of two letters."""
    for alike in (
        ("LATIN CAPITAL LETTER A", "GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"),
        (
            "LATIN CAPITAL LETTER O",
            "LATIN SMALL LETTER O",
            "GREEK CAPITAL LETTER OMICRON",
            "ARMENIAN CAPITAL LETTER OH",
        ),
        ("LATIN CAPITAL LETTER X", "LATIN SMALL LETTER X", "GREEK CAPITAL LETTER CHI", "CYRILLIC CAPITAL LETTER HA"),
    ):
        assert [name for name in alike if name in glyphs.classes] == [alike[0]]
    for name in ("LATIN SMALL LETTER A", "GREEK SMALL LETTER BETA", "CYRILLIC CAPITAL LETTER ZHE"):
        assert name in glyphs.classes
    pixels = glyphs.read(np.arange(len(glyphs))).reshape(len(glyphs), -1)
    owner: dict[bytes, int] = {}
    for row, label in zip(pixels, glyphs.labels.tolist(), strict=True):
        assert owner.setdefault(row.tobytes(), label) == label


def test_no_two_samples_of_a_letter_are_the_same(glyphs: Task) -> None:
    for members in glyphs.by_class[::20]:
        assert len(np.unique(glyphs.read(members).reshape(len(members), -1), axis=0)) == len(members)


def test_rendering_is_kept_and_the_same_again(glyphs: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {file: file.stat().st_mtime_ns for file in cache_folder().glob("generated-*.npy")}
    (again,) = load("letters", ImageForm(28))
    copy = pickle.loads(pickle.dumps(glyphs))
    assert {file: file.stat().st_mtime_ns for file in cache_folder().glob("generated-*.npy")} == stored
    assert len(pickle.dumps(glyphs)) < 1_000_000
    some = np.arange(0, len(glyphs), 50)
    assert np.array_equal(again.read(some), glyphs.read(some))
    assert np.array_equal(copy.read(some), glyphs.read(some))
    monkeypatch.setenv("METANAS_CACHE", str(cache_folder() / "other"))
    (anew,) = load("letters", ImageForm(28))
    assert anew.content_hash == glyphs.content_hash
    assert np.array_equal(anew.read(some), glyphs.read(some))


def test_colour_forms_repeat_the_grey_one(glyphs: Task) -> None:
    (colour,) = load("letters", ImageForm(28, 3))
    some = colour.read([5, 2])
    assert np.array_equal(some, np.repeat(glyphs.read([5, 2]), 3, axis=1))


def test_more_faces_than_there_are_is_an_error() -> None:
    with pytest.raises(MetanasError, match="carried by 40 faces, there are 16: lower `faces`"):
        load("letters", ImageForm(28), faces=40)
