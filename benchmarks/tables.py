"""The public benchmark tables that benchmarks read: NAS-Bench-201 and TransNAS-Bench-101 (micro)."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metanas.errors import MetanasError
from predictors.features import Table
from predictors.graphs import IDENTITY, Graph, graph_blocks

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Of both tables' cells, in the order of their genes."""
LONGEST = 3
"""Operations on the longest path from node 0 to node 3."""
CELLS, WIDTHS, SIZES = 5, (16, 32, 64), (32, 16, 8)
"""NAS-Bench-201: cells a stage, channels and resolution of the stages (Dong and Yang 2020, section 2.1)."""


@dataclass(frozen=True)
class Benchmark:
    """Architectures of a cell of four nodes with their accuracies, larger is better.

    `genes` (n, 6) are operations by edge; `validation` and `test` (n, T) of `tasks`; `twins` (n,) numbers the graphs
    that are equal by construction (as far as they were told apart).
    """

    genes: np.ndarray
    operations: tuple[str, ...]
    tasks: tuple[str, ...]
    validation: np.ndarray
    test: np.ndarray
    twins: np.ndarray
    features: Table

    def __len__(self) -> int:
        return len(self.genes)


def tables_folder(asked: Path | None) -> Path:
    """`asked`, else METANAS_NASBENCH, else ../shared/nasbench beside the checkout. Raises MetanasError."""
    named = os.environ.get("METANAS_NASBENCH")
    beside = Path(__file__).resolve().parents[2] / "shared" / "nasbench"
    folder = asked or (Path(named) if named else beside)
    if not (folder / "nasbench201.npz").is_file():
        raise MetanasError(
            f"'{folder}' holds no nasbench201.npz; say where the tables lie with --tables DIR or METANAS_NASBENCH."
        )
    return folder


def nasbench201(folder: Path) -> Benchmark:
    """15,625 architectures of NAS-Bench-201; validation is the mean of the seeds."""
    with np.load(folder / "nasbench201.npz", allow_pickle=False) as file:
        genes, names = file["ops"].astype(np.int64), tuple(str(name) for name in file["op_names"])
        validation = np.nanmean(file["val_acc_200_seeds"].astype(np.float64), axis=2)
        params = 1e6 * file["params_m"][:, 0].astype(np.float64)
        costs = np.log(np.stack([params, _macs(genes, names)], 1))
        return Benchmark(
            genes,
            names,
            tuple(str(name) for name in file["datasets"]),
            validation,
            file["test_acc_200"].astype(np.float64),
            file["unique_id"].astype(np.int64),
            _features(genes, names, [("costs", costs)]),
        )


def transnas(folder: Path) -> Benchmark:
    """4,096 architectures of TransNAS-Bench-101 (micro); its tables hold one metric, which is searched and reported."""
    with np.load(folder / "transnas101_micro.npz", allow_pickle=False) as file:
        genes, names = file["ops"].astype(np.int64), tuple(str(name) for name in file["op_names"])
        metric = file["val_last_epoch"].astype(np.float64)
        tasks = tuple(str(name) for name in file["tasks"])
    return Benchmark(genes, names, tasks, metric, metric, np.arange(len(genes)), _features(genes, names, []))


def graph(genes: np.ndarray, names: tuple[str, ...]) -> Graph:
    """The cell: what does nothing is left out, the identity named."""
    able = _able(names)
    edges = []
    for (source, target), gene in zip(EDGES, genes.tolist(), strict=True):
        if names[gene] != "none":
            edges.append((source, target, able.index(names[gene]) if names[gene] in able else IDENTITY))
    return Graph(4, (0,), tuple(edges))


def _able(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name not in ("none", "skip_connect", "skip")]


def _features(genes: np.ndarray, names: tuple[str, ...], others: list[tuple[str, np.ndarray]]) -> Table:
    onehot = np.eye(len(names))[genes].reshape(len(genes), -1)
    graphs = [[graph(row, names)] for row in genes]
    able = _able(names)
    weighted = [number for number, name in enumerate(able) if "conv" in name]
    return Table.of([("architecture", onehot), *graph_blocks(graphs, len(able), weighted, LONGEST), *others])


def _macs(genes: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Multiply-accumulates (n,) of the convolutions; what all architectures share (stem, reductions, head) counts."""
    per_stage = [width * width * size * size for width, size in zip(WIDTHS, SIZES, strict=True)]
    cell = CELLS * sum(per_stage)
    kernel = np.array([{"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(name, 0) for name in names])
    stem = 3 * 9 * WIDTHS[0] * SIZES[0] ** 2
    # A reduction halves the resolution: 3x3 from half the channels, 3x3, and a 1x1 shortcut from half the channels.
    reductions = sum(macs * (9 / 2 + 9 + 1 / 2) for macs in per_stage[1:])
    macs: np.ndarray = kernel[genes].sum(1) * cell + stem + reductions + 640.0
    return macs
