"""What tests of commands share."""

from pathlib import Path

import numpy as np
import pytest

from metanas.tables import transnas
from tests.searches import write_spots
from tests.tables.test_tables import write201


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a task and of the tables of two benchmarks; in the second all tasks order the cells alike."""
    folder = tmp_path_factory.mktemp("data")
    write_spots(folder)
    write201(folder)
    operations = np.array(list(np.ndindex(*transnas.SPACE.counts)), dtype=np.int8)
    np.savez(
        folder / "transnas101_micro.npz",
        ops=operations,
        op_names=np.array(transnas.OPERATIONS),
        tasks=np.array(transnas.TASKS),
        val_last_epoch=np.arange(7.0 * len(operations)).reshape(-1, 7),
    )
    return folder
