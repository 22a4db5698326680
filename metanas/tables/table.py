"""One data set of a tabular benchmark: what an evaluator may look up to search, and what only a report may."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from metanas.api import Architecture, Candidate, Cost
from metanas.errors import MetanasError
from metanas.tables.cell import TableCells

VARIABLE = "METANAS_NASBENCH"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows lie in the order of the genes, the last changing fastest. Scores are the benchmark's, larger is better."""

    name: str
    space: TableCells
    fidelities: tuple[float, ...]  # the shares of a full training after which validation was measured, ascending
    validation: np.ndarray  # (F, N)
    tested: np.ndarray  # (N,), after full training
    params: np.ndarray  # (N,)
    macs: np.ndarray  # (N,)
    training: np.ndarray | None = None  # (N,) seconds of a full training
    latencies: Mapping[str, np.ndarray] = field(default_factory=dict)  # (N,) seconds on each device
    device: str | None = None  # the one whose latency `cost` gives

    def on(self, device: str) -> "Table":
        """The same table, with the latency on a device among the costs. Raises MetanasError for an unknown device."""
        if device not in self.latencies:
            raise MetanasError(
                f"the table '{self.name}' has no latency on the device '{device}'; it has "
                f"{', '.join(self.latencies) or 'none'}."
            )
        return replace(self, device=device)

    def validate(self, architecture: Architecture, fidelity: float = 1.0) -> float:
        """The validation score after a share of the full training, mean over seeds: to search by."""
        if fidelity not in self.fidelities:
            raise MetanasError(
                f"the table '{self.name}' has no measurements after {fidelity:g} of the training; its fidelities are "
                f"{', '.join(f'{share:g}' for share in self.fidelities)}."
            )
        return float(self.validation[self.fidelities.index(fidelity), self.row(architecture)])

    def test(self, architecture: Architecture) -> float:
        """The test score after full training, mean over seeds: only to report, never to search by."""
        return float(self.tested[self.row(architecture)])

    def seconds(self, architecture: Architecture) -> float | None:
        """How long its full training took, None where the benchmark does not say."""
        return None if self.training is None else float(self.training[self.row(architecture)])

    def latency(self, architecture: Architecture, device: str) -> float:
        """Seconds of one batch on a device, as the benchmark measured it."""
        return float(self.on(device).latencies[device][self.row(architecture)])

    def cost(self, architecture: Architecture) -> Cost:
        row = self.row(architecture)
        latency = None if self.device is None else float(self.latencies[self.device][row])
        return Cost(int(self.params[row]), int(self.macs[row]), latency)

    def row(self, architecture: Architecture) -> int:
        row = 0
        for gene, count in zip(architecture, self.space.counts, strict=True):
            row = row * count + gene
        return row


class LookUp:
    """An evaluator that looks results up and counts what measuring them would have cost.

    `trainings` counts full trainings, a share of one as that share; `seconds` is the simulated clock. A training that
    goes on from a lower fidelity pays for the rest only.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.trainings = 0.0
        self.seconds: float | None = None if table.training is None else 0.0
        self._paid: dict[Architecture, float] = {}

    def __call__(self, architecture: Architecture, fidelity: float = 1.0) -> Candidate:
        """Measures one architecture."""
        accuracy = self.table.validate(architecture, fidelity)
        share = max(0.0, fidelity - self._paid.get(architecture, 0.0))
        self._paid[architecture] = max(fidelity, self._paid.get(architecture, 0.0))
        self.trainings += share
        seconds = self.table.seconds(architecture)
        if self.seconds is not None and seconds is not None:
            self.seconds += share * seconds
        return Candidate(architecture, accuracy, self.table.cost(architecture))


def tables_folder(named: Path | None = None) -> Path:
    """Where the tables lie: the named folder, METANAS_NASBENCH, or ../shared/nasbench beside the checkout.

    Raises MetanasError when there is none.
    """
    beside = Path(__file__).parents[3] / "shared" / "nasbench"
    folder = named or Path(os.environ.get(VARIABLE) or beside)
    if not folder.is_dir():
        raise MetanasError(
            f"there are no benchmark tables in '{folder}'; name their folder with --tables DIR or {VARIABLE}."
        )
    return folder


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name, without pickle. Raises MetanasError when it has not all of them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise MetanasError(
            f"'{path}' is not the table that was expected, an .npz file of {', '.join(names)} ({error})."
        ) from error


def in_order(operations: np.ndarray, table_names: np.ndarray, space: TableCells, path: Path) -> np.ndarray:
    """(N,) the row of a file for every row of a `Table`, of its `operations` (N, 6), which index `table_names`.

    Raises MetanasError when the file has not every architecture of the space exactly once.
    """
    if set(map(str, table_names)) == set(space.operations) and operations.shape == (space.size(), len(space.counts)):
        genes = np.array([space.operations.index(str(name)) for name in table_names])[operations]
        rows = np.ravel_multi_index(tuple(genes.T), space.counts)
        order = np.argsort(rows)
        if (rows[order] == np.arange(space.size())).all():
            return order
    raise MetanasError(
        f"'{path}' must list each of the {space.size():,} cells of {', '.join(space.operations)} once, in op_names and "
        "ops."
    )
