"""The work of benchmarks on an ordinary task: 43 traffic signs of METANAS_DATA, 16x16, and cells that a CPU can train.

The operations are those of NAS-Bench-201. Signs of one track, filmed from one passing car, lie in one part alone.
Budgets are minutes of one core that this process used (one thread), so that what else the machine does decides nothing.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.samples import Classification, split_task
from metanas.measuring.standalone import Classifier, Training, make_classifier, train_alone
from metanas.spaces.cells import Cells
from tasks.sources import Where, load_source
from tasks.task import ImageForm

SIZE = 16
SPACE = Cells(channels=3, nodes=3, width=8, operations=("none", "skip_connect", "avg_pool_3x3", "conv_1x1", "conv_3x3"))
TRAINING = Training(optimizer="sgd", rate=0.05, weight_decay=3e-4)


def signs(seed: int) -> Classification:
    """The task in its three parts."""
    if "METANAS_DATA" not in os.environ:
        raise MetanasError("METANAS_DATA names no folder: set it to the one that holds gtsrb.npz or gtsrb/GTSRB.")
    where = Where(data=Path(os.environ["METANAS_DATA"]))
    (task,) = load_source("gtsrb", "signs", ImageForm(SIZE, SPACE.channels), where, {})
    return split_task(task, seed)


def alone(architecture: Architecture, task: Classification, epochs: int, seed: int) -> tuple[Classifier, float]:
    """An architecture trained from freshly drawn weights, and its validation accuracy at the end."""
    network = make_classifier(SPACE, architecture, task.train.ways, SIZE, seed)
    return network, train_alone(network, task.train, task.validation, replace(TRAINING, epochs=epochs), seed)[-1]


def budget(minutes: float) -> Callable[[int], float]:
    """From steps, which do not matter, to the part of the minutes that is used; they begin now."""
    started = time.process_time()
    return lambda steps: (time.process_time() - started) / (60 * minutes)


def single_thread() -> None:
    """Makes the time of the process that of one core."""
    torch.set_num_threads(1)
