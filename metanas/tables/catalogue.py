"""The tables by the names of their data sets and tasks."""

from pathlib import Path

from metanas.errors import MetanasError
from metanas.tables import nasbench201, transnas
from metanas.tables.table import Table

NAMES = (*nasbench201.DATASETS, *transnas.TASKS)


def load_table(folder: Path, name: str) -> Table:
    """One table. Raises MetanasError for an unknown name, and for a file that is missing or another."""
    if name not in NAMES:
        raise MetanasError(f"there is no table '{name}'; name one of {', '.join(NAMES)}.")
    load = nasbench201.load if name in nasbench201.DATASETS else transnas.load
    return load(folder)[name]
