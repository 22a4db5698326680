"""What tests of commands share."""

from pathlib import Path

import pytest

from tests.searches import write_spots
from tests.tables.test_tables import write201


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task and of a benchmark's tables."""
    folder = tmp_path_factory.mktemp("data")
    write_spots(folder)
    write201(folder)
    return folder
