"""What a predictor sees of an architecture and a task: a table of columns in named blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

BLOCKS = ("architecture", "paths", "graph", "adjacency", "costs", "latency", "zero-cost", "task")
"""The blocks we know: one-hot genes; counts of paths; graph statistics; edges as a graph network reads them; logarithms
of parameters and multiply-accumulates; the logarithm of the seconds; scores of the untrained network; a task's
description, which is the same in all rows of the task."""
Layout = tuple[tuple[str, int], ...]
"""Names and widths of blocks, in the order of their columns."""


@dataclass(frozen=True)
class Table:
    """Rows (n, d) whose columns lie in the blocks of `layout`."""

    values: np.ndarray
    layout: Layout

    def __post_init__(self) -> None:
        width = sum(width for _, width in self.layout)
        if self.values.ndim != 2 or self.values.shape[1] != width:
            raise ValueError(f"a table of the blocks {dict(self.layout)} is (n, {width}), not {self.values.shape}")

    @classmethod
    def of(cls, blocks: Iterable[tuple[str, np.ndarray]]) -> Self:
        """Blocks (n, d_i) side by side."""
        named = [(name, np.asarray(block, dtype=np.float64)) for name, block in blocks]
        return cls(np.hstack([block for _, block in named]), tuple((name, block.shape[1]) for name, block in named))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the blocks."""
        return tuple(name for name, _ in self.layout)

    def block(self, name: str) -> np.ndarray:
        """The columns of one block, (n, d_i). Raises KeyError where the table has none."""
        return self.values[:, columns(self.layout, name)]

    def take(self, rows: np.ndarray | Sequence[int]) -> "Table":
        """Some of the rows."""
        return Table(self.values[rows], self.layout)

    def only(self, *names: str) -> "Table":
        """The table of some of the blocks, in the order of `names`. Raises KeyError where it lacks one."""
        return Table.of((name, self.block(name)) for name in names)

    def without(self, *names: str) -> "Table":
        """The table with blocks left out."""
        return self.only(*(name for name in self.names if name not in names))

    def beside(self, name: str, block: np.ndarray) -> "Table":
        """The table with one more block (n, d_i)."""
        return Table.of([*((own, self.block(own)) for own in self.names), (name, block)])


def columns(layout: Layout, name: str) -> slice:
    """Where a block lies. Raises KeyError where the layout has none."""
    start = 0
    for block, width in layout:
        if block == name:
            return slice(start, start + width)
        start += width
    raise KeyError(name)
