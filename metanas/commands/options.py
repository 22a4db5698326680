"""What the commands have in common: options, and how an answer is printed for machines."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Data = Annotated[
    Path | None, typer.Option("--data", envvar="METANAS_DATA", help="The folder with the files of named data sets.")
]
Run = Annotated[Path, typer.Argument(help="The folder of a run, as `metanas train --out` wrote it.")]


def print_json(content: Any) -> None:
    """One document, in which null stands for what is no number, such as the interval of one episode."""
    print(json.dumps(_finite(content), allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
