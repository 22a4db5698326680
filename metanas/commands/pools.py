"""`metanas pool`: a look at a pool's files, on the command line."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metanas.commands.options import Data, Download, HoldOut, Json, Settings, print_json
from metanas.errors import MetanasError

app = typer.Typer(no_args_is_help=True, help="Task pools.")


@app.command("check")
def check(
    pool: Annotated[Path, typer.Argument(help="A pool's YAML file, or a run's configuration.")],
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples a class.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Query samples a class.")] = None,
    settings: Settings = None,
    hold_out: HoldOut = None,
    data: Data = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Look at every file of a pool and say what to do about what is wrong; exit code 1 when something must be done.

    Without --shots and --queries each class must give what the configuration's episodes take of it, and in a pool's own
    file, which does not say, 5 and 5.
    """
    from metanas.assembly import asked_of_classes, check_trainable, read_asked_pool
    from tasks.check import Finding, check_pool

    read, config = read_asked_pool(pool, data, settings or [], hold_out, download)
    asking = config if shots is queries is None else None
    findings = check_pool(read, shots or 5, queries or 5, asked_of_classes(asking) if asking else {})
    if asking and all(finding.level != "error" for finding in findings):
        try:
            check_trainable(asking, read)
        except MetanasError as error:
            findings = [Finding("error", read.name, str(error).removesuffix(".")), *findings]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:7} {finding.task}: {finding.what}" + (f"; {finding.to_do}" if finding.to_do else ""))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
