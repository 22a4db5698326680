"""`metanas predictor retrain` and its neighbours: the predictor anew, from the evaluations of several runs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.commands.blocks import (
    Context,
    describe_tasks,
    embed_pool,
    features_of,
    make_features,
    meta_network,
    pool_of,
    scoring_batch,
)
from metanas.errors import MetanasError
from metanas.measuring.features import ArchitectureFeatures, blocks_of, chosen_blocks
from metanas.measuring.latency import LATENCY
from metanas.measuring.task_description import TaskDescriber
from metanas.run import RunFolder
from metanas.spaces.space import Space
from metanas.store import NewerStore, Store
from predictors.choice import QUICK, RetrainReport, retrain
from predictors.data import FEWEST_TASKS, Data
from predictors.drift import Drift, drift
from predictors.models import GRAPH_MODELS
from predictors.saved import Saved
from predictors.versions import Comparison, Versions

Row = tuple[Architecture, str, float]
"""An architecture, a task, and its mean accuracy there less that of the space's default on the same episodes."""


@dataclass(frozen=True)
class Retrained:
    """A new version: its report, how it compares with the one before, and whether it is in use now."""

    version: int
    report: RetrainReport
    refused: tuple[str, ...]  # a sentence for each part of a store that was left out
    comparison: Comparison | None
    promoted: bool
    why: str


def retrain_predictor(
    runs: Sequence[RunFolder],
    stores: Sequence[str] = (),
    models: Sequence[str] = QUICK,
    without: Sequence[str] = (),
    samples: Path | None = None,
) -> Retrained:
    """A new version of the first run's predictor, from its own evaluations, the other runs' and those of more stores.

    It sees all blocks but those named `without`. What tasks and scores need of the pools' `samples` is taken from the
    version in use where that has it. It is put in use unless it is worse than the present one. Evaluations of another
    space, and stores of a newer version, are left out and named. Raises MetanasError when too little is left.
    """
    first = runs[0]
    config, space = first.config, make_space(first.config)
    versions = Versions(first.path)
    versions.adopt()
    rows, refused = gather(first, [*map(_url, runs), *stores])
    blocks = _blocks(space, models, without)
    by_task = "task" not in without
    if by_task and len({task for _, task, _ in rows}) < FEWEST_TASKS:
        by_task = False
        refused.append(f"the block 'task': it takes {FEWEST_TASKS} tasks or more to learn how tasks differ.")
    previous = versions.read(versions.history[-1]) if versions.history else None
    context = _context(first, blocks, by_task, previous, samples)
    timed = (first.path / LATENCY).is_file()
    features = make_features(config, space, first.path, timed, blocks, context)
    tasks: dict[str, np.ndarray] | None = None
    if by_task:
        tasks = _described(runs, rows, context, previous, samples)
        rows, lost = _known(rows, tasks)
        refused += lost
        if len({task for _, task, _ in rows}) < FEWEST_TASKS:
            raise MetanasError(" ".join(lost))
    data = _data(features, rows, tasks)
    fitted, report = retrain(data, _costs(features, rows), config.seed, models)
    saved = Saved(report.model, config.seed, space.name, data, context)
    number = versions.add(saved, fitted, _card(report, [*map(_url, runs), *stores], refused))
    try:
        comparison = versions.promote(number, config.seed)
    except MetanasError as error:
        return Retrained(number, report, tuple(refused), None, False, str(error))
    return Retrained(number, report, tuple(refused), comparison, True, f"version {number} is in use")


def watch(run: RunFolder, stores: Sequence[str], samples: Path | None = None) -> Drift:
    """How far the evaluations of `stores` are from what the run's predictor in use expects.

    A predictor that tells tasks apart is asked about tasks that it knows, or that the run's pool has.
    """
    versions = Versions(run.path)
    versions.adopt()
    if not versions.history:
        raise MetanasError(f"'{run.path}' has no predictor; write one with `metanas predictor retrain`.")
    rows, _ = gather(run, stores)
    saved, tasks = versions.read(versions.history[-1]), None
    if saved.data.descriptions():
        tasks = _described([run], rows, saved.context, saved, samples)
        rows, lost = _known(rows, tasks)
        if not rows:
            raise MetanasError(" ".join(lost))
    return drift(saved, _data(features_of(run, run.config, make_space(run.config), saved), rows, tasks))


def gather(run: RunFolder, stores: Sequence[str]) -> tuple[list[Row], list[str]]:
    """What `stores` say of the run's space, and a sentence for each part of them that is left out."""
    space, refused, rows = make_space(run.config), [], []
    for url in stores:
        try:
            with Store(url) as store:
                by_run = [store.evaluations(run=name) for name in store.runs()]
        except NewerStore as error:
            refused.append(f"{error} It is left out.")
            continue
        evaluations = [evaluation for own in by_run for evaluation in own]
        if not evaluations:
            refused.append(f"the store '{url}' holds no evaluations; look at its URL, or search first.")
        for other in sorted({e.space for e in evaluations} - {space.name}):
            count = sum(e.space == other for e in evaluations)
            refused.append(
                f"the store '{url}' holds {count} evaluations of the space '{other}', this run's is '{space.name}': "
                "they are left out; retrain the predictor of a run of that space with them."
            )
        known = {e.architecture for e in evaluations if e.space == space.name}
        odd = {architecture for architecture in known if not _belongs(space, architecture)}
        if odd:
            refused.append(
                f"the store '{url}' holds {len(odd)} architectures of another version of the space '{space.name}', "
                f"such as {min(odd)}: they are left out; give stores of runs with this run's space.options."
            )
        for own in by_run:
            usable = [e for e in own if e.space == space.name and e.architecture not in odd]
            rows += observed(usable, space.default)
    if not rows:
        raise MetanasError(" ".join(refused) or f"there are no evaluations in {', '.join(stores)}; search first.")
    return rows, refused


def observed(evaluations: Sequence[Evaluation], anchor: Architecture) -> list[Row]:
    """Mean differences to `anchor` within one run, one a pair of architecture and task.

    Episodes and weights differ between generations; the difference to one architecture on the same episode and the same
    weights can be compared.
    """
    anchors = {
        (e.weights_version, e.generation, e.seed, e.split, e.episode): e.accuracy
        for e in evaluations
        if e.architecture == anchor and e.accuracy is not None
    }
    found: dict[tuple[Architecture, str], list[float]] = defaultdict(list)
    for e in evaluations:
        at = (e.weights_version, e.generation, e.seed, e.split, e.episode)
        if e.accuracy is not None and (base := anchors.get(at)) is not None:
            found[e.architecture, e.task].append(e.accuracy - base)
    return [(architecture, task, float(np.mean(gaps))) for (architecture, task), gaps in found.items()]


def _belongs(space: Space, architecture: Architecture) -> bool:
    try:
        space.check(architecture)
    except MetanasError:
        return False
    return True


def _url(run: RunFolder) -> str:
    return run.store_url


def _blocks(space: Space, models: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    """All blocks of architectures but those left out; the adjacency where a model is to be tried that reads it."""
    given = (*blocks_of(space), "task")
    for name in without:
        if name not in given:
            raise MetanasError(
                f"--without {name}: a predictor of the space '{space.name}' has no such block; it has "
                f"{', '.join(given)}."
            )
    unread = set() if set(models) & set(GRAPH_MODELS) else {"adjacency"}
    return chosen_blocks(space, [name for name in blocks_of(space) if name not in {*without, *unread}], "--without")


def _context(
    run: RunFolder, blocks: Sequence[str], by_task: bool, previous: Saved | None, samples: Path | None
) -> Context:
    """What the features are made from; what the version before has of it is not made again."""
    names = [*(("batch.inputs", "batch.labels") if "zero-cost" in blocks else ()), *(("pool",) if by_task else ())]
    have = {} if previous is None else previous.context
    if set(names) <= have.keys():
        return {name: have[name] for name in names}
    config, found = run.config, dict[str, np.ndarray]()
    pool = pool_of(config, samples)
    if "zero-cost" in blocks:
        found |= scoring_batch(config, pool)
    if by_task:
        found["pool"] = embed_pool(meta_network(run), config, pool)
    return found


def _described(
    runs: Sequence[RunFolder], rows: Sequence[Row], context: Context, previous: Saved | None, samples: Path | None
) -> dict[str, np.ndarray]:
    """The description (d,) of every task that the version before knows, or that a pool of the runs has."""
    known = {} if previous is None else previous.data.descriptions()
    missing = {task for _, task, _ in rows} - known.keys()
    if not missing:
        return known
    return known | describe_tasks(runs, missing, TaskDescriber(meta_network(runs[0]), context["pool"]), samples)


def _known(rows: Sequence[Row], tasks: Mapping[str, np.ndarray]) -> tuple[list[Row], list[str]]:
    """The rows of tasks that could be described, and a sentence for the others."""
    lost = sorted({task for _, task, _ in rows if task not in tasks})
    if not lost:
        return list(rows), []
    return [row for row in rows if row[1] in tasks], [
        f"the evaluations of {len(lost)} tasks such as '{lost[0]}', which no pool of these runs has and which can so "
        "not be described: name the run that they are of, or give --without task."
    ]


def _data(features: ArchitectureFeatures, rows: Sequence[Row], tasks: Mapping[str, np.ndarray] | None) -> Data:
    """With the block "task" where `tasks` are described."""
    different = list(dict.fromkeys(architecture for architecture, _, _ in rows))
    place = {architecture: row for row, architecture in enumerate(different)}
    table = features.table(different).take([place[architecture] for architecture, _, _ in rows])
    if tasks is not None:
        table = table.beside("task", np.stack([tasks[task] for _, task, _ in rows]))
    return Data.of(table, np.array([target for _, _, target in rows]), [task for _, task, _ in rows])


def _costs(features: ArchitectureFeatures, rows: Sequence[Row]) -> np.ndarray:
    """Parameters and multiply-accumulates (n, 2)."""
    costs = [features.cost(architecture) for architecture, _, _ in rows]
    return np.array([(own.params, own.macs) for own in costs], dtype=np.float64)


def _card(report: RetrainReport, stores: Sequence[str], refused: Sequence[str]) -> dict[str, object]:
    tau = report.predictor
    return {
        "from": list(stores),
        "left out": list(refused),
        "figures": {
            "held out": report.held_out_by,
            "tau": [tau.tau, tau.low, tau.high],
            "params": report.params.tau,
            "macs": report.macs.tau,
            "nearest": report.nearest.tau,
            "recall": report.quality.recall,
            "regret": report.quality.regret,
            "coverage": report.coverage,
            "models": report.models,
        },
    }
