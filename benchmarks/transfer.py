"""How well what other tasks measured carries over to a new one: question 3 of `benchmarks/predictor.py`.

TransNAS-Bench-101: each task in turn is new, and predictors of the other six, of 200 evaluations each, may help. First
they rank all that the new task has not measured; then they guide its search, by the strategy "guided".
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.rounds import table as print_table
from benchmarks.strategies import CONTENDERS, Contender, run, search
from metanas.api import Architecture
from metanas.seeding import stream
from metanas.spaces.genes import enumerated
from metanas.statistics import mean_interval
from metanas.strategies.guided import Guided
from metanas.tables.cell import TableCells
from metanas.tables.table import Table
from predictors.models import make_model
from predictors.pool import PoolPredictor
from predictors.predictor import Predictor
from predictors.ranking import Quality, normal_scores, quality

MODEL = "trees"
"""What ranks, and what speaks for a pool task."""
OWN = (0, 10, 50)
"""Own evaluations of a new task."""
BATCH = 5
SOURCES = 200
ODD = "autoencoder"
"""The task that is least like the others."""


def every(space: TableCells) -> list[Architecture]:
    """All cells, in the order of a table's rows."""
    return [enumerated(space, row) for row in range(space.size())]


def encoded(space: TableCells, cells: Sequence[Architecture]) -> np.ndarray:
    """Features (n, d)."""
    return np.stack([space.encode(cell) for cell in cells])


def different(tables: Mapping[str, Table]) -> list[Architecture]:
    """One cell of each network."""
    space = next(iter(tables.values())).space
    return list(dict.fromkeys(map(space.canonical, every(space))))


def source(table: Table, cells: Sequence[Architecture], seed: int) -> Predictor:
    """A pool task's predictor, of SOURCES random evaluations of different networks."""
    rows = stream(seed, "source", table.name).choice(len(cells), SOURCES, replace=False)
    drawn = [cells[row] for row in rows]
    scores = normal_scores(np.array([table.validate(cell) for cell in drawn]))
    return make_model(MODEL, seed, ()).fit(encoded(table.space, drawn), scores)


def rankings(
    table: Table, cells: Sequence[Architecture], features: np.ndarray, others: Sequence[Predictor], seed: int
) -> dict[str, list[Quality | None]]:
    """By way, after each of OWN random evaluations of `cells` with `features` (n, d): how well it ranks the rest.

    None where a way has nothing to go by. Regret in parts of the task's best minus its median.
    """
    rows = np.array([table.row(cell) for cell in cells])
    measured, best = table.validation[-1][rows], table.validation[-1].max()
    unit = best - np.median(table.validation[-1])
    drawn = stream(seed, "own", table.name).permutation(len(cells))
    make, genes = partial(make_model, MODEL, seed, ()), np.array(cells)
    found: dict[str, list[Quality | None]] = {}
    for count in OWN:
        known, rest = drawn[:count], drawn[count:]
        pool, answers = PoolPredictor(make, others, seed), dict[str, np.ndarray | None]()
        if count:
            scores = normal_scores(measured[known])
            pool.fit(features[known], scores)
            answers["without the pool"] = make().fit(features[known], scores).predict(features[rest])[0]
            closest = cdist(genes[rest], genes[known], "hamming").argmin(1)
            answers["nearest of its own"] = measured[known][closest]
        else:
            answers |= {"without the pool": None, "nearest of its own": None}
        answers = {"with the pool": pool.predict(features[rest])[0], **answers}
        answers |= {"parameters": table.params[rows[rest]], "FLOPs": table.macs[rows[rest]]}
        for way, answer in answers.items():
            judged = None if answer is None else quality(answer, measured[rest] / unit)
            found.setdefault(way, []).append(judged)
    return found


def with_pool(table: Table, sources: Sequence[Predictor], model: str, seed: int) -> tuple[list[float], float]:
    """Validation scores of the best so far, (OWN[-1],), and how far the own model is believed in the end."""
    strategy = Guided(table.space, OWN[-1], model=partial(make_model, model, seed, ()), sources=sources)
    course = run(table, strategy, BATCH, OWN[-1], stream(seed, "strategies", table.name))
    return [table.validate(best) for best in course.best], strategy.believed[-1]


def transfer(table: Table, sources: Sequence[Predictor], model: str, seed: int) -> tuple[dict[str, np.ndarray], float]:
    """Regrets (OWN,) by way, in parts of the task's best minus its median, and the own model's weight in the end.

    That after 0 own evaluations is of what is then measured first.
    """
    contenders = {
        "without the pool": Contender({"name": "guided", "model": model, "initial": BATCH}, batch=BATCH),
        "regularized evolution": Contender({"name": "regularized", "sample": 3}, size=5),
        "random": CONTENDERS["random"],
    }
    found, weight = with_pool(table, sources, model, seed)
    ways = {"with the pool": found}
    for name, contender in contenders.items():
        ways[name] = [table.validate(best) for best in search(table, contender, seed, OWN[-1]).best]
    best = table.validation[-1].max()
    unit = best - np.median(table.validation[-1])
    regrets = {name: (best - np.array([scores[max(0, n - 1)] for n in OWN])) / unit for name, scores in ways.items()}
    return regrets, weight


def show_quality(tables: Mapping[str, Table], seeds: int) -> dict[str, Any]:
    """How well the rest of a new task is ranked, beside what costs and the nearest known cell say."""
    cells = different(tables)
    features = encoded(next(iter(tables.values())).space, cells)
    found: dict[str, list[list[list[tuple[float, ...]]]]] = {}  # by way: (S, T, OWN, 3)
    for seed in range(seeds):
        sources = {name: source(table, cells, seed) for name, table in tables.items()}
        for name, table in tables.items():
            others = [fitted for other, fitted in sources.items() if other != name]
            for way, own in rankings(table, cells, features, others, seed).items():
                drawn = [(np.nan,) * 3 if one is None else astuple(one) for one in own]
                found.setdefault(way, [[] for _ in range(seeds)])[seed].append(drawn)
    keys: dict[str, Any] = {}
    parts = ("Kendall tau", "top-10% recall", "regret of the first choice")
    means = {way: np.array(values).mean(1) for way, values in found.items()}  # (S, OWN, 3)
    for column, part in enumerate(parts):
        print(f"\nTransNAS-Bench-101, {seeds} seeds, mean over tasks: {part} after own evaluations")
        rows = [
            (way, *("-" if np.isnan(own).any() else said(own) for own in values[..., column].T))
            for way, values in means.items()
        ]
        print_table(("", *(f"{count}" for count in OWN)), rows)
    for place, count in enumerate(OWN):
        taus = {way: float(values[:, place, 0].mean()) for way, values in means.items()}
        keys[f"transfer_tau_{count}"] = {way: tau for way, tau in taus.items() if not np.isnan(tau)}
    return keys


def show_transfer(tables: Mapping[str, Table], model: str, seeds: int) -> dict[str, Any]:
    """A new task's search, with and without the others."""
    cells = different(tables)
    found: list[list[dict[str, np.ndarray]]] = []  # by seed and task: regrets (OWN,) by way
    weights = np.empty((seeds, len(tables)))
    for seed in range(seeds):
        sources = {name: source(table, cells, seed) for name, table in tables.items()}
        found.append([])
        for number, (name, table) in enumerate(tables.items()):
            others = [fitted for other, fitted in sources.items() if other != name]
            regrets, weights[seed, number] = transfer(table, others, model, seed)
            found[-1].append(regrets)
    regrets = {way: np.array([[task[way] for task in seed] for seed in found]) for way in found[0][0]}  # (S, T, OWN)
    ours, alone = regrets["with the pool"], regrets["without the pool"]
    wins, leads = (ours < alone) + 0.5 * (ours == alone), ours - alone
    rows = []
    for number, name in enumerate(tables):
        rows += [(f"{name}, {way}", *map(said, values[:, number].T)) for way, values in regrets.items()]
        rows.append((f"{name}, share won against without", *map(said, wins[:, number].T)))
        rows.append((f"{name}, own model's weight in the end", "", "", said(weights[:, number])))
    rows += [(f"all tasks, {way}", *map(said, values.mean(1).T)) for way, values in regrets.items()]
    rows.append(("all tasks, with less without", *map(said, leads.mean(1).T)))
    rows.append(("all tasks, share won against without", *map(said, wins.mean(1).T)))
    print(
        f"\nTransNAS-Bench-101, {seeds} seeds: regret (parts of best less median) after own evaluations; 0: the first"
    )
    print_table(("", *(f"{n}" for n in OWN)), rows)
    keys: dict[str, Any] = {}
    for column, count in enumerate(OWN):
        rate, half = mean_interval(wins[..., column].mean(1))
        keys |= {f"transfer_win_rate_{count}": rate, f"transfer_win_rate_{count}_half": half}
        keys |= {f"transfer_regret_{count}": {way: float(v[..., column].mean()) for way, v in regrets.items()}}
    harm, half = mean_interval(leads[:, list(tables).index(ODD), 1])
    print(f"{ODD} at {OWN[1]}: regret with the pool less regret without {harm:+.3f} +- {half:.3f}")
    return keys | {"negative_transfer_regret": harm, "negative_transfer_regret_half": half}


def said(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    """Mean and half width of the 95% interval."""
    mean, half = mean_interval(np.asarray(values, dtype=np.float64))
    return f"{mean:.{digits}f} +- {half:.{digits}f}"
