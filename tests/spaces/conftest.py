"""What tests of compiled operations ask for."""

import os

import pytest
import torch

from metanas.native import compiled
from metanas.spaces.maps import SOURCE


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where nothing can be compiled, which CI does not accept."""
    if isinstance(found := compiled(SOURCE, torch.float64), str):
        assert not os.environ.get("CI"), found
        pytest.skip(f"nothing can be compiled here: {found}")
