"""What README.md tells its reader to type works as it stands there, on small folders, with shrunken configurations."""

import json
import re
import shlex
import sys
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from metanas.cli import main
from metanas.run import RunFolder
from tasks.sources.torchvision_sets import SUPERCLASS
from tests.runs import TINY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every command of metanas, in the order of the page, in blocks and in the text."""
    found = []
    for block, inline in re.findall(r"```sh\n(.*?)```|`(metanas [^`]+)`", README, re.DOTALL):
        found += [line for line in (inline or block).splitlines() if line.startswith("metanas ")]
    return list(dict.fromkeys(found))


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same run in a second or two: fewer steps and architectures, smaller networks and images, no worker."""
    budget = {"warmup_steps": 2, "widening_steps": 1, "generation_steps": [1, 1], "settling_steps": [1]}
    small = {"search": TINY["search"], "budget": budget, "image": config["image"] | {"size": 8}}
    if "pool" not in config:  # of metanas search and enlarge
        small = {"image": small["image"], "final": config["final"] | {"epochs": 1}}
        if "strategy" in config:
            evaluator = config["evaluator"] | {"proxy": {"data": 0.1}, "training": {"epochs": 1}}
            small |= {"budget": {"evaluations": 2}, "evaluator": evaluator}
        return config | small
    for source in config["pool"]["sources"]:
        if source["kind"] == "surfaces":
            source["images"] = 12
    options = config.get("space", {}).get("options", {}) | TINY["space"]["options"]
    tests = [test | {"episodes": 3} for test in config["test"]]
    small |= {"warmup_size": TINY["warmup_size"], "workers": 0, "precision": "float32"}
    return config | small | {"space": {"options": options}, "test": tests}


def pictures(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth random pictures (count, 16, 16), none like another."""
    coarse = rng.integers(0, 256, (count, 5, 5), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BICUBIC)) for c in coarse])


def write_folders(place: Path, rng: np.random.Generator, classes: list[str], count: int) -> None:
    for name in classes:
        (place / name).mkdir(parents=True)
        for number, picture in enumerate(pictures(rng, count)):
            Image.fromarray(picture).save(place / name / f"{number:04d}.png")


def write_user(folder: Path) -> None:
    """What a user of README.md has: lines, a new line, its camera, and episodes that others made."""
    rng = np.random.default_rng(0)
    lines = {"bottles": ["ok", "crack", "stain"], "caps": ["ok", "chipped"], "labels": ["ok", "torn"]}
    for line, classes in {**lines, "lids": ["ok", "dent", "scratch"]}.items():
        write_folders(folder / "lines" / line, rng, classes, 12)
    write_folders(folder / "new_line", rng, ["ok", "broken"], 5)
    (folder / "camera").mkdir()
    for number, picture in enumerate(pictures(rng, 2), start=1):
        Image.fromarray(picture).save(folder / "camera" / f"{number:04d}.png")
    for name in ("a", "b"):
        for side in ("support", "query"):
            write_folders(folder / "episodes" / name / side, rng, ["ok", "broken"], 3)


def write_data(folder: Path) -> None:
    """Small sets under the names and in the layouts that configs/omniglot*.yaml and configs/factory.yaml read."""
    rng = np.random.default_rng(1)
    minimal = ["Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"]
    for part, alphabets, characters, drawers in (
        ("background", [*minimal, "Tagalog"], 24, 10),
        ("evaluation", ["Tibetan"], 20, 16),
    ):
        for alphabet in alphabets:
            place = folder / f"omniglot-py/images_{part}/{alphabet}"
            write_folders(place, rng, [f"character{number:02d}" for number in range(characters)], drawers)
    sets = {
        "cifar100_test": (list(SUPERCLASS), 10),
        "gtsrb": ([f"{sign:05d}" for sign in range(20)], 12),
        "neu_det": (["crazing", "inclusion", "patches"], 16),
        "deeppcb_crops": (["open", "short", "spur"], 16),
        "elpv": (["p0.00", "p0.33", "p1.00"], 16),
    }
    for name, (classes, count) in sets.items():
        labels = np.repeat(np.arange(len(classes)), count)
        np.savez(folder / f"{name}.npz", images=pictures(rng, len(labels)), labels=labels, classes=classes)
    write_folders(folder / "factory" / "x_sdd", rng, ["ok", "scale"], 16)
    write_folders(folder / "tiny", rng, [f"n{number:08d}" for number in range(20)], 12)
    with zipfile.ZipFile(folder / "tiny_imagenet_val.zip", "w") as archive:
        for file in (folder / "tiny").rglob("*.png"):
            archive.write(file, file.relative_to(folder / "tiny").as_posix())


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of a user, with the project's configurations in it."""
    folder = tmp_path_factory.mktemp("user")
    write_user(folder)
    write_data(folder / "data")
    (folder / "configs").mkdir()
    for file in (ROOT / "configs").glob("*.yaml"):
        (folder / "configs" / file.name).write_text(yaml.safe_dump(shrunk(yaml.safe_load(file.read_text()))))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("METANAS_DATA", str(folder / "data"))
        patch.setattr("metanas.commands.planning.PROBE", 0.05)
        patch.setattr("metanas.commands.doctor._LIBRARIES", ())  # tests/commands/test_doctor.py loads them
        yield folder


@pytest.fixture(scope="module")
def answers(user: Path) -> dict[str, tuple[Any, str, str]]:
    """Every command, run one after the other: exit code, standard output and standard error."""
    found = {}
    for command in commands():
        out, err, code = StringIO(), StringIO(), None
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", shlex.split(command))
            try:
                main()
            except SystemExit as stop:
                code = stop.code
        found[command] = code, out.getvalue(), err.getvalue()
    return found


def test_every_command_of_the_page_works(answers: dict[str, tuple[Any, str, str]]) -> None:
    assert len(answers) >= 15
    assert {command: answer for command, answer in answers.items() if answer[0]} == {}


def test_what_the_page_promises_is_there(user: Path, answers: dict[str, tuple[Any, str, str]]) -> None:
    out = {command: answer[1] for command, answer in answers.items()}
    checked = out["metanas pool check configs/lines.yaml"]
    assert "lines/bottles: test: 36 images in 3 classes" in checked
    for method in ("metanas", "random architecture", "conv-4", "frozen features", "from scratch"):
        assert method in out["metanas evaluate runs/lines"]
    assert "over 2 episodes" in out["metanas evaluate runs/lines --episodes episodes"]
    assert "<svg" in (user / "runs/lines/report.html").read_text()
    predicted = json.loads(out["metanas predict models/new_line camera/0001.png camera/0002.png --json"])
    assert [set(answer["probabilities"]) for answer in predicted] == [{"ok", "broken"}] * 2
    held_out = RunFolder(user / "runs/labels").read_json("data.json")
    assert [task for task in held_out if task.startswith("lines/labels")] == ["lines/labels (test)"]
    assert "neu: test: 48 images in 3 classes" in out["metanas pool check configs/factory.yaml --hold-out neu"]
    assert "neu (test)" in RunFolder(user / "runs/neu").read_json("data.json")


def test_the_python_of_the_page_runs(user: Path, answers: dict[str, tuple[Any, str, str]]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert RunFolder(user / "runs/mine").config.seed == 1
    assert [len(method["accuracies"]) for method in names["results"][0]["methods"]] == [3] * 5
    assert len(names["episodes"]) == 2
    assert names["page"] == Path("runs/mine/report.html")
    assert names["answers"][0]["class"] in ("ok", "broken")
    assert names["found"].finished
    for name in re.findall(r"metanas\.([A-Za-z_]+)", README.partition("## From Python")[2].partition("## ")[0]):
        assert callable(getattr(names["metanas"], name)), name
