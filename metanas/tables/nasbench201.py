"""NAS-Bench-201 (Dong and Yang 2020): 15,625 cells trained on three image data sets for 12 and for 200 epochs.

Read from `nasbench201.npz` and, where it is there, `nasbench201_latency_ms.npz`, both arrays of plain numbers.
"""

from pathlib import Path

import numpy as np

from metanas.tables.cell import TableCells
from metanas.tables.table import Table, in_order, read_arrays

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SPACE = TableCells("nasbench201", OPERATIONS, skip="skip_connect", strided=False)
DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
FIDELITIES = (12 / 200, 1.0)
STAGES = ((16, 1), (32, 2), (64, 4))
"""Channels of every stage, and by how much its maps are smaller than the image."""
CELLS = 5  # a stage
SIDE = {"cifar10": 32, "cifar100": 32, "ImageNet16-120": 16}  # of the images
CLASSES = {"cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
OWN = "benchmark"
"""The device on which the authors measured their own latency."""


def load(folder: Path) -> dict[str, Table]:
    """The three data sets by name. Raises MetanasError when the file is missing or another."""
    path = folder / "nasbench201.npz"
    names = ("ops", "op_names", "datasets", "val_acc_12", "val_acc_200_seeds", "test_acc_200", "train_time_s_200")
    arrays = read_arrays(path, (*names, "params_m", "latency_s"))
    order = in_order(arrays["ops"], arrays["op_names"], SPACE, path)
    devices = _devices(folder / "nasbench201_latency_ms.npz", order)
    validation = np.nanmean(arrays["val_acc_200_seeds"], axis=2)  # (N, 3)
    tables = {}
    for column, name in enumerate(map(str, arrays["datasets"])):
        by_row = {key: arrays[key][order, column] for key in ("val_acc_12", "test_acc_200", "train_time_s_200")}
        tables[name] = Table(
            name=name,
            space=SPACE,
            fidelities=FIDELITIES,
            validation=np.stack([by_row["val_acc_12"], validation[order, column]]),
            tested=by_row["test_acc_200"],
            params=np.rint(1e6 * arrays["params_m"][order, column].astype(float)).astype(int),
            macs=macs(name),
            training=by_row["train_time_s_200"],
            latencies={OWN: arrays["latency_s"][order, column], **devices},
        )
    return tables


def macs(dataset: str) -> np.ndarray:
    """(N,) multiply-accumulates of the convolutions and the classifier on one image, in the order of a `Table`."""
    genes = np.indices(SPACE.counts).reshape(len(SPACE.counts), -1)
    per_edge = np.zeros(len(OPERATIONS), dtype=np.int64)
    total = 9 * 3 * STAGES[0][0] * SIDE[dataset] ** 2 + STAGES[-1][0] * CLASSES[dataset]
    for stage, (channels, shrink) in enumerate(STAGES):
        positions = (SIDE[dataset] // shrink) ** 2
        for operation, kernel in (("nor_conv_1x1", 1), ("nor_conv_3x3", 3)):
            per_edge[OPERATIONS.index(operation)] += CELLS * kernel**2 * channels**2 * positions
        if stage:
            # The residual block that halves the maps: two 3x3 convolutions and a 1x1 one beside them.
            narrow = STAGES[stage - 1][0]
            total += (9 * narrow * channels + 9 * channels**2 + narrow * channels) * positions
    counted: np.ndarray = total + per_edge[genes].sum(0)
    return counted


def _devices(path: Path, order: np.ndarray) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    arrays = read_arrays(path, ("devices", "latency_ms"))
    return {str(name): row[order] / 1e3 for name, row in zip(arrays["devices"], arrays["latency_ms"], strict=True)}
