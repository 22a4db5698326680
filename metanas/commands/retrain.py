"""`metanas predictor retrain` and its neighbours: the predictor anew, from the evaluations of several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

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
from metanas.commands.gathering import Row, gather, observed_together
from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.measuring.features import ArchitectureFeatures, blocks_of, chosen_blocks
from metanas.measuring.latency import LATENCY, latency_in
from metanas.measuring.task_description import TaskDescriber
from metanas.run import RunFolder
from metanas.spaces.space import Space
from metanas.store import Store, shown
from predictors.choice import RetrainReport, retrain, seen_by
from predictors.data import FEWEST_TASKS, TOGETHER, Data
from predictors.drift import Drift, drift
from predictors.models import GRAPH_MODELS
from predictors.saved import Saved
from predictors.versions import Comparison, Versions, Worse


@dataclass(frozen=True)
class Retrained:
    """A new version: its report, how it compares with the one before, and whether it is in use now."""

    version: int
    report: RetrainReport
    refused: tuple[str, ...]  # a sentence for each part of a store that was left out
    comparison: Comparison | None
    promoted: bool
    why: str


@dataclass(frozen=True)
class Watched:
    """How far new evaluations have drifted, and a sentence for each part of their stores that was left out."""

    drift: Drift
    refused: tuple[str, ...]


def retrain_predictor(
    runs: Sequence[RunFolder],
    stores: Sequence[str] = (),
    models: Sequence[str] = (),
    without: Sequence[str] = (),
    samples: Path | None = None,
) -> Retrained:
    """A new version of the first run's predictor, from its own evaluations, the other runs' and those of more stores.

    It sees all blocks but those named `without`, and its model is the best of `models` (the quick ones). What tasks and
    scores need of the pools' `samples` is taken from the version in use where that has it. It is put in use unless it
    is worse than the present one. Evaluations of another space or version of it, and stores of a newer version, are
    left out and named.

    Raises MetanasError when too little is left, and where the new version, which is kept, cannot be compared with the
    one in use.
    """
    runs, foreign = _of_one_space(runs)
    first = runs[0]
    config, space = first.config, make_space(first.config)
    stores = [*(run.store_url for run in runs), *stores]
    rows, refused = gather(first, stores)
    refused += foreign
    versions = Versions(first.path)
    try:
        versions.adopt()
    except MetanasError as error:
        refused.append(f"the predictor in use, with which the new one is not compared: {error}")
    previous = versions.read(versions.history[-1]) if versions.history else None
    data, costs, context, lost = _learned(runs, rows, models, without, previous, samples)
    refused += lost
    fitted, report = retrain(data, costs, config.seed, models)
    saved = Saved(report.model, config.seed, space.name, seen_by(report.model, data), context)
    number = versions.add(saved, fitted, _card(report, stores, refused))
    try:
        comparison = versions.promote(number, config.seed)
    except Worse as error:
        return Retrained(number, report, tuple(refused), error.comparison, False, str(error))
    return Retrained(number, report, tuple(refused), comparison, True, f"version {number} is in use")


def watch(run: RunFolder, stores: Sequence[str], samples: Path | None = None) -> Watched:
    """How far the evaluations of `stores` are from what the run's predictor in use expects.

    A predictor that tells tasks apart is asked about tasks that it knows, or that the run's pool has; the search's own,
    which learned from means over tasks, about such means. Of others it is said that they are new.
    """
    versions = Versions.of(run.path)
    saved = versions.read(versions.history[-1])
    rows, refused = gather(run, stores)
    names = {task for _, task, _ in rows}
    known = tasks = None
    if saved.data.task_names == [TOGETHER]:
        with Store(run.store_url, existing=True) as store:
            known = {evaluation.task for evaluation in store.evaluations(run=run.id)}
        rows, _ = gather(run, stores, observed_together)
    if saved.data.descriptions():
        tasks = _described([run], rows, saved.context, saved, samples)
        rows, lost = _known(rows, tasks)
        refused += lost
    features = features_of(run, run.config, make_space(run.config), saved)
    return Watched(drift(saved, _data(features, rows, tasks) if rows else None, names, known), tuple(refused))


def _of_one_space(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """The runs of the first one's space, and a sentence for each other."""
    first, space = runs[0].path, runs[0].config.space
    others = [run for run in runs if run.config.space != space]
    return [run for run in runs if run not in others], [
        f"the run '{run.path}', whose space or space.options are others than those of '{first}', so that their "
        "architectures are other networks; retrain its own predictor with it."
        for run in others
    ]


def _learned(
    runs: Sequence[RunFolder],
    rows: Sequence[Row],
    models: Sequence[str],
    without: Sequence[str],
    previous: Saved | None,
    samples: Path | None,
) -> tuple[Data, np.ndarray, Context, list[str]]:
    """What a predictor learns from the rows, their networks' costs (n, 2), and what features are made from.

    With a sentence for what is left out of it. Raises MetanasError where too few tasks can be described.
    """
    run = runs[0]
    config, space = run.config, make_space(run.config)
    blocks = _blocks(space, models, without, timed=(run.path / LATENCY).is_file())
    by_task = "task" not in without and _enough(rows)
    context = _context(run, blocks, by_task, previous, samples)
    latency = latency_in(run.path, space, config.image.size, "latency" in blocks)
    features = make_features(config, space, latency, blocks, context)
    tasks, lost = None, list[str]()
    if by_task:
        tasks = _described(runs, rows, context, previous, samples)
        rows, lost = _known(rows, tasks)
        if not _enough(rows):
            raise MetanasError(" ".join(lost))
    elif "task" not in without:
        lost = [f"the block 'task': it takes {FEWEST_TASKS} tasks or more to learn how tasks differ."]
    return _data(features, rows, tasks), _costs(space, config.image.size, rows), context, lost


def _enough(rows: Sequence[Row]) -> bool:
    return len({task for _, task, _ in rows}) >= FEWEST_TASKS


def _blocks(space: Space, models: Sequence[str], without: Sequence[str], timed: bool) -> tuple[str, ...]:
    """All blocks of architectures but those left out.

    The adjacency where a model is to be tried that reads it, and seconds where the run is `timed`: has a table of them.
    """
    given = (*blocks_of(space), "task")
    for name in without:
        if name not in given:
            raise MetanasError(
                f"--without {name}: a predictor of the space '{space.name}' has no such block; it has "
                f"{', '.join(given)}."
            )
    out = {*without}
    out |= set() if set(models) & set(GRAPH_MODELS) else {"adjacency"}
    out |= set() if timed else {"latency"}
    return chosen_blocks(space, [name for name in blocks_of(space) if name not in out], "--without")


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


def _costs(space: Space, size: int, rows: Sequence[Row]) -> np.ndarray:
    """Parameters and multiply-accumulates (n, 2)."""
    costs = [cost(space, architecture, size) for architecture, _, _ in rows]
    return np.array([(own.params, own.macs) for own in costs], dtype=np.float64)


def _card(report: RetrainReport, stores: Sequence[str], refused: Sequence[str]) -> dict[str, object]:
    return {
        "from": [shown(url) for url in stores],
        "left out": list(refused),
        "held out": {by: asdict(held) for by, held in report.held_out.items()},
    }
