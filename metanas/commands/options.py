"""What the commands have in common: options, what is laid over a configuration, answers printed for machines."""

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
Settings = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE over the file, repeatable.")]
HoldOut = Annotated[str | None, typer.Option(help="A source, or a task of one, to test on alone.")]
Workers = Annotated[int | None, typer.Option(help="Ray actors; 0 runs in this process.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Download = Annotated[bool, typer.Option("--download", help="Allow named data sets to be downloaded.")]


def over(named: dict[str, Any], settings: list[str] | None) -> list[str]:
    """What options of their own and --set say of a configuration, the latter last."""
    return [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None] + (settings or [])


def print_json(content: Any) -> None:
    """One document, in which null stands for what is no number, such as the interval of one episode."""
    print(json.dumps(_finite(content), allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
