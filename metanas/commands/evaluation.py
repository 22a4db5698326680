"""`metanas evaluate`: the meta-network and every baseline, on the same test episodes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from metanas.api import Architecture, Show
from metanas.assembly import (
    CONV4,
    FOLDERS,
    RANDOM,
    SUPERNET,
    WorkerRecipe,
    answering_precision,
    make_executor,
    make_pool,
    random_architecture,
)
from metanas.commands.baselines import AdaptationJob, FrozenJob, Score, ScratchJob, meta_train_alone
from metanas.commands.blocks import DescriptionJob
from metanas.commands.candidates import candidates
from metanas.commands.kept_scores import KeptScores
from metanas.commands.wording import half_width
from metanas.config import RunConfig, TestConfig
from metanas.errors import MetanasError
from metanas.files import save_arrays
from metanas.learning.executor import Executor, Job
from metanas.learning.state import weights_of
from metanas.learning.trainer import MetaTrainer
from metanas.run import RunFolder
from metanas.statistics import mean_interval, paired
from tasks.episode_folders import folder_episodes


def evaluate(folder: RunFolder, data: Path | None = None, show: Show = lambda event: None) -> list[dict[str, Any]]:
    """Scores the run and its baselines on the configuration's test episodes, into evaluation.json.

    Baselines that were not meta-trained yet are trained first, for as many outer steps on the same training episodes
    as the run made, and kept in the run's folder. After an interruption it goes on with what it had done.
    """
    config, chosen = _answering(folder), folder.chosen
    pool = make_pool(config, data)
    if not pool.test:
        raise MetanasError(f"the pool of '{folder.path}' has no test split; name its tasks under splits.test.")
    folder.tell_changes(pool.contents, show)
    with make_executor(WorkerRecipe(config, data)) as executor:
        executor.load(SUPERNET, folder.weights())
        for network in (CONV4, RANDOM):
            _ready_baseline(folder, config, network, executor, show)
        kept = KeptScores(folder.path / "evaluation.part.jsonl", _basis(folder, config, pool.contents), executor)
        results = [
            {
                "name": test.name,
                "split": "test",
                "episodes": test.episodes,
                "seed": config.seed,
                "spec": asdict(test.draw),
                "methods": [
                    _answered(kept, test.name, method, note, jobs, show)
                    for method, note, jobs in _methods(folder, config, executor, chosen, test)
                ],
            }
            for test in config.test
        ]
    folder.write_json("evaluation.json", results)
    kept.forget()
    return results


def evaluate_folders(folder: RunFolder, episodes: Path) -> list[dict[str, Any]]:
    """Scores the run on episodes that others made; one row an episode, in the order of their names."""
    config = _answering(folder)
    names = [episode.task for episode in folder_episodes(episodes, config.image)]
    workers = min(config.workers, len(names))
    recipe = WorkerRecipe(config.model_copy(update={"workers": workers}), episodes=episodes.absolute())
    with make_executor(recipe) as executor:
        executor.load(SUPERNET, folder.weights())
        scores = executor.run(_adaptation_jobs(folder, config, executor, FOLDERS, range(len(names))))
    return [{"episode": name, "accuracy": score.accuracy} for name, score in zip(names, scores, strict=True)]


def compare(result: Mapping[str, Any]) -> list[str]:
    """One line a method: mean accuracy, 95% interval, and the paired difference to metanas."""
    ours = np.array(result["methods"][0]["accuracies"])
    lines = []
    for method in result["methods"]:
        theirs = np.array(method["accuracies"])
        mean, half = mean_interval(theirs)
        line = f"{method['method']:36} {mean:7.2%}{half_width(half)}"
        if method is not result["methods"][0]:
            gap = paired(ours, theirs)
            line += f"   metanas is better by {gap.difference:.2%}"
            line += f" ({gap.low:.2%} to {gap.high:.2%}, p={gap.p:.2g})" if len(ours) > 1 else ""
        lines.append(line)
    return lines


def _adaptation_jobs(
    folder: RunFolder, config: RunConfig, executor: Executor, split: str, episodes: range
) -> list[AdaptationJob]:
    """For every episode what it chooses from: by its support set where the predictor tells tasks apart."""
    asked = candidates(folder, config)
    if (pool := asked.pool) is None:
        best = [asked.best()] * len(episodes)
    else:
        best = [asked.best(task) for task in executor.run([DescriptionJob(pool, split, index) for index in episodes])]
    adaptation = config.adaptation
    return [
        AdaptationJob(SUPERNET, architectures, adaptation, split, index)
        for architectures, index in zip(best, episodes, strict=True)
    ]


def _methods(
    folder: RunFolder, config: RunConfig, executor: Executor, chosen: Architecture, test: TestConfig
) -> list[tuple[str, str, Sequence[Any]]]:
    adaptation, split, episodes = config.adaptation, test.name, range(test.episodes)
    drawn = random_architecture(config)

    def adapted(network: str, architecture: Architecture) -> list[AdaptationJob]:
        return [AdaptationJob(network, (architecture,), adaptation, split, index) for index in episodes]

    return [
        (
            "metanas",
            "architecture chosen on each support set, then adapted"
            + ("; answers averaged with those of the same one from scratch" if adaptation.with_scratch else ""),
            _adaptation_jobs(folder, config, executor, split, episodes),
        ),
        (
            "random architecture",
            "meta-trained alone for as many outer steps, adapted the same way",
            adapted(RANDOM, drawn),
        ),
        ("conv-4", "meta-trained alone for as many outer steps, adapted the same way", adapted(CONV4, ())),
        (
            "frozen features, nearest prototype",
            "the run's architecture without gradient steps",
            [FrozenJob(SUPERNET, chosen, adaptation, split, index) for index in episodes],
        ),
        (
            "from scratch",
            "the run's architecture from random weights, on the support set alone",
            [ScratchJob(SUPERNET, chosen, adaptation, split, index) for index in episodes],
        ),
    ]


def _answering(folder: RunFolder) -> RunConfig:
    """The run's configuration, in the precision that pays on this machine."""
    config = folder.config
    return config.model_copy(update={"precision": answering_precision(config)})


def _ready_baseline(folder: RunFolder, config: RunConfig, network: str, executor: Executor, show: Show) -> None:
    """Loads a baseline's weights, after meta-training it when the run's folder has none yet."""
    stem = f"baselines/{network.replace(' ', '-')}"
    name, part = f"{stem}.safetensors", f"{stem}.part.safetensors"
    if (folder.path / name).is_file():
        executor.load(network, folder.weights(name))
        return
    steps = folder.read_json("steps.json")
    architecture = () if network == CONV4 else random_architecture(config)
    (folder.path / "baselines").mkdir(exist_ok=True)
    trainer = MetaTrainer(network, executor)
    if (folder.path / part).is_file():
        trainer.restore(folder.weights(part))

    def keep() -> None:
        save_arrays(folder.path / part, trainer.state())

    meta_train_alone(network, architecture, trainer, steps["rates"], config.search, show, keep)
    save_arrays(folder.path / name, weights_of(executor.state(network)))
    (folder.path / part).unlink(missing_ok=True)  # no step, none kept


def _basis(folder: RunFolder, config: RunConfig, contents: Mapping[str, str]) -> str:
    """One line of all that a score depends on beside its job: configuration, data, weights."""
    files = [folder.path / "weights.safetensors", *sorted((folder.path / "baselines").glob("*.safetensors"))]
    weights = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return json.dumps([config.model_dump(mode="json"), contents, weights])


def _answered(
    kept: KeptScores, test: str, method: str, note: str, jobs: Sequence[Job[Score]], show: Show
) -> dict[str, Any]:
    """What a method reached on every episode of a test."""
    of = {"test": test, "method": method}
    scores = kept.run(jobs, lambda progress: show({"event": "answers", **of, **progress}))
    accuracies, used = [score.accuracy for score in scores], {score.architecture for score in scores}
    mean, half = mean_interval(np.array(accuracies))
    show({"event": "method", **of, "accuracy": mean, "interval": half})
    architecture = list(used.pop()) if len(used) == 1 else None
    return {"method": method, "note": note, "accuracies": accuracies, "architecture": architecture}
