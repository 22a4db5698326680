"""C beside its Python, compiled for this very processor when first asked for and kept in the cache folder."""

import ctypes
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from metanas.caching import cache_folder

FLAGS = (
    *("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-fvisibility=hidden", "-shared", "-fPIC"),
)
NUMBERS: Mapping[torch.dtype, str] = {
    torch.float64: "-DREAL=double",
    torch.float32: "-DREAL=float",
    torch.bfloat16: "-DBFLOAT16",
}
"""The types of numbers that a file can be compiled for."""

_ELEMENTARY: ContextVar[bool] = ContextVar("elementary", default=False)


@contextmanager
def elementary() -> Iterator[None]:
    """While entered, everything is done by tensor operations, for those who look at each."""
    token = _ELEMENTARY.set(True)
    try:
        yield
    finally:
        _ELEMENTARY.reset(token)


def takes(source: Path, x: Tensor) -> bool:
    """Whether what is compiled of `source` can compute on x: numbers in memory, not those of `torch.func.vmap`, say."""
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    in_memory = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"
    if _ELEMENTARY.get() or transformed or not in_memory or x.dtype not in NUMBERS:
        return False
    return isinstance(compiled(source, x.dtype), ctypes.CDLL)


def lacking(*wanted: tuple[Path, torch.dtype]) -> str | None:
    """Why one of the files cannot be compiled for its type of numbers, or None."""
    return next((found for each in wanted if isinstance(found := compiled(*each), str)), None)


def library(source: Path, numbers: torch.dtype) -> ctypes.CDLL:
    """The compiled code, which must be there."""
    found = compiled(source, numbers)
    assert isinstance(found, ctypes.CDLL), found
    return found


def laid_out(map_: Tensor) -> Tensor:
    """A map (N, C, H, W) in the layout that the compiled code reads."""
    return map_.contiguous(memory_format=torch.channels_last)


def address(array: Tensor | None) -> ctypes.c_void_p:
    """A null pointer for None."""
    return ctypes.c_void_p(None if array is None else array.data_ptr())


@cache
def compiled(source: Path, numbers: torch.dtype) -> ctypes.CDLL | str:
    """The functions of a C file, or one line that says why they cannot be had."""
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, NUMBERS[numbers]]
    key = hashlib.sha256(repr((command, source.read_bytes(), _processor())).encode()).hexdigest()[:24]
    library = cache_folder() / "native" / f"{source.stem}-{key}.so"
    try:
        if not library.exists():
            _compile([*command, str(source), "-lm"], library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        said: list[str] = error.stderr.strip().splitlines()
        return said[0] if said else str(error)
    except OSError as error:
        return str(error)


def _compile(command: list[str], library: Path) -> None:
    """Several processes may do this at once: each puts a whole file in its place."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True)
        made.replace(library)


def _processor() -> str:
    """What tells processors apart that do not run each other's code: a cache folder may be that of many machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
    return f"{platform.machine()} {features}"
