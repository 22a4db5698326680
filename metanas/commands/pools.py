"""`metanas pool`: a look at a pool's files, on the command line."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from metanas.commands.options import Data, Download, HoldOut, Json, Settings, print_json

app = typer.Typer(no_args_is_help=True, help="Task pools.")


@app.command("check")
def check(
    pool: Annotated[Path, typer.Argument(help="A pool's YAML file, or a run's configuration.")],
    shots: Annotated[int, typer.Option(min=1, help="Support samples a class.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Query samples a class.")] = 5,
    settings: Settings = None,
    hold_out: HoldOut = None,
    data: Data = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Look at every file of a pool and say what to do about what is wrong; exit code 1 when something must be done."""
    from metanas.assembly import read_pool
    from tasks.check import check_pool

    findings = check_pool(read_pool(pool, data, settings or [], hold_out, download), shots, queries)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:7} {finding.task}: {finding.what}" + (f"; {finding.to_do}" if finding.to_do else ""))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
