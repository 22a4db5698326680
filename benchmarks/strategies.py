"""Every strategy on tabular benchmarks: what the best architecture by validation scores on the test, by queries spent.

NAS-Bench-201 (three data sets) and TransNAS-Bench-101 micro (seven tasks), whose files lie in --tables DIR,
METANAS_NASBENCH or ../shared/nasbench. A query is one full training; 12 of 200 epochs count as 0.06. Strategies search
on the validation score (mean over the benchmark's seeds); test scores are looked up after the search is over. TransNAS
has one score for both.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import table as print_table
from metanas.api import Architecture
from metanas.search.catalogue import make_strategy
from metanas.seeding import stream
from metanas.spaces.genes import Genes
from metanas.statistics import mean_interval
from metanas.strategies.halving import fidelity
from metanas.strategies.strategy import Strategy
from metanas.tables import nasbench201
from metanas.tables.catalogue import NAMES, load_table
from metanas.tables.table import LookUp, Table, tables_folder

QUERIES = (50, 100, 200)
SEEDS = 100


@dataclass(frozen=True)
class Contender:
    """A strategy with its options, the size of its population, and how many it is asked for before it is told."""

    choice: Mapping[str, Any]
    size: int = 20
    batch: int = 1
    seeds: int | None = None  # where it is not as many as the others have
    repeats: bool = False  # whether equivalent cells count as different

    @property
    def races(self) -> bool:
        return "rungs" in self.choice


def race(name: str, over: str, **options: Any) -> Contender:
    """On NAS-Bench-201's two fidelities."""
    choice = {"name": name, "over": {"name": over}, "rungs": list(nasbench201.FIDELITIES), "eta": 8} | options
    return Contender(choice)


CONTENDERS = {
    "exhaustive": Contender({"name": "exhaustive"}, seeds=1),
    "random": Contender({"name": "random"}),
    "random, repeats": Contender({"name": "random"}, repeats=True),
    "local": Contender({"name": "local"}),
    "evolution": Contender({"name": "evolution", "costs": []}),
    "evolution one-point": Contender({"name": "evolution", "costs": [], "crossover": "one-point"}),
    "NSGA-II, macs": Contender({"name": "evolution"}),
    "regularized 20/10": Contender({"name": "regularized", "sample": 10}),
    "regularized 15/7, repeats": Contender({"name": "regularized", "sample": 7}, size=15, repeats=True),
    "regularized 100/25": Contender({"name": "regularized"}, size=100),
    "reinforce": Contender({"name": "reinforce"}, batch=5),
    "ppo": Contender({"name": "ppo"}, batch=5),
    "guided, process": Contender({"name": "guided"}, batch=5),
    "guided, Thompson": Contender({"name": "guided", "acquisition": "thompson"}, batch=5),
    "halving": race("halving", "random"),
    "hyperband": race("hyperband", "random"),
    "asha": race("asha", "random"),
    "asha, regularized": race("asha", "regularized"),
}


@dataclass(frozen=True)
class Course:
    """One search: after every result the full trainings and hours spent, and the best by validation until then."""

    trainings: np.ndarray  # (T,)
    hours: np.ndarray  # (T,), NaN where the benchmark gives no times
    best: list[Architecture]  # (T,)

    def at(self, queries: float) -> int:
        """The last index within a number of queries."""
        return int(np.searchsorted(self.trainings, queries + 1e-9, side="right")) - 1


def search(table: Table, contender: Contender, seed: int, queries: int) -> Course:
    """One search of a contender."""
    space = Genes(table.space.name, table.space.counts) if contender.repeats else table.space
    strategy = make_strategy(contender.choice, space, contender.size)
    return run(table, strategy, contender.batch, queries, stream(seed, "strategies", table.name))


def run(table: Table, strategy: Strategy, batch: int, queries: int, rng: np.random.Generator) -> Course:
    """Asks, looks up and tells until the queries are spent or nothing is left."""
    look_up, rows, best, standing = LookUp(table), list[tuple[float, float]](), list[Architecture](), (0.0, -np.inf)
    while look_up.trainings < queries:
        asked = strategy.ask(batch, rng)
        if not asked:
            break
        told = []
        for architecture in asked:
            share = fidelity(strategy, architecture)
            told.append(look_up(architecture, share))
            # A score after more of the training outranks any after less.
            if (share, told[-1].accuracy) > standing:
                standing, incumbent = (share, told[-1].accuracy), architecture
            rows.append((look_up.trainings, np.nan if look_up.seconds is None else look_up.seconds / 3600))
            best.append(incumbent)
        strategy.tell(told)
    spent = np.array(rows)
    return Course(spent[:, 0], spent[:, 1], best)


@dataclass(frozen=True)
class Result:
    """A contender on a table: test scores (S, Q) after 1 to Q queries, hours (S,) of the longest search, its time."""

    scores: np.ndarray
    hours: np.ndarray
    seconds: float

    def mean(self, queries: int) -> tuple[float, float]:
        """Mean test score and half of its 95% interval over seeds (NaN for one seed)."""
        return mean_interval(self.scores[:, queries - 1])

    def row(self, table: Table, queries: Sequence[int]) -> dict[str, Any]:
        """For the JSON object, in which nothing stands for what there is not."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        best, row = table.tested.max(), dict[str, Any]()
        for q in queries:
            mean, half = self.mean(q)
            row[str(q)] = {"mean": number(mean), "half": number(half), "regret": number(best - mean)}
        time = {"hours": number(self.hours.mean()), "ms": 1e3 * self.seconds / self.scores.size}
        return {"seeds": len(self.scores), **row, **time}


def measure(table: Table, contender: Contender, seeds: int, queries: int) -> Result:
    """So many searches, seeds from 0."""
    started = time.perf_counter()
    courses = [search(table, contender, seed, queries) for seed in range(seeds)]
    scores = [[table.test(course.best[course.at(q)]) for q in range(1, queries + 1)] for course in courses]
    hours = [course.hours[course.at(queries)] for course in courses]
    return Result(np.array(scores), np.array(hours), time.perf_counter() - started)


def show(name: str, table: Table, results: Mapping[str, Result], queries: Sequence[int]) -> None:
    """Prints the table of one data set."""
    best = table.tested.max()
    chosen = table.tested[int(table.validation[-1].argmax())]
    digits = 2 if best > 10 else 4
    print(f"\n{name}: best test {best:.{digits}f}, of the best validation {chosen:.{digits}f}", flush=True)
    last = queries[-1]
    header = ["strategy", "seeds", *(f"{q} queries" for q in queries), f"regret at {last}", "hours", "ms a query"]
    rows = []
    for contender, result in results.items():
        means = [result.mean(q) for q in queries]
        cells = [f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}") for mean, half in means]
        hours = "-" if np.isnan(result.hours).any() else f"{result.hours.mean():.0f}"
        cost = f"{1e3 * result.seconds / result.scores.size:.2f}"
        regret = f"{best - means[-1][0]:.{digits}f}"
        rows.append([contender, str(len(result.scores)), *cells, regret, hours, cost])
    print_table(header, rows)


def plot(out: Path, name: str, table: Table, results: Mapping[str, Result]) -> None:
    """Mean regret of the test score by queries, with its 95% interval, as OUT/NAME.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for number, (contender, result) in enumerate(results.items()):
        regret = table.tested.max() - result.scores
        mean, half = regret.mean(0), 1.96 * regret.std(0) / len(regret) ** 0.5
        queries = np.arange(1, len(mean) + 1)
        colour = f"C{number % 10}"
        axes.plot(queries, mean, color=colour, label=contender, linestyle="-" if number < 10 else "--")
        axes.fill_between(queries, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="queries", ylabel="regret of the test score", title=name)
    # Below a thousandth of what a middling architecture misses, all that is left to see is the logarithm of nothing.
    axes.set_ylim(bottom=(table.tested.max() - np.median(table.tested)) / 1000)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=120)


def main() -> None:
    """All tables, then the JSON object where it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder of the benchmarks' files")
    parser.add_argument("--seeds", type=int, help=f"searches of each strategy (default {SEEDS}; fewer where shown)")
    parser.add_argument("--queries", type=int, nargs="+", default=QUERIES, help="full trainings after which to report")
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help="data sets and tasks")
    parser.add_argument("--strategies", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--out", type=Path, help="folder for anytime plots")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    report: dict[str, Any] = {}
    folder = tables_folder(asked.tables)
    for name in asked.only:
        table, results = load_table(folder, name), {}
        for label in asked.strategies:
            contender = CONTENDERS[label]
            if contender.races and len(table.fidelities) == 1:
                continue
            results[label] = measure(table, contender, asked.seeds or contender.seeds or SEEDS, max(asked.queries))
        show(name, table, results, asked.queries)
        if asked.out:
            plot(asked.out, name, table, results)
        report[name] = {label: result.row(table, asked.queries) for label, result in results.items()}
    if asked.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
