"""The work of benchmarks that need no data set: few-shot episodes of the handwritten digits of scikit-learn, 28x28."""

from typing import Any

from metanas.config import RunConfig
from metanas.parsing import parse


def configuration(queries: int = 15, shots: int = 1, **changes: Any) -> RunConfig:
    """A run of 5-way episodes; `changes` replace whole sections."""
    draw = {"ways": 5, "shots": shots, "queries": queries}
    content = {
        "name": "digits",
        "pool": {
            "name": "digits",
            "sources": [{"name": "digits", "kind": "sklearn", "set": "digits"}],
            "splits": {"by": "list", "train": {"digits": list("01234")}, "validation": {"digits": list("56789")}},
        },
        "image": {"size": 28},
        "train": draw,
        "validation": draw,
        "test": [{"name": "none", "draw": draw}],
        "space": {"options": {"norms": ["sample"]}},
        "precision": "auto",
        "workers": 2,
    }
    return parse(RunConfig, content | changes, "the benchmark")
