"""What a process holds between steps: as many networks of other sizes as one likes, and no more than they need."""

import gc
import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from weakref import ReferenceType, ref

import numpy as np
import pytest
import torch

from metanas.learning.learner import Inner, Learner
from metanas.learning.memory import keep_freed_memory, peak_memory
from metanas.spaces.space import IN_TURN, Features
from metanas.spaces.stages import Stages


def resident() -> float:
    """MiB that this process holds now, as Linux tells."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def held_after(blocks: int, keep: bool) -> float:
    """MiB that a process holds more after blocks of 24 MiB were made and freed: larger than any that imports freed.

    glibc takes blocks as large as one that was freed before from the heap, where what lies above keeps them.
    """
    if keep:
        keep_freed_memory()
    before = resident()
    made = [torch.ones(24 * 2**18) for _ in range(blocks)]
    del made
    return resident() - before


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
def test_freed_memory_is_kept() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        kept, left = (pool.submit(held_after, 8, keep).result() for keep in (True, False))
    assert kept > 150
    assert left < 50


def test_random_architectures_do_not_pile_up() -> None:
    space, rng = Stages(1), np.random.default_rng(0)
    learner = Learner.drawn(space, Inner(steps=0), "float32", torch.Generator())
    seen: list[ReferenceType[Features]] = []
    for _ in range(3 * IN_TURN):
        seen.append(ref(learner.supernet.network(space.sample(rng))))
    gc.collect()
    assert sum(network() is not None for network in seen) == IN_TURN
