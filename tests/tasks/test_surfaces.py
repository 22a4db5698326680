"""Synthetic inspection lines: repeatable, varied, marked as synthetic, and with faults that can be seen."""

import multiprocessing
import pickle

import numpy as np
import pytest

from metanas.errors import MetanasError
from tasks.sources import Where, load_source
from tasks.sources.surfaces import board, cell, faults_of, load, metal, paint_line
from tasks.sources.surfaces.fields import SIDE, blob, inside, noise, segments, spots
from tasks.task import ImageForm, Task


def first_line(kind: str) -> int:
    return next(line for line in range(200) if faults_of(0, line)[0] == kind and len(faults_of(0, line)[1]) > 3)


@pytest.fixture(scope="module")
def lines() -> list[Task]:
    return load_source("surfaces", "lines", ImageForm(32), Where(), {"lines": 12, "images": 6})


def test_lines_are_tasks_of_their_own(lines: list[Task]) -> None:
    assert [task.name for task in lines] == [f"lines-{line:03d}" for line in range(12)]
    assert all(task.synthetic and task.licence == "generated" for task in lines)
    assert len({task.classes for task in lines}) > 6
    for task in lines:
        assert 2 <= len(task.classes) <= 10
        assert [len(members) for members in task.by_class] == [6] * len(task.classes)
        assert task.read([0, 7]).shape == (2, 1, 32, 32)


def test_painted_images_obey_the_form_too(lines: list[Task]) -> None:
    form = ImageForm(32, dark_ground=True)
    dark = load_source("surfaces", "lines", form, Where(), {"lines": 12, "images": 6})
    inverted = np.zeros(2)
    for plain, task in zip(lines, dark, strict=True):
        before, after = plain.read(np.arange(len(plain))), task.read(np.arange(len(task)))
        rims = [np.median([*image[0], *image[-1], *image[1:-1, 0], *image[1:-1, -1]]) for image in before[:, 0]]
        bright = np.array(rims) > 127
        np.testing.assert_array_equal(after, np.where(bright[:, None, None, None], 255 - before, before))
        inverted += bright.sum(), (~bright).sum()
    assert inverted.all()  # some are bright and some are not


def test_the_records_bear_the_labels_of_the_task(lines: list[Task]) -> None:
    for line, task in enumerate(lines[:4]):
        table = paint_line(0, line, 6, 32)
        assert np.array_equal(table["mark"], task.labels)
        assert np.array_equal(table["pixels"], task.read(np.arange(len(task)))[:, 0])


def test_images_follow_from_the_seed_alone() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as process:
        for kind in ("metal", "board", "cell"):
            line = first_line(kind)
            here = paint_line(0, line, 3, 28)
            assert np.array_equal(here, process.apply(paint_line, (0, line, 3, 28)))
            assert len(np.unique(here["pixels"].reshape(len(here), -1), axis=0)) == len(here)
    assert faults_of(0, 0) != faults_of(1, 0)


def test_the_name_of_the_source_changes_no_image() -> None:
    form = ImageForm(28)
    first, second, other = load("a", form, 2, 3)[1], load("b", form, 2, 3)[1], load("a", form, 2, 3, seed=1)[1]
    assert np.array_equal(first.read(range(6)), second.read(range(6)))
    assert first.content_hash == second.content_hash
    assert not np.array_equal(first.read(range(6)), other.read(range(6)))
    assert first.content_hash != other.content_hash


def test_a_line_travels_without_its_images(lines: list[Task]) -> None:
    lines[0].read([0])
    copy = pickle.loads(pickle.dumps(lines[0]))
    assert len(pickle.dumps(lines[0])) < 20_000
    assert np.array_equal(copy.read([1, 3]), lines[0].read([1, 3]))


def test_all_kinds_and_two_class_lines_occur() -> None:
    drawn = [faults_of(0, line) for line in range(60)]
    assert {kind for kind, _ in drawn} == {"metal", "board", "cell"}
    seen = {fault for _, classes in drawn for faults in classes.values() for fault in faults}
    assert seen == {*metal.FAULTS, *board.FAULTS, *cell.FAULTS, "ok"}
    pairs = [classes for _, classes in drawn if set(classes) == {"ok", "faulty"}]
    assert 3 < len(pairs) < 25
    assert all("ok" not in classes["faulty"] and len(classes["faulty"]) > 1 for classes in pairs)


@pytest.mark.parametrize("surface", [metal, cell], ids=["metal", "cell"])
def test_every_fault_changes_every_image_where_it_is_seen(surface: object) -> None:
    assert surface in (metal, cell)
    for name, fault in surface.FAULTS.items():  # type: ignore[attr-defined]
        for line in range(4):
            style, rng = np.random.default_rng([1, line]), np.random.default_rng([2, line])
            before = surface.background(style, rng, 8)  # type: ignore[attr-defined]
            after = fault(before, style, rng)
            assert after.shape == (8, SIDE, SIDE), name
            assert np.isfinite(after).all(), name
            seen = np.abs(after - before).max((1, 2))
            assert np.mean(seen > 0.05) >= 0.75, name  # a mark may fall outside the frame or in the dark, seldom


def test_board_faults_change_the_copper_at_the_middle() -> None:
    """With nothing but the fault between them, two boards differ near the middle, in the direction of the fault."""
    adds = {"short": 1, "spur": 1, "loose copper": 1, "open": -1, "mouse bite": -1, "pinhole": -1}
    for name, sign in adds.items():
        site, change = board.FAULTS[name]
        layout = board.layout(site, np.random.default_rng(0), np.random.default_rng(1), 40)
        copper, faulty = inside(layout.distance), inside(change(layout, np.random.default_rng(2)))
        difference = (faulty - copper) * sign
        assert difference.min() >= 0, name
        changed = difference.sum((1, 2))
        assert (changed > 1).mean() > 0.9, name
        rows = (difference.sum(2) * (np.arange(SIDE) + 0.5)).sum(1) / np.maximum(changed, 1e-9)
        near = np.abs(rows - layout.y) < 8
        assert near[changed > 1].mean() > 0.9, name


def test_noise_has_mean_zero_and_variance_one_and_the_asked_length() -> None:
    field = noise(np.random.default_rng(0), 30, 3.0, stretch=4.0)
    assert np.allclose(field.mean((1, 2)), 0, atol=1e-9)
    assert np.allclose(field.std((1, 2)), 1)
    # White noise smoothed by a Gaussian of deviation s is correlated by exp(-d^2 / 4 s^2) at distance d.
    for axis, length in ((1, 3.0), (2, 12.0)):
        correlation = float((field * np.roll(field, 4, axis)).mean())
        assert correlation == pytest.approx(np.exp(-16 / (4 * length**2)), abs=0.12)


def test_shapes_lie_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    x, y = np.full(200, 20.0), np.full(200, 40.0)
    disc = inside(blob(rng, x, y, 6.0))
    assert disc[:, 40, 20].min() == 1
    assert disc[:, :, 40:].max() == 0
    assert 1 < disc.sum((1, 2)).mean() / (np.pi * 36) < 1.4  # raggedness adds a little
    line = segments(rng, 50, 1, np.zeros((50, 1)), (20, 20))
    assert ((line < 0.5).any(2).sum(1) == 1).all()  # horizontal: one row of pixels
    assert ((line < 0.5).sum((1, 2)) <= 22).all()
    dots = spots(rng, 50, 30, 1.0)
    assert 0 <= dots.min() <= dots.max() <= 1
    assert 15 < dots.sum((1, 2)).mean() / (2 * np.pi) < 35


def test_nothing_to_paint_is_an_error() -> None:
    with pytest.raises(MetanasError, match="'x': 0 lines of 40 images a class: ask for one or more"):
        load("x", ImageForm(28), lines=0)
