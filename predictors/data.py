"""The evaluations that a predictor learns from, as one table of rows (architecture, task)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from predictors.features import Table

FEWEST_TASKS = 3
"""Tasks below which architectures are held out in place of tasks."""
TOGETHER = "all"
"""The task of rows that are means over whatever tasks were drawn: what a search learns from."""


@dataclass(frozen=True)
class Data:
    """Features (n, d) with targets (n,), the name of each row's task and the number of its architecture."""

    table: Table
    targets: np.ndarray
    tasks: tuple[str, ...]
    architectures: np.ndarray

    @classmethod
    def of(cls, table: Table, targets: np.ndarray, tasks: Sequence[str]) -> Self:
        """Rows that differ in nothing but the block "task" are one architecture."""
        _, architectures = np.unique(table.without("task").values, axis=0, return_inverse=True)
        return cls(table, np.asarray(targets, dtype=np.float64), tuple(tasks), architectures.reshape(-1))

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "Data":
        """Some of the rows."""
        tasks = tuple(self.tasks[row] for row in rows)
        return Data(self.table.take(rows), self.targets[rows], tasks, self.architectures[rows])

    def descriptions(self) -> dict[str, np.ndarray]:
        """The block "task" (d,) of every task; empty where the table has none."""
        if "task" not in self.table.names:
            return {}
        return dict(zip(self.tasks, self.table.block("task"), strict=True))

    @property
    def task_names(self) -> list[str]:
        """Without repeats, in order."""
        return sorted(set(self.tasks))

    @property
    def held_out_by(self) -> str:
        """What is held out to judge a model: "tasks", or "architectures" where there are too few tasks."""
        return "tasks" if len(self.task_names) >= FEWEST_TASKS else "architectures"

    def groupings(self) -> dict[str, np.ndarray]:
        """What is held out together, as numbers (n,): tasks, where there are enough, and architectures."""
        if self.held_out_by == "architectures":
            return {"architectures": self.architectures}
        _, tasks = np.unique(self.tasks, return_inverse=True)
        return {"tasks": tasks, "architectures": self.architectures}
