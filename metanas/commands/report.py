"""A run told in one HTML file that opens anywhere: results first, then what was found, how, and from what."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined

from metanas.api import Architecture, Evaluation, Show
from metanas.assembly import make_space
from metanas.commands.explanation import explain
from metanas.commands.figures import (
    GeneEffect,
    Judgement,
    Point,
    Step,
    accuracy_against_cost,
    comparison,
    effects_chart,
    learning_curves,
    predictor_quality,
)
from metanas.commands.wording import count, p_value, percent, points, short, time
from metanas.errors import MetanasError
from metanas.files import write_text
from metanas.run import RunFolder, generation_lines
from metanas.statistics import Paired, mean_interval, paired
from metanas.store import Store
from metanas.strategies.pareto import pareto_front
from predictors.audit import missed_winners
from predictors.ranking import Quality, quality

OURS = "metanas"
ASKED = ("pool", "hold_out", "image", "warmup_size", "train", "validation", "test", "space", "budget", "workers")
"""What a reader wants to know of the configuration first."""
MOST_EFFECTS = 16
"""Genes whose effects are drawn, the largest first; and those of which the search measured a swap."""
BASELINES = {"params": "parameters", "macs": "multiply-adds", "nearest": "nearest architecture"}
"""What the predictor is held against, by its key in the log."""
PHASES = {"warmup": "warm-up", "widening": "widening", "generation": "generations", "settling": "settling"}
"""The search's phases, by their key in the log."""


@dataclass(frozen=True)
class MethodRow:
    """A method's accuracy on a test, and how far ours lies above it on the same episodes."""

    method: str
    note: str
    mean: float
    half: float
    lead: Paired | None  # None for ours


@dataclass(frozen=True)
class TestResult:
    """All methods on one test, ours first."""

    name: str
    split: str
    episodes: int
    rows: tuple[MethodRow, ...]

    @property
    def chart(self) -> str:
        """Its figure as SVG."""
        return comparison(
            [row.method for row in self.rows], [row.mean for row in self.rows], [row.half for row in self.rows]
        )

    @property
    def behind(self) -> list[str]:
        """The methods that ours does not clearly beat: their interval of the difference reaches zero."""
        return [row.method for row in self.rows if row.lead is not None and not row.lead.low > 0]


@dataclass(frozen=True)
class Found:
    """An architecture of the last population or a finalist."""

    description: str
    drawing: str
    accuracy: float | None  # on the last generation's episodes
    final_accuracy: float | None  # on the finalists' episodes, which are more
    params: int
    macs: int
    on_front: bool
    chosen: bool


@dataclass(frozen=True)
class PhaseTime:
    """Seconds of a phase: of training the shared weights, of measuring architectures after it, and in all."""

    name: str
    training: float
    measuring: float
    seconds: float


def report(run: RunFolder, show: Show = lambda event: None) -> Path:
    """Writes report.html into the run's folder and returns its path. Raises MetanasError.

    `show` is told why the predictor's explanation is missing where it cannot be made, as with a latency table of
    another device; the results are there all the same.
    """
    space = make_space(run.config)

    def effects(evaluations: Sequence[Evaluation]) -> list[GeneEffect]:
        try:
            return explain(run, evaluations)
        except MetanasError as error:
            show({"event": "note", "text": f"without the predictor's explanation: {error}"})
            return []

    return write_report(run, space.draw, space.describe, effects)


def write_report(
    run: RunFolder,
    draw: Callable[[Architecture], str],
    describe: Callable[[Architecture], str],
    explained: Callable[[Sequence[Evaluation]], Sequence[GeneEffect]] = lambda evaluations: (),
) -> Path:
    """Writes report.html into the run's folder and returns its path.

    `draw` gives an architecture as one <svg> element, `describe` as a line of text; `explained` makes of the run's
    evaluations the effects of the chosen one's genes, as the predictor sees them. What the run has not done yet is
    named with the command that does it. Raises MetanasError where the folder holds no run or an unreadable file.
    """
    config = run.keys
    log = _course(run.log())
    generations = generation_lines(log)
    population = _read_json(run, "population.json")
    evaluations = _evaluations(run)
    judgements = _judgements(generations)
    effects = explained(evaluations)
    drawn = [effect for place, effect in enumerate(effects) if place < MOST_EFFECTS or effect.measured]
    context = {
        "config": config,
        "asked": {key: text for key in ASKED if (text := short(config.get(key)))},
        "whole_config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "versions": _read_json(run, "versions.json") or {},
        "tests": [_test(test) for test in _read_json(run, "evaluation.json") or []],
        "found": _found(population, draw, describe) if population else [],
        "cost_chart": _cost_chart(population, {line["generation"] for line in generations}, evaluations)
        if population
        else None,
        "latency": (_read_json(run, "latency.json") or {}).get("check"),
        "curves": _curves(log, generations),
        "predictor_chart": predictor_quality(judgements, config["predictor"]["floor"]) if judgements else None,
        "effects_chart": effects_chart(drawn) if drawn else None,
        "swaps": [swap for effect in effects for swap in effect.measured],
        "missed": missed_winners([line["predictor"] for line in generations]),
        "screen": generations[-1]["predictor"].get("why") if generations else None,
        "standings": _standings(generations) if judgements else {},
        "phases": _phases(log),
        "evaluations": len(evaluations),
        "failures": [e for e in evaluations if e.status == "failed"],
        "steps": short(_read_json(run, "steps.json"), skip=("rates", "seconds", "minutes")),
        "train_command": shlex.join(
            ["metanas", "train", str(run.path / "config.yaml"), "--out", str(run.path), "--resume"]
        ),
        "evaluate_command": shlex.join(["metanas", "evaluate", str(run.path)]),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "points": points, "p": p_value, "count": count, "time": time}
    template = (files("metanas.commands") / "report.html.j2").read_text(encoding="utf-8")
    path = run.path / "report.html"
    write_text(path, environment.from_string(template).render(context))
    return path


def _read_json(run: RunFolder, name: str) -> Any:
    """The file's content, None where there is no such file."""
    return run.read_json(name) if (run.path / name).is_file() else None


def _evaluations(run: RunFolder) -> list[Evaluation]:
    """Those of the run, which are all in a database of its own."""
    if not run.shares_store and not (run.path / "store.sqlite").is_file():
        return []
    with Store(run.store_url, existing=True) as store:
        return store.evaluations(run=run.id if run.shares_store else None)


def _course(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log without what a resumed run did again: its clock went back to that of the checkpoint."""
    kept, earliest = [], inf
    for line in reversed(log):
        if line["seconds"] <= earliest:
            kept.append(line)
            earliest = line["seconds"]
    return kept[::-1]


def _test(test: Mapping[str, Any]) -> TestResult:
    accuracies = {method["method"]: np.array(method["accuracies"]) for method in test["methods"]}
    notes = {method["method"]: method["note"] for method in test["methods"]}
    rows = [
        MethodRow(name, notes[name], *mean_interval(own), None if name == OURS else paired(accuracies[OURS], own))
        for name, own in accuracies.items()
    ]
    rows.sort(key=lambda row: row.method != OURS)
    return TestResult(test["name"], test["split"], test["episodes"], tuple(rows))


def _found(
    population: Mapping[str, Any], draw: Callable[[Architecture], str], describe: Callable[[Architecture], str]
) -> list[Found]:
    """Population and finalists, the chosen one first, then by accuracy."""
    members = {tuple(row["architecture"]): row for row in population["population"]}
    finalists = {tuple(row["architecture"]): row for row in population.get("finalists", [])}
    points = np.array([[row["accuracy"], -row["macs"]] for row in members.values()], dtype=float)
    front = {list(members)[i] for i in pareto_front(points)}
    found = [
        Found(
            description=describe(architecture),
            drawing=draw(architecture),
            accuracy=members.get(architecture, {}).get("accuracy"),
            final_accuracy=finalists.get(architecture, {}).get("accuracy"),
            params=row["params"],
            macs=row["macs"],
            on_front=architecture in front,
            chosen=architecture == tuple(population["chosen"]),
        )
        for architecture, row in (finalists | members).items()
    ]
    return sorted(found, key=lambda f: (not f.chosen, -(f.final_accuracy or 0), -(f.accuracy or 0)))


def _cost_chart(population: Mapping[str, Any], generations: Container[int], evaluations: Sequence[Evaluation]) -> str:
    """`generations` leaves out the finalists' measurements, which are of other episodes."""
    members = {tuple(row["architecture"]): _point(row) for row in population["population"]}
    finalists = {tuple(row["architecture"]): _point(row) for row in population.get("finalists", [])}
    accuracies: dict[tuple[int, int, int, Architecture], list[float]] = defaultdict(list)
    for e in evaluations:
        if e.generation in generations and e.accuracy is not None:
            accuracies[e.generation, e.params, e.macs, e.architecture].append(e.accuracy)
    measured = [
        Point(generation, float(np.mean(own)), params, macs)
        for (generation, params, macs, _), own in accuracies.items()
    ]
    chosen = (finalists | members)[tuple(population["chosen"])]
    return accuracy_against_cost(measured or list(members.values()), list(members.values()), chosen)


def _point(row: Mapping[str, Any]) -> Point:
    return Point(0, row["accuracy"], row["params"], row["macs"])


def _curves(log: Sequence[Mapping[str, Any]], generations: Sequence[Mapping[str, Any]]) -> str | None:
    lines = {line["step"]: line for line in log if line["event"] == "steps"}.values()
    steps = [Step(line["phase"], line["seconds"], line["loss"], line["accuracy"]) for line in lines]
    return learning_curves(steps, [(line["seconds"], line["best"]) for line in generations]) if steps else None


def _judgements(generations: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    """Of the generations in which a predictor was asked."""
    return [
        Judgement(
            line["generation"],
            tuple((predicted, measured) for predicted, measured in line["predicted"]),
            line["predictor"]["tau"],
            line["predictor"]["used"],
        )
        for line in generations
        if line.get("predicted")
    ]


def _standings(generations: Sequence[Mapping[str, Any]]) -> dict[str, Quality]:
    """How well the predictor ordered the architectures that were new to it, and what else would have ordered them."""
    lines = [line for line in generations if line.get("predicted")]
    predicted, measured = np.array([pair for line in lines for pair in line["predicted"]]).T
    rankings = {"predictor": predicted}
    if all("baselines" in line for line in lines):  # a log of before has none
        for key, name in BASELINES.items():
            rankings[name] = np.array([value for line in lines for value in line["baselines"][key]])
    return {name: quality(ranking, measured) for name, ranking in rankings.items()}


def _phases(log: Sequence[Mapping[str, Any]]) -> list[PhaseTime]:
    """All generations are one; a duration is of the phase of the steps before it. Last what the log has none of."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    current = "warmup"
    for line in log:
        if line["event"] == "steps":
            current = line["phase"]
        elif line["event"] == "phase":
            spent[current, line["phase"]] += line["duration"]
    times = [(name, spent[key, "weights"], spent[key, "fitness"]) for key, name in PHASES.items()]
    rest = max((line["seconds"] for line in log), default=0.0) - sum(spent.values())
    rows = [*(PhaseTime(*own, own[1] + own[2]) for own in times), PhaseTime("everything else", 0.0, 0.0, rest)]
    return [row for row in rows if row.seconds > 0]
