"""`metanas train`: the whole search, into a run's folder."""

from pathlib import Path

from metanas.api import Show
from metanas.assembly import (
    SUPERNET,
    WorkerRecipe,
    left_out,
    make_executor,
    make_space,
    precision_of,
    training_pool,
    uncompiled,
)
from metanas.commands.blocks import Context, make_features, scoring_batch
from metanas.config import RunConfig, as_yaml
from metanas.errors import MetanasError
from metanas.files import save_arrays, write_text
from metanas.learning.state import weights_of
from metanas.learning.trainer import MetaTrainer
from metanas.measuring.cost import costs
from metanas.measuring.features import ArchitectureFeatures, chosen_blocks
from metanas.measuring.latency import latency_in
from metanas.run import Recorder, RunFolder
from metanas.search.catalogue import asks_for_latency, make_limits, make_strategy
from metanas.search.loop import Outcome, Search, learn
from metanas.search.schedule import Progress, outer_rate
from metanas.spaces.space import Space
from metanas.store import Store
from metanas.strategies.strategy import Strategy
from predictors.data import TOGETHER, Data
from predictors.features import Table
from predictors.saved import Saved, save_predictor
from predictors.screening import Screen


def train(
    config: RunConfig,
    out: Path,
    data: Path | None = None,
    resume: bool = False,
    download: bool = False,
    show: Show = lambda event: None,
) -> RunFolder:
    """Searches as `config` says and leaves the meta-network in `out`.

    `show` is told every event of the log, and of files in the pool that are no images. With `resume` an interrupted run
    goes on from its last checkpoint, to the result that it would have reached; a finished one is left as it is. Raises
    MetanasError before anything is written when pool, space or folder are not as they should be.
    """
    folder = RunFolder(out)
    config = _settled(config, folder, resume)
    # All say what is wrong with the configuration before anything is written.
    pool = training_pool(config, data, download)
    if (text := left_out((*pool.train, *pool.validation, *pool.test))) is not None:
        show({"event": "note", "text": text})
    space = make_space(config)
    counted = asks_for_latency(config.search.strategy, config.search.limits, config.objective)
    blocks = _search_blocks(config, space, counted)
    latency = latency_in(out, space, config.image.size, counted or "latency" in blocks)
    context = scoring_batch(config, pool) if "zero-cost" in blocks else {}
    features = make_features(config, space, latency, blocks, context)
    cost = costs(space, config.image.size, latency)
    limits = make_limits(cost, config.search.limits)
    strategy = make_strategy(config.search.strategy, space, config.search.population, limits)
    folder.begin(config, resume)
    folder.tell_changes(pool.contents, show)
    if all((out / name).is_file() for name in RESULTS):
        return folder
    with folder.store() as store, make_executor(WorkerRecipe(config, data)) as executor:
        trainer = MetaTrainer(SUPERNET, executor)
        screen = Screen(config.predictor.floor, config.seed, config.predictor.audit)
        progress = _restore(folder, store, config.budget.choice, space, trainer, strategy, screen, features)
        recorder = Recorder(folder, store, show)
        if (why := uncompiled(config)) is not None:
            text = f"training takes up to twice as long, as nothing can be compiled here ({why}): metanas doctor"
            recorder.event("note", seconds=progress.seconds, text=text)
        search = Search(
            seed=config.seed,
            space=space,
            trainer=trainer,
            strategy=strategy,
            screen=screen,
            features=features,
            cost=cost,
            inner_steps=config.inner.steps,
            budget=config.budget,
            settings=config.search,
            listener=recorder,
            save=folder.save_checkpoint,
            progress=progress,
            limits=limits,
            objective=config.objective,
        )
        outcome = search.run()
        if screen.predictor is not None:
            _save_predictor(out / "predictor.safetensors", config, space, screen, features, context)
        _finish(folder, config, space, outcome, progress, trainer)
    return folder


def _settled(config: RunConfig, folder: RunFolder, resume: bool) -> RunConfig:
    """With a precision in place of `auto`: the one that the run began with, or this machine's where it begins now."""
    if config.precision != "auto":
        return config
    begun = resume and (folder.path / "config.yaml").is_file()
    return config.model_copy(update={"precision": folder.config.precision if begun else precision_of(config)})


def _search_blocks(config: RunConfig, space: Space, counted: bool) -> tuple[str, ...]:
    """Those that are named; by default what costs nothing, which seconds that are `counted` anyway do."""
    if config.predictor.blocks and "task" in config.predictor.blocks:
        raise MetanasError(
            "predictor.blocks: a search learns from means over tasks, to which the block 'task' says nothing; leave it "
            "out, `metanas predictor retrain` learns with it."
        )
    chosen = chosen_blocks(space, config.predictor.blocks, "predictor.blocks")
    if config.predictor.blocks is None and counted:
        return chosen_blocks(space, [*chosen, "latency"], "latency")
    return chosen


def _restore(
    folder: RunFolder,
    store: Store,
    choice: int,
    space: Space,
    trainer: MetaTrainer,
    strategy: Strategy,
    screen: Screen,
    features: ArchitectureFeatures,
) -> Progress:
    """Puts everything where the last checkpoint left it; the beginning when there is none.

    `choice` is the number of the finalists' measurements in the store, which the screen does not learn from.
    """
    run = folder.id
    found = folder.load_checkpoint()
    if found is None:
        store.discard_from(run, 0)
        return Progress()
    progress, state, population = found
    if progress.phase <= choice:
        # What a generation had written before its checkpoint is measured again.
        store.discard_from(run, max(0, progress.phase - 1))
    trainer.restore(state)
    strategy.restore(population)
    kept = store.evaluations(run=run)
    for generation in sorted({e.generation for e in kept if e.generation < choice}):
        learn(screen, features, [e for e in kept if e.generation == generation], space.default)
    return progress


def _save_predictor(
    path: Path, config: RunConfig, space: Space, screen: Screen, features: ArchitectureFeatures, context: Context
) -> None:
    """The search's own: its rows are means over all tasks of a generation."""
    assert screen.predictor is not None
    table = Table(screen.features, features.table([space.default]).layout)
    data = Data.of(table, screen.targets, [TOGETHER] * len(table))
    save_predictor(path, Saved("trees", config.seed, space.name, data, context), screen.predictor)


RESULTS = ("weights.safetensors", "repeat.yaml", "steps.json", "population.json")


def _finish(
    folder: RunFolder, config: RunConfig, space: Space, outcome: Outcome, progress: Progress, trainer: MetaTrainer
) -> None:
    save_arrays(folder.path / "weights.safetensors", weights_of(trainer.state()))
    warmup, widening, *later = progress.finished
    generations = len(config.budget.generation_steps)
    steps = {
        "minutes": None,
        "warmup_steps": warmup,
        "widening_steps": widening,
        "generation_steps": later[:generations],
        "settling_steps": later[generations:],
    }
    budget = config.model_dump(mode="json")["budget"] | steps
    repeat = config.model_dump(mode="json") | {"budget": budget}
    write_text(folder.path / "repeat.yaml", as_yaml(RunConfig.model_validate(repeat)))
    rates = [(count, outer_rate(config.search, config.budget, phase)) for phase, count in enumerate(progress.finished)]
    folder.write_json("steps.json", {**steps, "rates": rates, "seconds": progress.seconds})
    folder.write_json(
        "population.json",
        {
            "space": space.name,
            "chosen": list(outcome.chosen),
            "population": [c.row() for c in outcome.population],
            "finalists": list(outcome.finalists),
        },
    )
