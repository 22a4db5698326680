"""What every result is compared with, on the same episodes: jobs for the workers, and the baselines' meta-training."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metanas.api import Architecture
from metanas.learning.learner import Learner
from metanas.learning.problems import accuracy
from metanas.learning.samples import support_of
from metanas.learning.trainer import MetaTrainer
from metanas.learning.transfer import Adaptation, answers, choose, fine_tune, from_scratch, mixture
from metanas.learning.worker import NamedEpisode, Worker
from metanas.search.schedule import SearchSettings, training_episodes
from metanas.seeding import torch_stream
from metanas.spaces.ops import scheduled_drop_path

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
        architecture = choose(learner, self.architectures, support_of(episode))
        generator = torch_stream(seed, "adaptation", self.episode)
        logits = [_adapted(learner, architecture, episode, self.adaptation, generator)]
        if self.adaptation.with_scratch:
            generator = torch_stream(seed, "scratch", self.episode)
            logits.append(_from_scratch(learner, architecture, episode, self.adaptation, generator))
        return Score(_accuracy(mixture(logits), episode), architecture)


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
        logits = _from_scratch(trained, self.architecture, episode, self.adaptation, generator)
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


def _adapted(
    learner: Learner, architecture: Architecture, episode: NamedEpisode, how: Adaptation, generator: torch.Generator
) -> torch.Tensor:
    """Logits of the queries, by the weights of `learner` fine-tuned on the support set."""
    support = support_of(episode)
    weights = fine_tune(learner, architecture, support, how, generator)
    return answers(learner, architecture, weights, support.inputs, episode.query_inputs, how)


def _from_scratch(
    trained: Learner, architecture: Architecture, episode: NamedEpisode, how: Adaptation, generator: torch.Generator
) -> torch.Tensor:
    """Logits of the queries, by random weights trained on the support set."""
    fresh, longer = from_scratch(trained, how, generator)
    return _adapted(fresh, architecture, episode, longer, generator)


def _accuracy(scores: torch.Tensor, episode: NamedEpisode) -> float:
    return float(accuracy(scores, episode.query_labels.to(scores.device)))
