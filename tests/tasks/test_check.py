"""The pool check finds what was planted, says what to do, and stays silent on a clean pool."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.cache import CachedImages, InMemory
from tasks.check import Finding, check_pool
from tasks.likeness import difference_hash, looks, near_duplicates
from tasks.pool import Pool, load_pool
from tasks.sources import Where
from tasks.sources.folder import load
from tasks.task import ImageForm, Task


def photo(seed: int, size: int = 32) -> Image.Image:
    """A smooth random picture: its gradients survive a change of size, as a photograph's do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """`line` with 12 images in each of `ok` and `crack`, all different."""
    for label, name in enumerate(("ok", "crack")):
        (tmp_path / "line" / name).mkdir(parents=True)
        for index in range(12):
            photo(100 * label + index).save(tmp_path / "line" / name / f"{index:02d}.png")
    return tmp_path / "line"


def check(line: Path, shots: int = 5, queries: int = 5) -> list[Finding]:
    source = {"name": "line", "kind": "folder", "path": str(line)}
    pool = load_pool(
        {"name": "p", "sources": [source], "splits": {"by": "task", "train": ["line"]}}, ImageForm(8), data=line.parent
    )
    return check_pool(pool, shots, queries)


def test_each_test_asks_for_itself(line: Path) -> None:
    """12 images a class are enough for 2 and 9 and for 10 and 2, and would not be for 10 and 9."""
    source = {"name": "line", "kind": "folder", "path": str(line)}
    splits = {"by": "task", "train": ["line"]}
    loaded = load_pool({"name": "p", "sources": [source], "splits": splits}, ImageForm(8), data=line.parent)
    assert not bad(check_pool(loaded, 1, 1, {"train": [(2, 9), (10, 2)]}))
    findings = bad(check_pool(loaded, 1, 1, {"train": [(2, 11), (10, 2)]}))
    assert ["an episode takes 2 shots and 11 queries" in finding.what for finding in findings] == [True]


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "info"]


def test_a_clean_line_is_only_counted(line: Path) -> None:
    (finding,) = check(line)
    assert finding.level == "info"
    assert "24 images in 2 classes, 12 to 12 each (crack: 12, ok: 12)" in finding.what


def test_a_class_that_is_too_small_says_what_to_add(line: Path) -> None:
    for index in range(3):
        (line / "crack" / f"{index:02d}.png").unlink()
    assert not bad(check(line, 5, 4))
    (finding,) = bad(check(line, 5, 7))
    assert finding.level == "error"
    assert "'crack' has 9 images" in finding.what
    assert finding.to_do.startswith("add 3 images to 'crack'")
    assert "'ok'" not in finding.what + finding.to_do


def test_unreadable_files_and_files_that_are_no_images(line: Path) -> None:
    whole = (line / "ok" / "00.png").read_bytes()
    (line / "ok" / "empty file.png").write_bytes(b"")
    (line / "ok" / "cut ü.png").write_bytes(whole[: len(whole) // 2])
    (line / "crack" / "text.jpg").write_text("hello")
    (line / "crack" / "Thumbs.db").write_text("x")
    (line / "loose.png").write_bytes(whole)
    (line / "nothing yet").mkdir()
    found = {finding.what: finding for finding in bad(check(line))}
    for name in ("ok/empty file.png", "ok/cut ü.png", "crack/text.jpg"):
        (finding,) = [finding for what, finding in found.items() if name in what]
        assert (finding.level, finding.to_do) == ("error", "replace or remove it")
        assert "cannot be read as an image" in finding.what
    for name, reason in (
        ("crack/Thumbs.db", "no image file"),
        ("loose.png", "in no class folder"),
        ("nothing yet", "an empty folder"),
    ):
        (finding,) = [finding for what, finding in found.items() if name in what]
        assert finding.level == "warning"
        assert reason in finding.what
    assert len(found) == 6


def test_what_is_no_image_is_named_with_its_own_line(line: Path) -> None:
    both = line.parent / "lines"
    for name in ("bottles", "caps"):
        shutil.copytree(line, both / name)
    (both / "caps" / "ok" / "notes.txt").write_text("x")
    (both / "caps" / "empty").mkdir()
    (both / "Thumbs.db").write_text("x")
    tasks = load(name="lines", form=ImageForm(8), where=Where(Path()), path=both)
    named = {task.name: task.inputs.originals.left_out for task in tasks if isinstance(task.inputs, CachedImages)}
    assert named == {
        "lines/bottles": ((str(both / "Thumbs.db"), "it is no image file"),),
        "lines/caps": (
            (str(both / "caps" / "ok" / "notes.txt"), "it is no image file"),
            (str(both / "caps" / "empty"), "it is an empty folder"),
        ),
    }


def test_an_odd_size_and_an_odd_colour_among_many(line: Path) -> None:
    photo(999, 48).save(line / "ok" / "large.png")
    photo(998).convert("RGB").save(line / "ok" / "colour.png")
    size, colour = bad(check(line))
    assert "1 of 26 images have another size than 32x32: 'ok/large.png' (48x48)" in size.what
    assert "1 of 26 images have another colour mode than L: 'ok/colour.png' (RGB)" in colour.what


def test_images_of_all_sizes_are_not_odd(line: Path) -> None:
    for index in range(12):
        photo(index, 20 + index).save(line / "ok" / f"{index:02d}.png")
    assert not bad(check(line))


def test_exact_and_near_duplicates(line: Path) -> None:
    (line / "ok" / "twin.png").write_bytes((line / "ok" / "03.png").read_bytes())
    brighter = Image.fromarray((np.asarray(photo(5), dtype=np.int16) + 2).clip(0, 255).astype(np.uint8))
    brighter.save(line / "ok" / "again.jpg", quality=90)
    exact, near = bad(check(line))
    assert "exact duplicates of 1 image: ok/03.png [ok] and ok/twin.png [ok]" in exact.what
    assert "remove all but one" in exact.to_do
    assert "near duplicates of 1 image" in near.what
    assert "ok/05.png [ok] and ok/again.jpg [ok]" in near.what


def test_the_same_image_under_two_classes_is_an_error(line: Path) -> None:
    (line / "crack" / "same.png").write_bytes((line / "ok" / "03.png").read_bytes())
    (finding,) = bad(check(line))
    assert finding.level == "error"
    assert "crack/same.png [crack] and ok/03.png [ok]" in finding.what
    assert "decide for one class" in finding.to_do


def test_plain_images_are_no_near_duplicates() -> None:
    shades = [np.full((16, 16), shade, np.uint8) for shade in (10, 10, 11)]
    assert list(near_duplicates(looks(shades, [0, 1, 2]))) == []


def test_near_duplicates_against_all_pairs() -> None:
    random = np.random.default_rng(0)
    thumbnails = [np.asarray(photo(seed, 16)) for seed in range(40)]
    for index in range(0, 40, 3):
        noisy = thumbnails[index] + random.normal(0, 2, (16, 16))
        thumbnails.append(noisy.clip(0, 255).astype(np.uint8))
    expected = {}
    for later in range(len(thumbnails)):
        for earlier in range(later):
            bits = (difference_hash(thumbnails[earlier]) ^ difference_hash(thumbnails[later])).bit_count()
            apart = np.abs(thumbnails[earlier].astype(int) - thumbnails[later].astype(int)).mean()
            if bits <= 2 and apart <= 3:
                expected.setdefault(later, earlier)
    assert len(expected) >= 5
    found = list(near_duplicates(looks(thumbnails, range(100, 100 + len(thumbnails)))))
    assert found == [(100 + earlier, 100 + later) for later, earlier in expected.items()]


def task(name: str, samples: list[int], groups: list[str] | None = None, classes: int = 2) -> Task:
    """Rows that hold one number each, dealt to the classes in turn."""
    rows = np.array(samples, dtype=np.float32)[:, None]
    labels = np.arange(len(samples)) % classes
    names = tuple("uvwxyz"[:classes])
    return Task(name, "tabular", InMemory(rows), labels, names, groups=None if groups is None else np.array(groups))


def pool(train: list[Task], validation: list[Task], test: list[Task]) -> Pool:
    return Pool("p", tuple(train), tuple(validation), tuple(test), (1.0,) * len(train))


def test_the_same_sample_in_two_splits() -> None:
    findings = bad(check_pool(pool([task("a", [1, 2, 3, 4])], [], [task("b", [5, 6, 3, 7])]), 1, 1))
    (finding,) = findings
    assert (finding.level, finding.task) == ("error", "b")
    assert "1 row both in train and in test: row 2 [u] of 'a' and row 2 [u]" in finding.what
    assert finding.to_do == "remove them from train"


def test_images_that_look_the_same_in_two_splits(line: Path) -> None:
    """A second shot of the same part under another name, darker and saved anew, in the line that is tested on."""
    for index in range(6):
        for name in ("ok", "dent"):
            place = line.parent / "tested" / name
            place.mkdir(parents=True, exist_ok=True)
            photo(500 + index + 50 * (name == "dent")).save(place / f"{index}.png")
    darker = (np.asarray(photo(107), dtype=np.int16) - 2).clip(0, 255).astype(np.uint8)
    Image.fromarray(darker).save(line.parent / "tested" / "dent" / "shot 2.png")
    (line.parent / "tested" / "ok" / "exact.png").write_bytes((line / "ok" / "03.png").read_bytes())
    sources = [{"name": name, "kind": "folder", "path": name} for name in ("line", "tested")]
    splits = {"by": "task", "train": ["line"], "test": ["tested"]}
    both = load_pool({"name": "p", "sources": sources, "splits": splits}, ImageForm(8), line.parent)
    exact, near = bad(check_pool(both, 1, 1))
    assert (exact.level, near.level, near.task) == ("error", "warning", "tested")
    assert near.what == (
        "1 image in test that look like ones in train: crack/07.png [crack] of 'line' and dent/shot 2.png [dent]"
    )
    assert near.to_do == "look at them, and remove those that show the same object from train"


def test_the_same_group_in_two_splits() -> None:
    whole = task("a", list(range(16)), groups=["g1", "g1", "g1", "g1", "g2", "g2", "g2", "g2"] * 2, classes=4)
    findings = bad(check_pool(pool([whole.only(["u", "v"])], [whole.only(["w", "x"])], []), 1, 1))
    (finding,) = findings
    assert finding.level == "warning"
    assert "2 of its groups both in train and in validation: 'g1', 'g2'" in finding.what


def test_duplicates_in_one_group_do_no_harm() -> None:
    rows, groups = [1, 2, 1, 4, 5, 6, 7, 8], ["g", "g", "g", "h", "h", "h", "h", "g"]
    assert not bad(check_pool(pool([task("a", rows, groups)], [], []), 1, 1))
    (finding,) = bad(check_pool(pool([task("a", rows)], [], []), 1, 1))
    assert "exact duplicates" in finding.what


def test_a_class_in_one_group_cannot_be_kept_apart() -> None:
    findings = bad(check_pool(pool([task("a", list(range(8)), ["g", "h", "g", "k"] * 2)], [], []), 1, 1))
    (finding,) = findings
    assert "all 4 rows of class 'u' are of group 'g'" in finding.what
    assert "add rows of another group to 'u'" in finding.to_do


def test_groups_that_leave_one_side_too_little_are_named() -> None:
    """Four samples, three of them of one group: two shots and two queries would share it."""
    rows, groups = list(range(8)), ["g", "g", "g", "h", "g", "g", "h", "h"]
    (finding,) = bad(check_pool(pool([task("a", rows, groups)], [], []), 2, 2))
    assert (finding.level, finding.task) == ("error", "a")
    assert finding.what.startswith("Class 'u' of task 'a' is 1 ")
    assert "share no group" in finding.what
    assert finding.to_do == "add samples of further groups, or ask for fewer"
    assert not bad(check_pool(pool([task("a", rows, groups)], [], []), 1, 1))


def test_one_class_is_no_task() -> None:
    (finding,) = bad(check_pool(pool([task("a", [1, 2, 3, 4], classes=1)], [], []), 1, 1))
    assert (finding.what, finding.to_do) == ("has one class only", "add rows of a second class")


@pytest.mark.parametrize("channels", [1, 3])
def test_images_without_files_are_checked_as_delivered(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, channels, 8, 8), dtype=np.uint8)
    pixels[4] = pixels[2]
    images = Task("i", "image", InMemory(pixels), np.arange(6) % 2, ("a", "b"))
    (finding,) = bad(check_pool(pool([images], [], []), 1, 1))
    assert finding.what == "exact duplicates of 1 image: image 2 [a] and image 4 [a]"


def test_errors_come_first() -> None:
    findings = check_pool(pool([task("a", [1, 2, 1, 4])], [], [task("b", [5])]), 1, 2)
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "info"].index)
    assert set(levels) == {"error", "warning", "info"}


def test_real_steel_strips(data_dir: Path) -> None:
    findings = check(data_dir / "factory" / "x_sdd", 5, 15)
    assert not [finding for finding in findings if finding.level == "error"]
    assert any("have another size than 128x128" in finding.what for finding in findings)
    assert any("exact duplicates" in finding.what for finding in findings)
    short = check(data_dir / "factory" / "x_sdd", 5, 59)[0]  # its smallest class has 63 images
    assert (short.level, short.to_do) == ("error", "add 1 image to 'oxide scale of plate system', or ask for fewer")
