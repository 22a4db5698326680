"""What the commands have in common: options, and how an answer is printed for machines."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Data = Annotated[
    Path | None, typer.Option("--data", envvar="METANAS_DATA", help="The folder with the files of named data sets.")
]
Run = Annotated[Path, typer.Argument(help="The folder of a run, as `metanas train --out` wrote it.")]


def print_json(content: Any) -> None:
    """One document."""
    print(json.dumps(content))
