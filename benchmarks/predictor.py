"""How well the predictor ranks, guides a search and carries over to a new task, on public benchmark tables.

Fitted, searched and chosen on validation accuracy alone. NAS-Bench-201: Kendall's tau on held-out architectures, and
queries until the mean test accuracy of the seeds is that of regularized evolution after 200. TransNAS-Bench-101: each
task in turn is new, and predictors of the other six, of 200 evaluations each, may help.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import table
from benchmarks.tables import EDGES, Benchmark, nasbench201, tables_folder, transnas
from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.seeding import stream
from metanas.statistics import mean_interval
from predictors.acquisition import best_different, thompson, upper_confidence
from predictors.conformal import Calibrated, coverage
from predictors.explain import gene_effects, swaps
from predictors.forest import ForestPredictor
from predictors.pool import PoolPredictor, pool_block
from predictors.ranking import Quality, kendall, normal_scores, quality

TRAINING = (100, 200)
REA200 = {"cifar10": 94.34, "cifar100": 73.40, "ImageNet16-120": 46.56}
"""Mean test accuracy of regularized evolution after 200 queries, 200 runs, on the same table."""
QUERIES = 100
START, BATCH, DRAWN = 10, 5, 2
OWN = (1, 10, 50)
"""Own evaluations of a new task at which regret is taken: the first is chosen with none."""
STEPS = (5, 5, 10, 10, 10, 10)
"""Own evaluations between two fits."""
SOURCES = 200
TREES, GUIDES = 100, 60
"""Of the forest that ranks, and of those that guide searches, which are fitted thousands of times."""
POPULATION, TOURNAMENT = 10, 5
"""Of regularized evolution: the best of a handful of settings at 50 evaluations (Real et al. 2019 for the method)."""
SEEN = ("paths", "graph")
"""The blocks that the predictor sees: what it knows of an architecture without running it."""


@dataclass(frozen=True)
class Ranking:
    """One draw of training architectures: quality of the predictor and of the baselines on all the others."""

    qualities: dict[str, Quality]
    test_tau: float
    coverage: float


def ranking(benchmark: Benchmark, count: int, seed: int) -> Ranking:
    """Fits to `count` random architectures of the first task and ranks the rest."""
    measured, features = benchmark.validation[:, 0], seen(benchmark)
    drawn = stream(seed, "training", count).permutation(len(benchmark))
    train, rest = drawn[:count], drawn[count:]
    make = partial(ForestPredictor, seed, TREES)
    fitted = Calibrated.fit(make, features[train], measured[train], train, seed)
    mean, _ = fitted.predict(features[rest])
    genes = benchmark.features.block("architecture")
    nearest = train[np.argmax(genes[rest] @ genes[train].T, axis=1)]
    log_params, log_macs = benchmark.features.block("costs").T
    answers = {
        "predictor": mean,
        "parameters": log_params[rest],
        "FLOPs": log_macs[rest],
        "nearest neighbour": measured[nearest],
    }
    return Ranking(
        {name: quality(answer, measured[rest]) for name, answer in answers.items()},
        kendall(mean, benchmark.test[rest, 0]),
        coverage(*fitted.interval(features[rest]), measured[rest]),
    )


def search(benchmark: Benchmark, task: int, seed: int) -> np.ndarray:
    """Test accuracy (QUERIES,) of the best by validation so far, in a search that the predictor guides."""
    measured, features = benchmark.validation[:, task], seen(benchmark)
    rng = stream(seed, "search", task)
    # One of all that compute the same, at random.
    order = rng.permutation(len(benchmark))
    pool = order[np.unique(benchmark.twins[order], return_index=True)[1]]
    queried = rng.choice(pool, START, replace=False).tolist()
    while len(queried) < QUERIES:
        fitted = ForestPredictor(seed, GUIDES).fit(features[queried], normal_scores(measured[queried]))
        mean, spread = fitted.predict(features[pool])
        queried += propose(pool, queried, mean, spread, BATCH, rng)
    best = [queried[int(np.argmax(measured[queried[: n + 1]]))] for n in range(QUERIES)]
    return benchmark.test[best, task]


def propose(
    pool: np.ndarray, queried: Sequence[int], mean: np.ndarray, spread: np.ndarray, count: int, rng: np.random.Generator
) -> list[int]:
    """Architectures of `pool` (n,) that were not queried: most by upper confidence, DRAWN by Thompson sampling.

    Together they did not get stuck where either did alone (on seeds that are not reported).
    """
    left = np.flatnonzero(~np.isin(pool, queried))
    mean, spread, keys = mean[left], spread[left], pool[left].tolist()
    chosen = best_different(upper_confidence(mean, spread, 0.0, rng), keys, count - DRAWN)
    while len(chosen) < count:
        scores = thompson(mean, spread, 0.0, rng)
        scores[chosen] = -np.inf
        chosen += best_different(scores, keys, 1)
    return [keys[row] for row in chosen]


def transfer(benchmark: Benchmark, everyone: np.ndarray, task: int, seed: int) -> dict[str, Any]:
    """Regrets at OWN evaluations of a new task, in parts of what lies between its best and its median.

    `everyone` (n, T) is what the predictors of all tasks say; the task's own is not heard.
    """
    measured, features = benchmark.validation[:, task], seen(benchmark)
    everything = np.arange(len(benchmark))
    others = np.delete(everyone, task, axis=1)
    both = np.hstack([features, others])
    layout = (("graph", features.shape[1]), ("pool", others.shape[1]))
    make = partial(ForestPredictor, seed, GUIDES)

    def guided(predictor: Any, rows: np.ndarray, first: Sequence[int]) -> list[int]:
        queried, rng = list(first), stream(seed, "new task", task)
        for step in STEPS[bool(first) :]:
            if queried:
                predictor.fit(rows[queried], normal_scores(measured[queried]))
            mean, spread = predictor.predict(rows)
            queried += propose(everything, queried, mean, spread, step, rng)
        return queried

    drawn = stream(seed, "random", task).choice(len(benchmark), OWN[-1], replace=False).tolist()
    with_pool = PoolPredictor(make, layout)
    ways = {
        "with the pool": guided(with_pool, both, []),
        "without": guided(make(), features, drawn[: STEPS[0]]),
        "evolution": evolution(benchmark, measured, OWN[-1], seed, task),
        "random": drawn,
    }
    unit = measured.max() - np.median(measured)
    regrets = {
        name: [float((measured.max() - measured[queried[:n]].max()) / unit) for n in OWN]
        for name, queried in ways.items()
    }
    return {"regrets": regrets, "left out": float(np.mean(~with_pool.believed))}


def evolution(benchmark: Benchmark, measured: np.ndarray, count: int, seed: int, task: int) -> list[int]:
    """`count` queries of regularized evolution."""
    rng = stream(seed, "evolution", task)
    row_of = {tuple(genes): row for row, genes in enumerate(benchmark.genes.tolist())}
    queried: list[int] = rng.choice(len(benchmark), POPULATION, replace=False).tolist()
    population: list[int] = list(queried)
    while len(queried) < count:
        parent = max(rng.choice(population, TOURNAMENT, replace=False).tolist(), key=lambda row: measured[row])
        genes, edge = benchmark.genes[parent].tolist(), int(rng.integers(len(EDGES)))
        genes[edge] = (genes[edge] + int(rng.integers(1, len(benchmark.operations)))) % len(benchmark.operations)
        queried.append(row_of[tuple(genes)])
        population = [*population[1:], queried[-1]]
    return queried


def explanation(benchmark: Benchmark, count: int, seed: int) -> float:
    """Kendall's tau of predicted with measured effects of the genes of 50 good architectures not trained on."""
    measured, features = benchmark.validation[:, 0], seen(benchmark)
    drawn = stream(seed, "explained").permutation(len(benchmark))
    train = drawn[:count]
    fitted = ForestPredictor(seed, TREES).fit(features[train], measured[train])
    row_of = {tuple(genes): row for row, genes in enumerate(benchmark.genes.tolist())}
    genes, choices = len(EDGES), [len(benchmark.operations)] * len(EDGES)

    def effects(predict: Callable[[np.ndarray], np.ndarray], row: int) -> np.ndarray:
        def of(architectures: Sequence[Architecture]) -> np.ndarray:
            return predict(np.array([row_of[architecture] for architecture in architectures]))

        return gene_effects(swaps(of, tuple(benchmark.genes[row].tolist()), choices), genes)

    good = [row for row in drawn[count:].tolist() if measured[row] >= np.quantile(measured, 0.75)][:50]
    predicted = [effects(lambda rows: fitted.predict(features[rows])[0], row) for row in good]
    true = [effects(lambda rows: measured[rows], row) for row in good]
    return kendall(np.concatenate(predicted), np.concatenate(true))


def seen(benchmark: Benchmark) -> np.ndarray:
    """The columns (n, d) that the predictor sees."""
    return np.hstack([benchmark.features.block(name) for name in SEEN])


def show_ranking(benchmark: Benchmark, seeds: int) -> dict[str, Any]:
    """Question 1: held-out rank correlation."""
    keys: dict[str, Any] = {}
    for count in TRAINING:
        found = [ranking(benchmark, count, seed) for seed in range(seeds)]
        rows = []
        for name in found[0].qualities:
            own = [draw.qualities[name] for draw in found]
            rows.append((name, *(said([getattr(q, part) for q in own]) for part in ("tau", "recall", "regret"))))
        print(f"\nNAS-Bench-201 CIFAR-10, {count} training architectures, {seeds} seeds, validation accuracy")
        table(("", "Kendall tau", "top-10% recall", "regret, points"), rows)
        tau, half = mean_interval(np.array([draw.qualities["predictor"].tau for draw in found]))
        test, covered = ([getattr(draw, part) for draw in found] for part in ("test_tau", "coverage"))
        print(f"tau with test accuracy {said(test)}; 90% intervals cover {said(covered)}")
        keys |= {f"tau_{count}": tau, f"tau_{count}_half": half, f"tau_{count}_test": float(np.mean(test))}
        keys |= {f"coverage_{count}": float(np.mean(covered))}
    return keys


def show_search(benchmark: Benchmark, seeds: int) -> dict[str, Any]:
    """Question 2: queries until regularized evolution's 200."""
    needed: dict[str, int | None] = {}
    rows = []
    for task, name in enumerate(benchmark.tasks):
        curves = np.stack([search(benchmark, task, seed) for seed in range(seeds)])
        there = np.flatnonzero(curves.mean(0) >= REA200[name])
        needed[name] = int(there[0]) + 1 if len(there) else None
        rows.append((name, str(REA200[name]), str(needed[name]), *(said(curves[:, n - 1]) for n in (30, 50, 70, 100))))
    print(f"\nNAS-Bench-201, guided search, {seeds} seeds: queries until REA-200's test accuracy, and it at n queries")
    table(("", "REA-200", "queries", "n=30", "n=50", "n=70", "n=100"), rows)
    return {"queries_to_rea200": needed}


def show_transfer(benchmark: Benchmark, seeds: int) -> dict[str, Any]:
    """Question 3: a new task, with and without the others."""
    rows, wins, leads = [], [], {}
    every: dict[str, list[np.ndarray]] = {}
    found: list[list[dict[str, Any]]] = [[] for _ in benchmark.tasks]
    for seed in range(seeds):
        everyone = pool_block([source(benchmark, t, seed) for t in range(len(benchmark.tasks))], seen(benchmark))
        for task, results in enumerate(found):
            results.append(transfer(benchmark, everyone, task, seed))
    for name, results in zip(benchmark.tasks, found, strict=True):
        regrets = {way: np.array([r["regrets"][way] for r in results]) for way in results[0]["regrets"]}
        for way, values in regrets.items():
            every.setdefault(way, []).append(values)
            rows.append((f"{name}, {way}", *(said(column) for column in values.T)))
        ours, alone = regrets["with the pool"], regrets["without"]
        wins.append(np.mean((ours < alone) + 0.5 * (ours == alone), axis=0))
        leads[name] = ours - alone
        share = np.mean([r["left out"] for r in results])
        rows.append((f"{name}, won against without; left out", *(f"{w:.2f}" for w in wins[-1][:2]), f"{share:.2f}"))
    rows += [(f"all tasks, {way}", *(said(c) for c in np.concatenate(v).T)) for way, v in every.items()]
    print(f"\nTransNAS-Bench-101, {seeds} seeds: regret in parts of best minus median after own evaluations")
    table(("", *(f"{n}" for n in OWN)), rows)
    harm, half = mean_interval(leads["autoencoder"][:, 1])
    rate = np.mean(wins, axis=0)
    print(f"with the pool wins {rate[1]:.2f} at {OWN[1]} and {rate[2]:.2f} at {OWN[2]} own evaluations")
    print(f"autoencoder at {OWN[1]}: regret with the pool less regret without {harm:+.3f} +- {half:.3f}")
    return {
        "transfer_win_rate_10": float(rate[1]),
        "transfer_win_rate_50": float(rate[2]),
        "negative_transfer_regret": harm,
        "negative_transfer_regret_half": half,
    }


def source(benchmark: Benchmark, task: int, seed: int) -> ForestPredictor:
    """A pool task's predictor, of SOURCES random evaluations."""
    rows = stream(seed, "source", task).choice(len(benchmark), SOURCES, replace=False)
    scores = normal_scores(benchmark.validation[rows, task])
    return ForestPredictor(seed, GUIDES).fit(seen(benchmark)[rows], scores)


def said(values: Sequence[float] | np.ndarray) -> str:
    """Mean and half width of the 95% interval."""
    mean, half = mean_interval(np.asarray(values, dtype=np.float64))
    return f"{mean:.3f} +- {half:.3f}"


def main() -> None:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=Path, help="the folder of the tables (default METANAS_NASBENCH)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    try:
        folder = tables_folder(asked.tables)
    except MetanasError as error:
        parser.error(str(error))
    cells = nasbench201(folder)
    keys = show_ranking(cells, asked.seeds)
    effects = [explanation(cells, TRAINING[-1], seed) for seed in range(asked.seeds)]
    print(f"effects of genes, predicted and measured by one-operation swaps: Kendall tau {said(effects)}")
    keys |= {"swap_tau": float(np.mean(effects))}
    keys |= show_search(cells, asked.seeds) | show_transfer(transnas(folder), asked.seeds)
    if asked.json:
        print(json.dumps({"seeds": asked.seeds, **keys}))


if __name__ == "__main__":
    main()
