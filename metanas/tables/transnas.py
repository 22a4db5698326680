"""TransNAS-Bench-101, micro space (Duan et al. 2021): 4,096 cells trained on seven vision tasks.

Read from `transnas101_micro.npz`, arrays of plain numbers. The file holds one score a task, of the last epoch on the
validation set: `test` gives the same, so a report on this table says how well a strategy optimises, not how well its
choice generalises.
"""

from pathlib import Path

import numpy as np

from metanas.tables.cell import EDGES, TableCells
from metanas.tables.table import Table, in_order, read_arrays

OPERATIONS = ("none", "skip", "conv1x1", "conv3x3")
SPACE = TableCells("transnas101-micro", OPERATIONS, skip="skip", strided=True)
TASKS = ("class_scene", "class_object", "room_layout", "jigsaw", "segmentsemantic", "normal", "autoencoder")
CELLS = ((64, 128, 32), *[(128, 128, 32)] * 3, (128, 256, 16), *[(256, 256, 16)] * 3, (256, 512, 8), (512, 512, 8))
"""Input channels, output channels and side of the maps of the ten cells, on images of 256 x 256."""
STEM = ((3, 32, 128), (32, 64, 64))
"""The same of the two 3x3 convolutions before the cells."""


def load(folder: Path) -> dict[str, Table]:
    """The seven tasks by name. Raises MetanasError when the file is missing or another."""
    path = folder / "transnas101_micro.npz"
    arrays = read_arrays(path, ("ops", "op_names", "tasks", "val_last_epoch"))
    order = in_order(arrays["ops"], arrays["op_names"], SPACE, path)
    scores = arrays["val_last_epoch"][order]  # (N, 7)
    params, macs = costs()
    return {
        str(name): Table(
            name=str(name),
            space=SPACE,
            fidelities=(1.0,),
            validation=scores[:, column][None],
            tested=scores[:, column],
            params=params,
            macs=macs,
        )
        for column, name in enumerate(arrays["tasks"])
    }


def costs() -> tuple[np.ndarray, np.ndarray]:
    """(N,) parameters, and multiply-accumulates of the convolutions, of the stem and the cells.

    What a task puts on top of them is the same for all cells.
    """
    weights, work = np.zeros((2, len(EDGES), len(OPERATIONS)), dtype=np.int64)
    for narrow, wide, side in CELLS:
        for edge, (source, _) in enumerate(EDGES):
            inputs = narrow if source == 0 else wide
            # A skip connection that changes the number of channels is a 1x1 convolution.
            kernels = {"conv1x1": 1, "conv3x3": 9} | ({"skip": 1} if inputs != wide else {})
            for operation, kernel in kernels.items():
                column = OPERATIONS.index(operation)
                weights[edge, column] += kernel * inputs * wide + 2 * wide
                work[edge, column] += kernel * inputs * wide * side**2
    genes = np.indices(SPACE.counts).reshape(len(EDGES), -1)
    edges = np.arange(len(EDGES))[:, None]
    stem_weights = sum(9 * inputs * wide + 2 * wide for inputs, wide, _ in STEM)
    stem_work = sum(9 * inputs * wide * side**2 for inputs, wide, side in STEM)
    return stem_weights + weights[edges, genes].sum(0), stem_work + work[edges, genes].sum(0)
