"""What tests of compiled operations ask for."""

import os

import pytest
import torch

from metanas.native import lacking
from metanas.spaces import maps, winograd


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where nothing can be compiled, which CI does not accept."""
    if (found := lacking(*((source, torch.float64) for source in (maps.SOURCE, winograd.SOURCE)))) is not None:
        assert not os.environ.get("CI"), found
        pytest.skip(f"nothing can be compiled here: {found}")
