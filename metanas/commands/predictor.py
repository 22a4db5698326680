"""`metanas predictor`: the life of a run's predictor, on the command line."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from metanas.commands.options import Data, Json, Run, print_json

app = typer.Typer(no_args_is_help=True, help="The performance predictor.")


@app.command("retrain")
def retrain(
    runs: Annotated[list[Path], typer.Argument(help="Runs; the first one's predictor is taught.")],
    store: Annotated[list[str] | None, typer.Option(help="The URL of a further store, repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model to try, repeatable; the best is taken.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="A block of features to leave out, repeatable.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Fit the predictor anew on the evaluations of several runs, and use it unless it is worse than before."""
    from metanas.commands.retrain import retrain_predictor
    from metanas.run import RunFolder

    found = retrain_predictor([RunFolder(run) for run in runs], store or [], model or [], without or [], data)
    if as_json:
        print_json(asdict(found))
        return
    report = found.report
    for sentence in found.refused:
        print(f"left out: {sentence}")
    print(
        f"version {found.version}: {report.rows} measurements of {report.architectures} architectures on "
        f"{report.tasks} tasks; {report.model}"
    )
    for by, held in report.held_out.items():
        print(f"on held-out {by} it {held.verdict}; 90% intervals cover {held.coverage:.0%}; Kendall tau:")
        for name, tau in held.taus.items():
            other = held.qualities[name]
            print(
                f"  {name:10} {tau.tau:.2f} ({tau.low:.2f} to {tau.high:.2f}), top-10% recall {other.recall:.2f}, "
                f"regret {other.regret:.3f}"
            )
    print(found.why)


@app.command("compare")
def compare(
    run: Run,
    version: Annotated[int, typer.Argument(help="The version to compare with the one in use.")],
    as_json: Json = False,
) -> None:
    """Compare a version with the one in use, on what is held out from both."""
    from metanas.run import RunFolder
    from predictors import versions as kept

    seed, versions = RunFolder(run).config.seed, kept.Versions.of(run)
    found = kept.compare(versions.read(versions.history[-1]), versions.read(version), seed)
    if as_json:
        print_json(asdict(found))
        return
    print(
        f"version {version} against {versions.history[-1]}: Kendall's tau {found.difference:+.3f} over "
        f"{len(found.new)} folds of held-out {found.held_out_by}; that it is worse: p={found.p:.2g}"
    )


@app.command("promote")
def promote(run: Run, version: Annotated[int, typer.Argument()], as_json: Json = False) -> None:
    """Put a version in use, unless it is worse than the present one."""
    from metanas.run import RunFolder
    from predictors.versions import Versions

    comparison = Versions(run).promote(version, RunFolder(run).config.seed)
    if as_json:
        print_json({"in_use": version, "comparison": asdict(comparison) if comparison else None})
    else:
        print(f"version {version} is in use")


@app.command("rollback")
def rollback(run: Run, as_json: Json = False) -> None:
    """Put the version that was in use before back."""
    from predictors.versions import Versions

    version = Versions(run).rollback()
    if as_json:
        print_json({"in_use": version})
    else:
        print(f"version {version} is in use")


@app.command("show")
def show(
    run: Run,
    store: Annotated[list[str] | None, typer.Option(help="A store of new evaluations: have they drifted?")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List the versions and their figures; with --store say whether new evaluations call for a retraining."""
    from metanas.commands.retrain import watch
    from metanas.run import RunFolder
    from predictors.versions import Versions

    versions = Versions.of(run)
    cards, in_use = [versions.card(number) for number in versions.numbers], versions.history[-1:]
    found = watch(RunFolder(run), store, data) if store else None
    if as_json:
        watched = asdict(found) if found else {"drift": None, "refused": []}
        print_json({"versions": cards, "history": versions.history, **watched})
        return
    for card in cards:
        star = "*" if in_use == [card["version"]] else " "
        rows = f"{card['rows']} rows, {card['architectures']} architectures, {len(card['tasks'])} tasks"
        source = f", from {card['from']}" if isinstance(card["from"], str) else ""
        print(f"{star} {card['version']}: {card['model']}, {rows}{source}")
        for by, held in card.get("held out", {}).items():
            print(f"    on held-out {by}: {_figures(held)}")
        if earlier := card.get("figures"):  # of a version from before there were two kinds of held out
            print(f"    on held-out {earlier['held out']}: tau {earlier['tau'][0]:.2f}")
    if found:
        for sentence in found.refused:
            print(f"left out: {sentence}")
        drift = found.drift
        print(f"{drift.rows} measurements, {drift.unseen} of what it has not learned from")
        if drift.inside is not None:
            others = ", ".join(f"{name} {tau:.2f}" for name, tau in drift.baselines.items())
            print(f"of these: Kendall tau {drift.tau:.2f} ({others}), {drift.inside:.0%} within their 90% intervals")
        for advice in drift.advice:
            print(f"retrain: {advice}")


def _figures(held: dict[str, Any]) -> str:
    """Of the predictor, each with those of the baselines beside it."""
    said = []
    for figure, of in (("tau", held["taus"]), ("recall", held["qualities"]), ("regret", held["qualities"])):
        others = ", ".join(f"{name} {of[name][figure]:.2f}" for name in of if name != "predictor")
        said.append(f"{figure} {of['predictor'][figure]:.2f} ({others})")
    return f"{'; '.join(said)}; 90% intervals cover {held['coverage']:.0%}; {held['verdict']}"
