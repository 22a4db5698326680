"""What this machine offers, and what stands in the way; it imports nothing that could itself be in the way."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metanas.caching import cache_folder

_GIB = 2**30

# Each is loaded in a fresh interpreter: a library that crashes takes only that one with it.
_LIBRARIES = (
    (
        "torch",
        # Running an operator of torchvision fails where the two are not builds of one another.
        "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5); "
        "print('torch', torch.__version__, 'with torchvision', torchvision.__version__)",
        "install the torch and torchvision of constraints.txt together",
    ),
    ("ray", "import ray; print('ray', ray.__version__)", "run with --workers 0, which does without ray"),
    (
        "learn2learn",
        "import learn2learn; print('learn2learn', learn2learn.__version__)",
        "only its own task sets need it: install a C compiler, then run 'make -B setup'",
    ),
    (
        "compiled code",
        "import os, sys, tempfile, torch\n"
        "from metanas.native import lacking\n"
        "from metanas.spaces import fused, images, winograd\n"
        "with tempfile.TemporaryDirectory() as os.environ['METANAS_CACHE']:\n"
        "    single = ((source, torch.float32) for source in (images.SOURCE, winograd.SOURCE))\n"
        "    why = lacking((fused.SOURCE, torch.bfloat16), *single)\n"
        "sys.exit(why) if why else print('made for this processor')",
        "install a C compiler or name it in CC: without it training takes up to twice as long",
    ),
    (
        "precision",
        "import torch\n"
        "from metanas.learning.learner import native_precision\n"
        "device = 'cuda' if torch.cuda.is_available() else 'cpu'\n"
        "found, name = native_precision(device), 'processor' if device == 'cpu' else 'GPU'\n"
        "has = 'has instructions for bfloat16' if found == 'bfloat16' else 'would have to emulate bfloat16'\n"
        "print(f'auto is {found}: the {name} {has}')",
        "reinstall torch",
    ),
)

# Where the common data sets lie in a data folder: single files, or torchvision's layout.
_DATA_SETS = {
    "omniglot": ("omniglot_images_background.npz", "omniglot-py"),
    "cifar100": ("cifar100_test.npz", "cifar-100-python"),
    "gtsrb": ("gtsrb.npz", "gtsrb"),
    "tiny-imagenet": ("tiny_imagenet_val.zip",),
    "emnist": ("EMNIST/raw",),
    "fashion-mnist": ("FashionMNIST/raw",),
    "neu": ("neu_det.npz",),
    "x-sdd": ("factory/x_sdd",),
    "deeppcb": ("deeppcb_crops.npz",),
    "elpv": ("elpv.npz",),
}


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it is as it should be, what was found, and what to do about it."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def check_machine(data: Path | None, folder: Path | None = None) -> list[Check]:
    """Looks at interpreter, libraries, machine and data; takes some seconds, as it loads the large libraries.

    `data` is the folder with the data sets if one is named, `folder` the working folder, by default the current one.
    """
    folder = folder or Path.cwd()
    return [
        _python(),
        *(_library(*library) for library in _LIBRARIES),
        _machine(),
        _disk(folder),
        _cache(),
        _data(data),
        _names(folder),
    ]


def shadows(folder: Path) -> list[Path]:
    """Files that Python takes, or would take if run in `folder`, for one of our three packages."""
    return list(dict.fromkeys(path for path in _candidates(folder) if path.is_file() and not _is_ours(path)))


def _candidates(folder: Path) -> Iterator[Path]:
    for package in ("metanas", "tasks", "predictors"):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            yield Path(found.origin)
        yield folder / f"{package}.py"
        yield folder / package / "__init__.py"


def _is_ours(path: Path) -> bool:
    return path.resolve().parents[1] == Path(__file__).resolve().parents[2] and path.name == "__init__.py"


def _check(name: str, ok: bool, detail: str, advice: str) -> Check:
    return Check(name, ok, detail, "" if ok else advice)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return _check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _library(name: str, statement: str, advice: str) -> Check:
    done = subprocess.run([sys.executable, "-P", "-c", statement], capture_output=True, text=True, check=False)
    ok = done.returncode == 0
    lines = (done.stdout if ok else done.stderr).strip().splitlines()
    return _check(name, ok, lines[-1] if lines else f"the interpreter ended with status {done.returncode}", advice)


def _machine() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    detail = f"{cores} cores, {memory:.0f} GiB of memory"
    return _check("machine", memory >= 4, detail, "run with one worker: each takes about 1 GiB")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / _GIB
    return _check("disk", free >= 1, f"{free:.0f} GiB free in {folder}", "make room: a run and its cache take 1 GiB")


def _cache() -> Check:
    cache = cache_folder().absolute()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    detail = f"{cache} {'can' if ok else 'cannot'} be written"
    return _check("cache", ok, detail, "set METANAS_CACHE to a folder that you may write to")


def _data(data: Path | None) -> Check:
    if data is None:
        return _check(
            "data", True, "no data folder is named (--data or METANAS_DATA); the built-in glyphs need none", ""
        )
    found = [name for name, places in _DATA_SETS.items() if any((data / place).exists() for place in places)]
    known = ", ".join(found) or "none of the data sets known by name"
    detail = f"{data} holds {known}" if data.is_dir() else f"{data} is no folder"
    return _check("data", data.is_dir(), detail, "name another with --data or METANAS_DATA")


def _names(folder: Path) -> Check:
    found = ", ".join(str(path) for path in shadows(folder))
    detail = f"{found} is in the way of metanas's own" if found else f"nothing in {folder} is in the way of metanas"
    return _check("names", not found, detail, "rename it or work in another folder")
