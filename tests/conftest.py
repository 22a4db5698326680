"""What all tests share: real data, an image cache and one thread, a compiler, and hypothesis without a clock."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from metanas.native import lacking
from metanas.spaces import fused, images, winograd

# A busy machine makes no test fail: what takes long is no mistake.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that METANAS_DATA names; tests that need it are skipped without it."""
    named = os.environ.get("METANAS_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("METANAS_DATA names no folder of real data")
    return Path(named)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The image cache of the user stays untouched, and no test finds the rows of an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METANAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As every worker computes: sums of several threads differ in their last bits, and so would equal runs."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where nothing can be compiled, which CI does not accept."""
    sources = (fused.SOURCE, images.SOURCE, winograd.SOURCE)
    if (found := lacking(*((source, torch.float64) for source in sources))) is not None:
        assert not os.environ.get("CI"), found
        pytest.skip(f"nothing can be compiled here: {found}")
