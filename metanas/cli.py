"""The command line: reads words, calls one function, shows what it returns."""

import sys
from dataclasses import asdict
from errno import ENOSPC
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from metanas.commands.doctor import check_machine, shadows
from metanas.commands.options import Data, Download, HoldOut, Json, Resume, Run, Settings, Workers, over, print_json
from metanas.commands.pools import app as pool_commands
from metanas.commands.predictor import app as predictor_commands
from metanas.commands.progress import make_show
from metanas.commands.wording import collapse, half_width
from metanas.errors import MetanasError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Meta-learned neural architecture search across tasks.",
)
app.add_typer(predictor_commands, name="predictor")
app.add_typer(pool_commands, name="pool")

INTERRUPTED = 130
"""The exit code that Typer makes of Ctrl-C (128 + SIGINT)."""
RESUMED = "it goes on from its last checkpoint with --resume"
GOES_ON = {
    "train": RESUMED,
    "search": RESUMED,
    "enlarge": RESUMED,
    "evaluate": "the same command goes on where it was",
}
"""What is left of an interrupted command, by its name."""


def main() -> None:
    """Runs the command line; a mistake of the user's is one sentence and exit code 2."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files are no more than bytes
    try:
        in_the_way = shadows(Path.cwd())
        if in_the_way:
            raise MetanasError(
                f"'{in_the_way[0]}' hides a package of metanas from Python; rename it or start metanas elsewhere."
            )
        app()
    except MetanasError as error:
        print(f"metanas: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno == ENOSPC:
            print(
                "metanas: the disk is full; make room and repeat the command, resuming it if it can.", file=sys.stderr
            )
            sys.exit(2)
        if error.filename is None:
            raise
        print(f"metanas: '{error.filename}': {error.strerror}; put that right, or name another place.", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            command = next(iter(sys.argv[1:]), "")
            print(f"metanas: interrupted; {GOES_ON.get(command, 'nothing is kept')}.", file=sys.stderr)
        raise


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/demo.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write the run to.")],
    minutes: Annotated[float | None, typer.Option(help="A time budget for the whole search.")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.")] = None,
    hold_out: HoldOut = None,
    workers: Workers = None,
    data: Data = None,
    resume: Resume = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Meta-train a SuperNet on a pool of tasks and search it."""
    from metanas.commands.training import train as run_train
    from metanas.config import load_config

    named = {"budget.minutes": minutes, "seed": seed, "hold_out": hold_out, "workers": workers}
    loaded = load_config(config, over(named, settings))
    with make_show() as show:
        folder = run_train(loaded, out, data=data, resume=resume, download=download, show=show)
    population = folder.read_json("population.json")
    if as_json:
        print_json({"run": str(out), "steps": folder.read_json("steps.json"), **population})
    else:
        choice = population["finalists"][0]["accuracy"]
        print(f"{out}: chosen {population['chosen']}, {choice:.1%} on meta-validation episodes.")
        print(f"next: metanas evaluate {out}, then metanas report {out}")


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/search.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write the search to.")],
    minutes: Annotated[float | None, typer.Option(help="The most that the search itself may take.")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.")] = None,
    workers: Workers = None,
    data: Data = None,
    tables: Annotated[Path | None, typer.Option("--tables", help="The folder with the tables of benchmarks.")] = None,
    resume: Resume = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Search an architecture for one task, or the best of a benchmark's table, and train what was found."""
    from metanas.commands.searching import search as run_search
    from metanas.config import load_search

    named = {"budget.minutes": minutes, "seed": seed, "workers": workers}
    loaded = load_search(config, over(named, settings))
    with make_show() as show:
        folder = run_search(loaded, out, data, tables, resume, download, show)
    _print_found(out, folder.read_json("result.json"), as_json)


@app.command()
def enlarge(
    run: Annotated[Path, typer.Argument(help="The folder of a run of `metanas search` or `metanas train`.")],
    config: Annotated[Path, typer.Argument(help="A YAML file with the larger task, such as configs/enlarge.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write the network to.")],
    settings: Settings = None,
    data: Data = None,
    resume: Resume = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Train what a run found in a larger network on another task (NASNet's transfer, EfficientNet's scaling)."""
    from metanas.commands.enlarging import enlarge_run
    from metanas.config import EnlargeConfig, read_config

    loaded = read_config(config, EnlargeConfig, settings or [])
    with make_show() as show:
        folder = enlarge_run(run, loaded, out, data, resume, download, show)
    _print_found(out, folder.read_json("result.json"), as_json)


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/demo.yaml.")],
    minutes: Annotated[float | None, typer.Option(help="How long it may take: says what to change.")] = None,
    settings: Settings = None,
    hold_out: HoldOut = None,
    workers: Workers = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Say what `train` will take in time, memory and disk, after half a minute of its work."""
    from metanas.commands.planning import plan as make_plan
    from metanas.config import load_config

    named = {"hold_out": hold_out, "workers": workers}
    found = make_plan(load_config(config, over(named, settings)), data, minutes)
    if as_json:
        print_json({**asdict(found), "seconds": found.seconds, "steps": found.steps})
        return
    for phase in found.phases:
        print(f"{phase.name:14} {phase.steps:6} steps {phase.training:6.0f} s, evaluations {phase.evaluation:5.0f} s")
    print(f"with {found.set_up:.0f} s of setting up: {found.seconds / 60:.1f} minutes, {found.steps} outer steps")
    print(f"memory {found.memory:.0f} MiB in driver and workers, disk {found.disk:.0f} MiB in the run's folder")
    if found.advice:
        print(found.advice)


@app.command()
def evaluate(
    run: Run,
    episodes: Annotated[Path | None, typer.Option(help="Episode folders that others made.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Score a run and every baseline on the same test episodes, or the run on given episodes."""
    import numpy as np

    from metanas.commands.evaluation import compare, evaluate_folders
    from metanas.commands.evaluation import evaluate as run_evaluate
    from metanas.run import RunFolder
    from metanas.statistics import mean_interval

    folder = RunFolder(run)
    if episodes is not None:
        rows = evaluate_folders(folder, episodes)
        mean, half = mean_interval(np.array([row["accuracy"] for row in rows]))
        if as_json:
            print_json({"accuracy": mean, "interval": half, "episodes": rows})
            return
        print(f"accuracy {mean:.2%}{half_width(half)} over {len(rows)} episode{'s' * (len(rows) > 1)}")
        for row in rows:
            print(f"  {row['episode']}: {row['accuracy']:.2%}")
        return
    with make_show() as show:
        results = run_evaluate(folder, data=data, show=show)
    if as_json:
        print_json(results)
        return
    for result in results:
        print(f"{result['name']} ({result['episodes']} episodes, seed {result['seed']})")
        for line in compare(result):
            print(f"  {line}")


@app.command()
def adapt(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="The new task: one folder of images a class.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write the model to.")],
    groups: Annotated[
        str | None, typer.Option(help="A regular expression: file names in which it finds the same are of one group.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose and adapt a network for a new task."""
    from metanas.assembly import make_space
    from metanas.commands.model import adapt as run_adapt
    from metanas.run import RunFolder

    with make_show() as show:
        model = run_adapt(RunFolder(run), folder, out, show, groups)
    expected = model.expected
    if as_json:
        print_json(
            {
                "model": str(out),
                "classes": model.classes,
                "architecture": model.architecture,
                "expected": asdict(expected),
            }
        )
        return
    print(f"{out}: {len(model.classes)} classes, {make_space(model.config).describe(model.architecture)}")
    if expected.accuracy is None:
        print("expected accuracy: unknown, a class has one image or one group, so that nothing can be held out")
    else:
        print(
            f"expected accuracy: {expected.accuracy:.1%} (95% interval {expected.low:.1%} to {expected.high:.1%}, "
            f"cross-validated on {expected.samples} images)"
        )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model that `metanas adapt` wrote.")],
    files: Annotated[list[Path], typer.Argument(help="Images.")],
    as_json: Json = False,
) -> None:
    """Say the class of each file, with probabilities; exit code 2 where a file is no image."""
    from metanas.commands.model import load_model
    from metanas.commands.model import predict as run_predict

    answers = run_predict(load_model(model), files)
    if as_json:
        print_json(answers)
    for answer in answers:
        if "error" in answer:
            print(f"metanas: {answer['error']}", file=sys.stderr)
        elif not as_json:
            print(f"{answer['file']}: {answer['class']} ({answer['probabilities'][answer['class']]:.1%})")
    if any("error" in answer for answer in answers):
        raise typer.Exit(2)


@app.command()
def report(run: Run, as_json: Json = False) -> None:
    """Write one HTML file on a run."""
    from metanas.commands.report import report as make_report
    from metanas.run import RunFolder

    with make_show() as show:
        path = make_report(RunFolder(run), show)
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> None:
    """Say what this machine offers and what stands in the way."""
    checks = check_machine(data)
    if as_json:
        print_json([asdict(check) for check in checks])
        return
    for check in checks:
        print(f"{'ok' if check.ok else 'NOT OK':6} {check.name}: {check.detail}")
        if check.advice:
            print(f"       {check.advice}")


def _print_found(out: Path, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"run": str(out), **result})
        return
    print(f"{out}: {result['description']}")
    print(f"validation {result['validation']:.4g}, test {result['test']:.4g}")
    if result.get("collapsed"):
        print(collapse(result))
