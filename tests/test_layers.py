"""The arrows between the modules, and that the guard which holds them bites."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("metanas", "predictors", "tasks")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter with the project's own rules, over the packages that lie in `folder`."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_arrow_points_down() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("metanas/errors.py", "from metanas.search import loop", "Modules import only from those below them"),
        ("tasks/task.py", "from metanas.learning import supernet", "Modules import only from those below them"),
        ("tasks/task.py", "import predictors", "Modules import only from those below them"),
        (
            "metanas/spaces/space.py",
            "from tasks import task",
            "Spaces, strategies and predictors know nothing of tasks",
        ),
        ("metanas/spaces/space.py", "from predictors import forest", "Spaces know nothing of predictors"),
        ("metanas/search/loop.py", "from tasks.task import Task", "Search and meta-training see tasks only through"),
        (
            "metanas/learning/executor.py",
            "from metanas import config",
            "Search and meta-training see tasks only through",
        ),
        ("metanas/learning/inner.py", "from metanas.learning import learner", "No two modules or packages import each"),
        ("metanas/strategies/evolution.py", "import torch", "Strategies do without torch"),
        ("metanas/search/loop.py", "import ray", "Only the executor imports ray"),
        ("tasks/task.py", "import ray.util", "Only the executor imports ray"),
    ],
)
def test_a_wrong_arrow_is_caught(copy: Path, module: str, line: str, broken: str) -> None:
    path = copy / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1
    assert any(line.startswith(broken) and "BROKEN" in line for line in result.stdout.splitlines()), result.stdout


def test_no_module_is_left_out_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {name for layer in layers for name in layer.replace("|", " ").replace(":", " ").split()}
    modules = {f"metanas.{path.stem}" for path in (ROOT / "metanas").glob("*.py") if path.stem != "__init__"}
    packages = {f"metanas.{path.parent.name}" for path in (ROOT / "metanas").glob("*/__init__.py")}
    assert named == modules | packages | {"tasks", "predictors"}
