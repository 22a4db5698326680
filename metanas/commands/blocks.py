"""What a run's predictor sees, made from the run: its blocks, the batch that networks are scored on, its tasks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from metanas.assembly import SUPERNET, make_learner, make_pool
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.learning.learner import Learner
from metanas.learning.samples import Samples, support_of
from metanas.learning.state import fill
from metanas.learning.worker import Worker
from metanas.measuring.features import ArchitectureFeatures
from metanas.measuring.latency import LatencyTable, latency_in
from metanas.measuring.task_description import TaskDescriber, embedding, unit
from metanas.measuring.untrained import UntrainedScores
from metanas.run import RunFolder
from metanas.seeding import stream
from metanas.spaces.space import Space
from predictors.saved import Saved
from tasks.episodes import EpisodeSampler, EpisodeSpec
from tasks.pool import Pool
from tasks.task import Task

BATCH = 64
"""Images at most that networks are scored on."""
DRAWS = 4
"""Support sets that a task of the pool is described by, in the mean."""
Context = Mapping[str, np.ndarray]
"""What features are made from beside architectures, as a saved predictor keeps it: the batch that networks are scored
on, "batch.inputs" (N, C, H, W) and "batch.labels" (N,), and "pool" (T, D), the embeddings of the pool's training tasks.
"""


def make_features(
    config: RunConfig, space: Space, latency: LatencyTable | None, blocks: Sequence[str], context: Context
) -> ArchitectureFeatures:
    """Architectures in `blocks`; seconds are those of the table, which the block "latency" needs."""
    scores = None
    if "zero-cost" in blocks:
        inputs, labels = (torch.from_numpy(context[f"batch.{part}"]) for part in ("inputs", "labels"))
        batch = Samples(inputs, labels, int(labels.max()) + 1)
        scores = UntrainedScores(space, batch, config.predictor.scores, config.seed)
    return ArchitectureFeatures(space, config.image.size, blocks, latency, scores)


def features_of(run: RunFolder, config: RunConfig, space: Space, saved: Saved) -> ArchitectureFeatures:
    """Architectures as the saved predictor of a run sees them."""
    layout = dict(saved.data.table.layout)
    latency = latency_in(run.path, space, config.image.size, "latency" in layout)
    return make_features(config, space, latency, [name for name in layout if name != "task"], saved.context)


def scoring_batch(config: RunConfig, pool: Pool) -> Context:
    """Support samples of one training episode, as drawn but for augmentation: the same in every process."""
    spec = replace(config.train, augment=None)
    support = support_of(EpisodeSampler(pool.train, spec, config.seed, "zero-cost", pool.weights).episode(0))
    rows = np.sort(stream(config.seed, "zero-cost", "rows").permutation(len(support))[:BATCH])
    batch = support.take(rows)
    return {"batch.inputs": batch.inputs.numpy(), "batch.labels": batch.labels.numpy()}


def meta_network(run: RunFolder) -> Learner:
    """A finished run's SuperNet."""
    learner = make_learner(run.config)
    fill(learner, run.weights())
    return learner


def embed_pool(learner: Learner, config: RunConfig, pool: Pool) -> np.ndarray:
    """The embeddings (T, D) of the training tasks, each of several support sets."""
    return np.stack(
        [
            unit(np.mean([embedding(learner, support) for support in _supports(task, config.train, config)], axis=0))
            for task in pool.train
        ]
    )


def describe_tasks(
    runs: Sequence[RunFolder], names: Iterable[str], describer: TaskDescriber, data: Path | None
) -> dict[str, np.ndarray]:
    """Those of the named tasks that the pools of the runs have, as their evaluations drew them; the first run counts.

    Images take the form of the first run, whose network looks at them.
    """
    wanted, found = set(names), dict[str, np.ndarray]()
    for run in runs:
        if wanted <= found.keys():
            break
        config = run.config.model_copy(update={"image": runs[0].config.image})
        pool = pool_of(config, data)
        for task, spec in (*_with(pool.validation, config.validation), *_with(pool.train, config.train)):
            if task.name in wanted and task.name not in found:
                found[task.name] = describer.mean(_supports(task, spec, config))
    return found


def pool_of(config: RunConfig, data: Path | None) -> Pool:
    """The pool, for features that need it. Raises MetanasError, which says how to do without."""
    try:
        return make_pool(config, data)
    except MetanasError as error:
        raise MetanasError(
            f"{error} Tasks are described, and networks scored, by the pool's samples; name their folder with --data, "
            "or do without: --without task --without zero-cost."
        ) from error


@dataclass(frozen=True)
class DescriptionJob:
    """What the predictor sees of the task of one episode, by its support set."""

    pool: np.ndarray
    split: str
    episode: int

    def run(self, worker: Worker) -> np.ndarray:
        support = support_of(worker.samplers[self.split].episode(self.episode))
        return TaskDescriber(worker.learners[SUPERNET], self.pool)(support)


def _with(tasks: Iterable[Task], spec: EpisodeSpec) -> list[tuple[Task, EpisodeSpec]]:
    return [(task, spec) for task in tasks]


def _supports(task: Task, spec: EpisodeSpec, config: RunConfig) -> Iterator[Samples]:
    """Drawn from one task, without augmentation, which a new task's support set has not either."""
    sampler = EpisodeSampler([task], replace(spec, augment=None), config.seed, f"description of {task.name}")
    for index in range(DRAWS):
        yield support_of(sampler.episode(index))
