"""What a process holds between steps: as many networks of other sizes as one likes, and no more than they need."""

import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from metanas.learning.learner import Inner, Learner
from metanas.learning.memory import give_back_freed_memory, keep_freed_memory, peak_memory
from metanas.learning.worker import TIDY, Worker
from metanas.spaces.conv4 import Conv4


def resident() -> float:
    """MiB that this process holds now, as Linux tells."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def held_after(blocks: int, give_back: bool) -> float:
    """MiB that a process holds more after blocks of 1 MiB were made and freed."""
    keep_freed_memory()
    before = resident()
    made = [torch.ones(2**18) for _ in range(blocks)]
    made = made[-1:]  # what is still in use lies above what is free
    if give_back:
        give_back_freed_memory()
    return resident() - before - len(made)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere nothing better is known")
def test_the_peak_is_of_this_process_not_of_the_one_that_started_it() -> None:
    large = torch.ones(2**28)  # 1 GiB
    imported = "from metanas.learning.memory import peak_memory as peak"
    grown = f"{imported}; before = peak(); held = bytearray(200 * 2**20); print(before, peak())"
    own = subprocess.run([sys.executable, "-c", grown], check=True, capture_output=True, text=True).stdout
    before, after = map(float, own.split())
    assert peak_memory() > 4 * large.numel() / 2**20
    assert before < 700
    assert 190 < after - before < 210


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory is told what to keep")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        kept, left = (pool.submit(held_after, 200, give_back).result() for give_back in (False, True))
    assert kept > 150
    assert left < 20


def test_training_gives_it_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    worker = Worker({"net": Learner.drawn(Conv4(1), Inner(steps=0), "float32", torch.Generator())}, {})
    monkeypatch.setattr("metanas.learning.worker.give_back_freed_memory", lambda: given_back.append(1))
    times = []
    for _ in range(2 * TIDY):
        worker.update("net", [], 1e-3)
        times.append(len(given_back))
    assert times == [0] * (TIDY - 1) + [1] * TIDY + [2]
