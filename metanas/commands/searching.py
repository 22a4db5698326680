"""`metanas search`: one architecture for one ordinary task, or the best of a benchmark's table, into a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from metanas.api import Architecture, Show
from metanas.commands.earlier import earlier_predictors, earlier_weights
from metanas.config import SearchConfig
from metanas.errors import MetanasError
from metanas.found import RESULT, BuiltSpace, SearchFolder, read_task, train_found
from metanas.learning.executor import executor_for, one_thread
from metanas.learning.samples import Classification
from metanas.learning.supernet import SuperNet
from metanas.learning.worker import Worker
from metanas.measuring.cost import CostOf, costs
from metanas.measuring.estimation import Measured
from metanas.measuring.latency import latency_in
from metanas.measuring.measures import ALONE, SHARED, TABLE, Estimator, MeasureRecipe, SharedRecipe, TableRecipe
from metanas.measuring.oneshot import OneShot
from metanas.measuring.scores import SCORES
from metanas.parsing import parse
from metanas.run import Recorder
from metanas.search.catalogue import DARTS, ENAS, STRATEGIES, asks_for_latency, make_limits, make_strategy
from metanas.search.darts import Darts, DartsSettings
from metanas.search.rounds import Rounds, run_darts
from metanas.search.schedule import SearchProgress
from metanas.seeding import torch_stream
from metanas.spaces.genes import Genotypes
from metanas.spaces.space import Space
from metanas.store import Store
from metanas.strategies.guided import Guided
from metanas.strategies.halving import Race
from metanas.strategies.strategy import Strategy
from metanas.tables.catalogue import load_table
from metanas.tables.table import Table, tables_folder


def search(
    config: SearchConfig,
    out: Path,
    data: Path | None = None,
    tables: Path | None = None,
    resume: bool = False,
    download: bool = False,
    show: Show = lambda event: None,
) -> SearchFolder:
    """Searches as `config` says and leaves what was found in `out`.

    `data` and `tables` are the folders of named data sets and of benchmarks' tables. `show` is told every event of the
    log. With `resume` an interrupted search goes on from its last checkpoint, to the result that it would have reached;
    a finished one is left as it is. Raises MetanasError before anything is written when configuration or folder are
    not as they should be.
    """
    with one_thread():
        if config.table is not None:
            return _search_table(config, config.table, tables_folder(tables), out, resume, show)
        return _search_task(config, data, download, out, resume, show)


@dataclass(frozen=True)
class Asked:
    """What a strategy searches, and what its proposals are measured by."""

    space: Genotypes
    cost: CostOf
    task: str
    measure: str
    recipe: Callable[[], Worker]
    shared: OneShot | None = None


@dataclass(frozen=True)
class Result:
    """What was found, after which round, and what it took, as result.json has it."""

    architecture: Architecture
    round: int
    effort: dict[str, Any]


def _search_table(config: SearchConfig, name: str, tables: Path, out: Path, resume: bool, show: Show) -> SearchFolder:
    for key in ("data", "task", "image", "space", "final"):
        if getattr(config, key) != SearchConfig.model_fields[key].default:
            raise MetanasError(f"{key}: a table has its own task, space and trainings; leave it out, or 'table'.")
    if config.evaluator not in (None, Estimator(TABLE)):
        raise MetanasError("evaluator: a table is looked up; leave it out, or 'table'.")
    if config.strategy.get("name") in (ENAS, DARTS):
        raise MetanasError(f"strategy: '{config.strategy['name']}' trains weights, of which a table has none.")
    table = _on_device(config, load_table(tables, name))
    asked = Asked(table.space, table.cost, name, TABLE, TableRecipe(tables, name))
    config = _with_rungs(config, table)
    strategy = _strategy(config, asked)
    folder = SearchFolder(out)
    folder.begin(config, resume)
    if not folder.finished:
        with folder.store() as store:
            result = _run_rounds(config, asked, strategy, show, folder, store)
        found = result.architecture
        described = {"architecture": list(found), "description": table.space.describe(found)}
        scores = {"validation": table.validate(found), "test": table.test(found)}
        folder.write_json(RESULT, described | result.effort | scores)
    return folder


def _search_task(
    config: SearchConfig, data: Path | None, download: bool, out: Path, resume: bool, show: Show
) -> SearchFolder:
    if config.device is not None:
        raise MetanasError("device: a task's latency is measured on this device; leave it out, or name a 'table'.")
    task = read_task(config, data, download)
    built = BuiltSpace(config.image, config.space)
    space, folder = built.make(), SearchFolder(out)
    run: Callable[[SearchFolder, Store], Result]
    if config.strategy.get("name") == DARTS:
        run = partial(_run_darts, config, _darts(config, space, task[1]), show)
    else:
        asked = _asked(config, space, task[0].name, task[1], out)
        run = partial(_run_rounds, config, asked, _strategy(config, asked), show)
    folder.begin(config, resume)
    folder.tell_changes({task[0].name: task[0].content_hash}, show)
    if not folder.finished:
        with folder.store() as store:
            result = run(folder, store)
            train_found(folder, store, config, task, built, result.architecture, result.round, result.effort)
    return folder


def _run_rounds(
    config: SearchConfig, asked: Asked, strategy: Strategy, show: Show, folder: SearchFolder, store: Store
) -> Result:
    """Asks and tells, from the last checkpoint on where there is one."""
    progress = SearchProgress()
    if (found := folder.last()) is not None:
        content, state = found
        progress = SearchProgress(**content["progress"])
        strategy.restore(content["strategy"])
        if asked.shared is not None:
            asked.shared.restore(state)
    # What was measured after the last checkpoint is measured again.
    store.discard_from(folder.id, progress.round)
    recorder = Recorder(folder, store, show)
    with executor_for(asked.recipe, config.workers) as executor:
        rounds = Rounds(
            seed=config.seed,
            strategy=strategy,
            measure=Measured(
                executor, asked.measure, asked.cost, asked.space, asked.task, config.seed, recorder.record
            ),
            budget=config.budget,
            batch=config.batch,
            limits=make_limits(asked.cost, config.limits),
            objective=config.objective,
            shared=asked.shared,
            enas=config.strategy["name"] == ENAS,
            progress=progress,
            save=folder.save,
            event=recorder.event,
        )
        architecture = rounds.run()
    effort: dict[str, Any] = {"evaluations": progress.measured, "seconds": progress.seconds}
    if isinstance(strategy, Guided) and (believed := strategy.believed):
        effort["believed"] = believed
        text = f"in the end the searches that it learned from had {1 - believed[-1]:.0%} of the say"
        worse = ": they order this task's networks worse than its own measurements" if believed[-1] > 0.5 else ""
        recorder.event("note", text=text + worse)
    if asked.shared is not None:
        effort["steps"] = asked.shared.steps
    if (latency := asked.cost(architecture).latency) is not None:
        effort["latency"] = latency
    return Result(architecture, progress.round, effort)


def _run_darts(config: SearchConfig, darts: Darts, show: Show, folder: SearchFolder, store: Store) -> Result:
    """Steps, from the last checkpoint on where there is one."""
    progress = SearchProgress()
    if (found := folder.last()) is not None:
        progress = SearchProgress(**found[0]["progress"])
        darts.restore(found[1])
    store.discard_from(folder.id, 0)  # a final training that nobody heard of
    architecture = run_darts(darts, config.budget, progress, folder.save, Recorder(folder, store, show).event)
    watched: dict[str, Any] = {
        "steps": darts.steps,
        "skips": darts.skips,
        "collapsed": darts.collapsed,
        "kept": None if darts.kept is None else darts.kept + 1,  # the epoch, counted from 1
    }
    if darts.eigenvalues:
        watched["eigenvalues"] = darts.eigenvalues
    return Result(architecture, 0, {"evaluations": 0, "seconds": progress.seconds} | watched)


def _strategy(config: SearchConfig, asked: Asked) -> Strategy:
    name = config.strategy.get("name")
    if name not in (*STRATEGIES, ENAS, DARTS):
        raise MetanasError(f"strategy: there is no {name!r}; name one of {', '.join((*STRATEGIES, ENAS, DARTS))}.")
    if name == ENAS and asked.measure != SHARED:
        raise MetanasError(f"evaluator: ENAS measures by shared weights; leave it out, or name '{SHARED}'.")
    choice = config.strategy | {"name": "reinforce"} if name == ENAS else config.strategy
    limits, sources = make_limits(asked.cost, config.limits), earlier_predictors(config, asked.space)
    return make_strategy(choice, asked.space, config.population, limits, "strategy", sources)


def _on_device(config: SearchConfig, table: Table) -> Table:
    """The table with the latency on the device that is named, which must be where latency is asked for."""
    if config.device is not None:
        return table.on(config.device)
    if asks_for_latency(config.strategy, config.limits, config.objective):
        known = ", ".join(table.latencies)
        raise MetanasError(
            f"device: latency is asked for, and the table '{table.name}' has that of {known}; name one."
            if known
            else f"the table '{table.name}' has no latency on any device; ask for other costs, or take another table."
        )
    return table


def _with_rungs(config: SearchConfig, table: Table) -> SearchConfig:
    """A race climbs the table's fidelities. Raises MetanasError where it names others, or where there is only one."""
    name, shares = config.strategy.get("name"), table.fidelities
    kind = STRATEGIES.get(str(name))
    if not (isinstance(kind, type) and issubclass(kind, Race)):
        return config
    if len(shares) == 1:
        raise MetanasError(
            f"strategy: '{name}' needs cheap measurements, and the table '{table.name}' has only full ones."
        )
    rungs = config.strategy.get("rungs", list(shares))
    if not isinstance(rungs, list | tuple) or any(rung not in shares for rung in rungs):
        raise MetanasError(
            f"strategy.rungs: the table '{table.name}' has measurements after "
            f"{' and '.join(f'{share:g}' for share in shares)} of a training, but rungs is {rungs}; name some of those."
        )
    return config.model_copy(update={"strategy": config.strategy | {"rungs": rungs}})


def _asked(config: SearchConfig, space: Space, task: str, parts: Classification, out: Path) -> Asked:
    """The evaluator by name; where latency is asked for, with a table of it in the folder."""
    default = SHARED if config.strategy.get("name") == ENAS else ALONE
    chosen = config.evaluator or Estimator(default)
    if chosen.name == TABLE:
        raise MetanasError("evaluator.name: 'table' looks up what 'table' names; name one, or another evaluator.")
    if config.objective is not None and chosen.name in SCORES:
        raise MetanasError(
            f"objective: it weighs accuracy, but the evaluator '{chosen.name}' is a score; name another."
        )
    timed = asks_for_latency(config.strategy, config.limits, config.objective)
    of = costs(space, config.image.size, latency_in(out, space, config.image.size, timed))
    if chosen.name == SHARED:
        shared = OneShot(space, parts, config.seed)
        return Asked(space, of, task, SHARED, SharedRecipe(space, parts, config.seed), shared)
    weights = None if chosen.warm_start is None else earlier_weights(config, Path(chosen.warm_start))
    recipe = MeasureRecipe(chosen, space, parts.train, parts.validation, config.seed, weights)
    recipe()  # says what is wrong with a proxy before anything is written, and not in an actor
    return Asked(space, of, task, chosen.name, recipe)


def _darts(config: SearchConfig, space: Space, parts: Classification) -> Darts:
    if config.evaluator is not None or config.limits or config.objective is not None or config.learn_from:
        raise MetanasError(
            "evaluator, limits, objective, learn_from: DARTS measures no architecture, asks no predictor and knows no "
            "costs; leave them out."
        )
    options = {key: value for key, value in config.strategy.items() if key != "name"}
    settings = parse(DartsSettings, options, "strategy: 'darts'")
    weights = space.initial_weights(torch_stream(config.seed, "shared weights"))
    return Darts(SuperNet(space, weights), parts, settings, config.seed)
