"""How well the predictor ranks, guides a search and carries over to a new task, on public benchmark tables.

Fitted, searched and chosen on validation scores alone; a predictor sees what `TableCells.encode` says of a cell.
NAS-Bench-201: Kendall's tau on held-out architectures, and queries until the mean test accuracy of the seeds is that of
regularized evolution after 200, by the strategy "guided". TransNAS-Bench-101 is in `benchmarks/transfer.py`.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import bootstrap

from benchmarks.rounds import table as print_table
from benchmarks.strategies import Contender, search
from benchmarks.transfer import BATCH, MODEL, encoded, every, said, show_quality, show_transfer
from metanas.errors import MetanasError
from metanas.search.catalogue import GUIDES
from metanas.seeding import stream
from metanas.statistics import mean_interval
from metanas.tables import nasbench201, transnas
from metanas.tables.cell import EDGES
from metanas.tables.table import Table, tables_folder
from predictors.conformal import Calibrated, coverage
from predictors.explain import gene_effects, swaps
from predictors.models import make_model
from predictors.ranking import Quality, kendall, quality

TRAINING = (100, 200)
REA200 = {"cifar10": 94.34, "cifar100": 73.40, "ImageNet16-120": 46.56}
"""Mean test accuracy of regularized evolution after 200 queries, 200 runs, on the same table."""
QUERIES = 100
SHOWN = (30, 50, 70, 100)
EXPLAINED = 50
PROXIES = "nasbench201_zero_cost_724.json"
"""Scores of untrained cells as NASLib names them: operations by their place in NASLIB, edges sorted."""
NASLIB = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")


@dataclass(frozen=True)
class Ranking:
    """One draw of training architectures: quality of the predictor and of the baselines on all the others."""

    qualities: dict[str, Quality]
    beside_naswot: dict[str, float]  # Kendall's tau on those of the others for which NASWOT is known
    test_tau: float
    coverage: float


def naswot(folder: Path, table: Table) -> np.ndarray:
    """NASWOT's scores (n,) of a table's cells on CIFAR-10; NaN where they are not known."""
    path = folder / PROXIES
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["cifar10"].values()
        scores = {one["arch"]: float(one["nwot"]["score"]) for one in known}
    except (OSError, ValueError, KeyError) as error:
        raise MetanasError(f"'{path}' must hold zero-cost scores of cells of NAS-Bench-201 ({error!r}).") from error
    found = np.full(table.space.size(), np.nan)
    for name, score in scores.items():
        numbers = dict(zip(sorted(EDGES), json.loads(f"[{name.strip('()')}]"), strict=True))
        found[table.row(tuple(table.space.operations.index(NASLIB[numbers[edge]]) for edge in EDGES))] = score
    return found


def ranking(
    table: Table, cells: np.ndarray, features: np.ndarray, proxies: np.ndarray, count: int, seed: int
) -> Ranking:
    """Fits to `count` random ones of `cells` (n, G) with `features` (n, d), all of the table's, and ranks the rest.

    `proxies` (n,) are scores to hold it against, NaN where there is none.
    """
    measured = table.validation[-1]
    drawn = stream(seed, "training", count).permutation(len(cells))
    train, rest = drawn[:count], drawn[count:]
    make = partial(make_model, MODEL, seed, ())
    fitted = Calibrated.fit(make, features[train], measured[train], [train], seed)
    mean, _ = fitted.predict(features[rest])
    nearest = train[cdist(cells[rest], cells[train], "hamming").argmin(1)]
    answers = {
        "predictor": mean,
        "parameters": table.params[rest],
        "FLOPs": table.macs[rest],
        "nearest neighbour": measured[nearest],
    }
    scored = np.isfinite(proxies[rest])
    both = {"predictor": mean[scored], "NASWOT": proxies[rest][scored]}
    return Ranking(
        {name: quality(answer, measured[rest]) for name, answer in answers.items()},
        {name: kendall(answer, measured[rest][scored]) for name, answer in both.items()},
        kendall(mean, table.tested[rest]),
        coverage(*fitted.interval(features[rest]), measured[rest]),
    )


def explanation(table: Table, cells: np.ndarray, features: np.ndarray, count: int, seed: int) -> float:
    """Kendall's tau of predicted with measured effects of the genes of EXPLAINED good cells not trained on."""
    measured = table.validation[-1]
    drawn = stream(seed, "explained").permutation(len(cells))
    fitted = make_model(MODEL, seed, ()).fit(features[drawn[:count]], measured[drawn[:count]])

    def effects(worth: Callable[[list[int]], np.ndarray], row: int) -> np.ndarray:
        found = swaps(
            lambda asked: worth([table.row(a) for a in asked]), tuple(cells[row].tolist()), table.space.counts
        )
        return gene_effects(found, len(table.space.counts))

    good = [row for row in drawn[count:].tolist() if measured[row] >= np.quantile(measured, 0.75)][:EXPLAINED]
    predicted = [effects(lambda rows: fitted.predict(features[rows])[0], row) for row in good]
    true = [effects(lambda rows: measured[rows], row) for row in good]
    return kendall(np.concatenate(predicted), np.concatenate(true))


def show_ranking(table: Table, proxies: np.ndarray, seeds: int) -> dict[str, Any]:
    """Question 1: on NAS-Bench-201 CIFAR-10."""
    cells = every(table.space)
    genes, features, keys = np.array(cells), encoded(table.space, cells), dict[str, Any]()
    for count in TRAINING:
        found = [ranking(table, genes, features, proxies, count, seed) for seed in range(seeds)]
        print(f"\nNAS-Bench-201 CIFAR-10, {count} training architectures, {seeds} seeds, all the others held out")
        rows = []
        for name in found[0].qualities:
            qualities = [draw.qualities[name] for draw in found]
            rows.append((name, *(said([getattr(q, part) for q in qualities]) for part in ("tau", "recall", "regret"))))
        print_table(("", "Kendall tau", "top-10% recall", "regret, points"), rows)
        tau, half = mean_interval(np.array([draw.qualities["predictor"].tau for draw in found]))
        test, covered = ([getattr(draw, part) for draw in found] for part in ("test_tau", "coverage"))
        print(f"tau with test accuracy {said(test)}; 90% intervals cover {said(covered)}")
        keys |= {f"tau_{count}": tau, f"tau_{count}_half": half, f"tau_{count}_test": float(np.mean(test))}
        keys[f"baselines_{count}"] = {
            name: float(np.mean([draw.qualities[name].tau for draw in found])) for name in found[0].qualities
        }
        keys |= {f"coverage_{count}": float(np.mean(covered))}
        ours, naive = ([draw.beside_naswot[name] for draw in found] for name in ("predictor", "NASWOT"))
        print(f"on those of which NASWOT is known: tau {said(ours)}, of NASWOT {said(naive)}")
        keys |= {f"tau_{count}_beside_naswot": float(np.mean(ours)), f"naswot_{count}": float(np.mean(naive))}
    effects = [explanation(table, genes, features, TRAINING[-1], seed) for seed in range(seeds)]
    print(f"effects of genes, predicted and measured by one-operation swaps: Kendall tau {said(effects)}")
    return keys | {"swap_tau": float(np.mean(effects))}


def show_search(tables: Iterable[Table], model: str, seeds: int) -> dict[str, Any]:
    """Question 2: queries until regularized evolution's 200."""
    contender = Contender({"name": "guided", "model": model}, batch=BATCH)
    needed, rows = dict[str, int | None](), []
    for table in tables:
        courses = [search(table, contender, seed, QUERIES) for seed in range(seeds)]
        curves = np.array([[table.test(best) for best in course.best] for course in courses])
        count, low, high = queries_to(REA200[table.name], curves)
        needed[table.name] = count if count <= QUERIES else None
        shown = (said(curves[:, n - 1], 2) for n in SHOWN)
        rows.append((table.name, f"{REA200[table.name]:.2f}", f"{count} ({low:.0f} to {high:.0f})", *shown))
    print(f"\nNAS-Bench-201, guided search, {seeds} seeds: queries until REA-200's test accuracy, and it at n queries")
    print_table(("", "REA-200", "queries", *(f"n={n}" for n in SHOWN)), rows)
    return {"queries_to_rea200": needed}


def queries_to(level: float, curves: np.ndarray) -> tuple[int, float, float]:
    """Queries until the mean of curves (S, Q) is at a level, Q + 1 if never, and a 95% interval by bootstrap."""

    def first(drawn: np.ndarray) -> float:
        there = curves[drawn].mean(0) >= level
        return float(there.argmax() + 1 if there.any() else curves.shape[1] + 1)

    seeds = np.arange(len(curves))
    found = bootstrap((seeds,), first, vectorized=False, method="percentile", random_state=stream(0, "bootstrap"))
    return int(first(seeds)), *found.confidence_interval


def main() -> None:
    """Prints the tables, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, help="the folder of the tables (default METANAS_NASBENCH)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--model", default="gaussian process", choices=GUIDES, help="what the searches ask")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    try:
        folder = tables_folder(asked.tables)
        cells, tasks = nasbench201.load(folder), transnas.load(folder)
        proxies = naswot(folder, cells["cifar10"])
    except MetanasError as error:
        parser.error(str(error))
    keys = show_ranking(cells["cifar10"], proxies, asked.seeds)
    keys |= show_search(cells.values(), asked.model, asked.seeds)
    keys |= show_quality(tasks, asked.seeds)
    keys |= show_transfer(tasks, asked.model, asked.seeds)
    if asked.json:
        print(json.dumps({"seeds": asked.seeds, "model": asked.model, **keys}))


if __name__ == "__main__":
    main()
