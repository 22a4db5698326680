"""The check of the machine: what it finds, and that it points at what is in the way."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metanas.commands import doctor
from metanas.commands.doctor import Check, check_machine, shadows
from metanas.learning.learner import native_precision

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "not" / "there" / "yet"))
    return tmp_path / "not" / "there" / "yet"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Leaves out the large libraries, which have a test of their own."""
    monkeypatch.setattr(doctor, "_LIBRARIES", ())


def check(name: str, data: Path | None, folder: Path) -> Check:
    (found,) = (check for check in check_machine(data, folder) if check.name == name)
    return found


def test_this_machine_passes_but_for_what_is_not_installed(cache: Path, tmp_path: Path) -> None:
    checks = {check.name: check for check in check_machine(None, tmp_path)}
    assert list(checks) == [
        *(
            "python",
            "torch",
            "ray",
            "learn2learn",
            "compiled code",
            "precision",
            "machine",
            "disk",
            "cache",
            "data",
            "names",
        )
    ]
    assert checks["learn2learn"].ok == (importlib.util.find_spec("learn2learn") is not None)
    assert {name for name, check in checks.items() if not check.ok} <= {
        "learn2learn",
        "compiled code",
        "machine",
        "disk",
    }
    assert checks["precision"].detail.startswith(f"auto is {native_precision('cpu')}: the processor ")
    assert all(check.detail and bool(check.advice) == (not check.ok) for check in checks.values())
    assert not cache.exists()


def test_a_library_that_crashes_is_told(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    broken = (
        ("raises", "raise RuntimeError('operator torchvision::nms does not exist')", "reinstall"),
        ("crashes", "import os; os.abort()", "reinstall"),
    )
    monkeypatch.setattr(doctor, "_LIBRARIES", broken)
    raises = check("raises", None, tmp_path)
    assert (raises.ok, raises.advice) == (False, "reinstall")
    assert raises.detail == "RuntimeError: operator torchvision::nms does not exist"
    crashes = check("crashes", None, tmp_path)
    assert not crashes.ok
    assert "status -6" in crashes.detail


@pytest.mark.usefixtures("quick")
class TestFolders:
    def test_data_sets_are_found_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "neu_det.npz").touch()
        (tmp_path / "cifar-100-python").mkdir()
        found = check("data", tmp_path, tmp_path)
        assert found.ok
        assert found.detail == f"{tmp_path} holds cifar100, neu"

    def test_an_empty_data_folder_is_told(self, tmp_path: Path) -> None:
        assert "none of the data sets" in check("data", tmp_path, tmp_path).detail

    def test_a_missing_data_folder_is_told(self, tmp_path: Path) -> None:
        found = check("data", tmp_path / "nowhere", tmp_path)
        assert not found.ok
        assert "nowhere" in found.detail

    def test_a_file_in_place_of_the_cache_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("METANAS_CACHE", str(tmp_path / "file" / "cache"))
        assert not check("cache", None, tmp_path).ok


class TestShadows:
    def test_our_own_packages_are_not_in_the_way(self) -> None:
        assert shadows(ROOT) == []

    @pytest.mark.parametrize("name", ["tasks.py", "predictors.py", "metanas.py", "tasks/__init__.py"])
    @pytest.mark.usefixtures("quick")
    def test_a_users_file_is_named(self, name: str, tmp_path: Path) -> None:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
        assert shadows(tmp_path) == [file]
        found = check("names", None, tmp_path)
        assert not found.ok
        assert str(file) in found.detail

    def test_a_folder_of_data_named_like_a_package_is_harmless(self, tmp_path: Path) -> None:
        (tmp_path / "tasks" / "line 3").mkdir(parents=True)
        assert shadows(tmp_path) == []

    def test_the_doctor_works_though_a_users_file_hides_ours(self, tmp_path: Path) -> None:
        (tmp_path / "tasks.py").write_text("jobs = []\n")
        program = (
            "from pathlib import Path; from metanas.commands import doctor; doctor._LIBRARIES = ()\n"
            "print([check.name for check in doctor.check_machine(None, Path('/')) if not check.ok])\n"
            "print(*doctor.shadows(Path('/')))"
        )
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["['names']", str(tmp_path / "tasks.py")]
