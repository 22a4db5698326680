"""What is installed and how: the wheel, the constraints, the README's commands, a quick import."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"metanas", "predictors", "tasks"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)
README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
SHELL = [
    line.strip().removeprefix("$ ")
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", README.replace("\\\n", " "), re.DOTALL)
    for line in block.splitlines()
]
in_ci = pytest.mark.skipif(not os.environ.get("CI"), reason="holds for a set-up by the constraints file: CI's")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def requirement_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9-]", requirement)[0].lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


class TestWheel:
    def test_holds_the_three_typed_packages_and_nothing_else(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
        assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
        sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
        assert sources == {name for name in names if name.endswith(".py")}

    def test_imports_without_the_checkout(self, wheel: Path, tmp_path: Path) -> None:
        program = "import metanas, tasks, predictors; print(metanas.__file__, tasks.__file__, predictors.__file__)"
        files = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(wheel)).split()
        assert all(file.startswith(str(wheel)) for file in files)
        assert len(files) == 3

    def test_asks_for_lower_bounds_only(self, wheel: Path) -> None:
        archive = zipfile.ZipFile(wheel)
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        asked = [line.split(";")[0].strip() for line in metadata.get_all("Requires-Dist", [])]
        assert len(asked) >= len(PROJECT["dependencies"])
        assert [line for line in asked if not re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+", line)] == []


class TestConstraints:
    def test_are_names_and_versions_only(self) -> None:
        wrong = {name: pin for name, pin in PINS.items() if not re.fullmatch(r"[a-z0-9-]+==[\d.]+", f"{name}=={pin}")}
        assert wrong == {}
        assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]

    def test_name_every_dependency(self) -> None:
        extras = PROJECT["optional-dependencies"]
        asked = [*PROJECT["dependencies"], *extras["dev"], *extras["parquet"], "learn2learn"]
        assert {requirement_name(line) for line in asked} <= PINS.keys()

    @in_ci
    def test_are_what_is_installed(self) -> None:
        installed = {name: version(name).split("+")[0] for name in PINS}
        assert installed == PINS


class TestImport:
    def test_metanas_is_quick_and_silent(self, tmp_path: Path) -> None:
        heavy = ("torch", "ray", "learn2learn", "sklearn", "pandas", "matplotlib")
        program = f"import sys, metanas; sys.exit([name for name in {heavy} if name in sys.modules] or 0)"
        assert run(sys.executable, "-W", "error", "-c", program, cwd=tmp_path) == ""

    @pytest.mark.parametrize("name", ["algorithms", "data", "vision.datasets", "vision.transforms"])
    def test_learn2learn_loads(self, name: str) -> None:
        if not os.environ.get("CI"):
            pytest.importorskip("learn2learn", reason="learn2learn could not be built here, see `make setup`")
        importlib.import_module(f"learn2learn.{name}")


@pytest.mark.skipif(not README, reason="there is no README.md")
class TestReadme:
    def test_files_it_links_to_exist(self) -> None:
        links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in link]
        assert [link for link in links if not (ROOT / link).exists()] == []

    def test_make_targets_exist(self) -> None:
        targets = {target for line in SHELL for target in re.findall(r"^make ([a-z]+)", line)}
        assert {"demo", "test"} <= targets
        assert targets <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
