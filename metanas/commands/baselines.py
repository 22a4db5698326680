"""What every result is compared with, on the same episodes: jobs for the workers, and the baselines' meta-training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from metanas.api import Architecture
from metanas.learning.learner import Learner
from metanas.learning.problems import accuracy
from metanas.learning.samples import support_of
from metanas.learning.trainer import MetaTrainer
from metanas.learning.transfer import Adaptation, answers, choose, fine_tune
from metanas.learning.worker import NamedEpisode, Worker
from metanas.search.schedule import SearchSettings, training_episodes
from metanas.seeding import torch_stream
from metanas.spaces.ops import scheduled_drop_path

SCRATCH_STEPS = 20
"""Gradient steps from random weights, or as many as the inner loop and adaptation make where these are more."""
CHUNK = 50
"""Outer steps between two reports of a baseline's training."""


@dataclass(frozen=True)
class Score:
    """What a method reached on one episode, and the architecture it used."""

    accuracy: float
    architecture: Architecture


@dataclass(frozen=True)
class AdaptationJob:
    """Choose among `architectures` on the support set, adapt the best, and answer the queries."""

    network: str
    architectures: tuple[Architecture, ...]
    adaptation: Adaptation
    split: str
    episode: int

    def run(self, worker: Worker) -> Score:
        episode, learner = worker.samplers[self.split].episode(self.episode), worker.learners[self.network]
        seed = worker.samplers[self.split].seed
        support = support_of(episode)
        architecture = choose(learner, self.architectures, support)
        weights = fine_tune(
            learner,
            architecture,
            support,
            self.adaptation,
            torch_stream(seed, "adaptation", self.episode),
        )
        logits = answers(learner, architecture, weights, support.inputs, episode.query_inputs, self.adaptation)
        return Score(_accuracy(logits, episode), architecture)


@dataclass(frozen=True)
class _OneArchitecture:
    """A baseline that takes an architecture as it is, and adapts as `adaptation` says where it adapts."""

    network: str
    architecture: Architecture
    adaptation: Adaptation
    split: str
    episode: int


class FrozenJob(_OneArchitecture):
    """The nearest prototype of the meta-learned features: no gradient step is taken."""

    def run(self, worker: Worker) -> Score:
        episode, learner = worker.samplers[self.split].episode(self.episode), worker.learners[self.network]
        support = support_of(episode)
        weights = learner.adapt(self.architecture, support.inputs, support.labels, support.ways, steps=0)
        logits = answers(learner, self.architecture, weights, support.inputs, episode.query_inputs, self.adaptation)
        return Score(_accuracy(logits, episode), self.architecture)


class ScratchJob(_OneArchitecture):
    """The architecture with random weights, trained on the support set alone; its answers are a discriminant's, too."""

    def run(self, worker: Worker) -> Score:
        episode, trained = worker.samplers[self.split].episode(self.episode), worker.learners[self.network]
        generator = torch_stream(worker.samplers[self.split].seed, "scratch", self.episode)
        inner = replace(trained.inner, steps=0)  # random weights have learned to be adapted by none
        fresh = Learner.drawn(trained.supernet.space, inner, trained.precision, generator, trained.device)
        support = support_of(episode)
        steps = max(SCRATCH_STEPS, trained.inner.steps + self.adaptation.steps)
        how = replace(self.adaptation, steps=steps, body_rate=3e-3, head_rate=1e-2)
        weights = fine_tune(fresh, self.architecture, support, how, generator)
        logits = answers(fresh, self.architecture, weights, support.inputs, episode.query_inputs, how)
        return Score(_accuracy(logits, episode), self.architecture)


def meta_train_alone(
    network: str,
    architecture: Architecture,
    trainer: MetaTrainer,
    rates: Sequence[tuple[int, float]],
    settings: SearchSettings,
    show: Callable[[dict[str, Any]], None],
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Meta-trains one architecture: the run's training episodes, steps, `rates` and dropped paths.

    `rates` lists (steps, learning rate) of the run's phases. A trainer that made steps before goes on after them;
    `keep` is called whenever CHUNK more are made.
    """
    total, end, begun, started = sum(steps for steps, _ in rates), 0, trainer.version, time.monotonic()
    tasks = settings.tasks_per_step
    for phase, (steps, rate) in enumerate(rates):
        trainer.drop_path = scheduled_drop_path(settings.drop_path, phase, len(rates) - 1)
        trainer.split = training_episodes(phase)
        for start in range(0, steps, CHUNK):
            end += min(CHUNK, steps - start)
            if end <= trainer.version:
                continue
            left = [[architecture] * tasks] * (end - trainer.version)
            loss, accuracy = trainer.train(left, trainer.version * tasks, rate)[-1]
            keep()
            show(
                {
                    "event": "baseline",
                    "network": network,
                    "step": end,
                    "done": (end - begun) / (total - begun),
                    "seconds": time.monotonic() - started,
                    "loss": loss,
                    "accuracy": accuracy,
                }
            )


def _accuracy(logits: torch.Tensor, episode: NamedEpisode) -> float:
    return float(accuracy(logits, episode.query_labels.to(logits.device)))
