"""Minutes of training until 97% on Omniglot 5-way 1-shot, metanas against learn2learn's MAML, two cores each.

Both learn from the characters that `configs/omniglot.yaml` trains on, turned as new classes, and are tested on the same
200 episodes of its validation characters. learn2learn as its `maml_omniglot` example sets it: the network of Finn et
al. (2017), second order, 32 tasks a step, inner rate 0.5, Adam at 0.003; its episodes come from metanas's sampler, and
drawing them does not count. They take turns of --turn seconds of training; tests do not count.
METANAS_DATA names the folder that holds Omniglot.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.rounds import peer_module, run, table
from metanas.api import Cost
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_pool, make_samplers, make_space
from metanas.config import load_config
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import EvaluationJob, Sampler

GOAL, EPISODES = 0.97, 200
CONFIG = Path(__file__).parents[1] / "configs" / "omniglot.yaml"
SIZE = "image.size=28"  # learn2learn's network takes no other
TEST = 'validation={"ways": 5, "shots": 1, "queries": 15, "rotations": false}'
PEER_DRAW = 'train={"ways": 5, "shots": 1, "queries": 1, "rotations": true}'
TASKS, INNER_RATE, OUTER_RATE = 32, 0.5, 0.003

Turn = Callable[[float], tuple[float, float, int]]
"""Trains for that many seconds, to the end of a step; those spent, accuracy on the test episodes, all steps so far."""


def peer(train: Sampler, test: Sampler) -> Turn:
    """learn2learn's example."""
    torch.manual_seed(0)
    network = peer_module("learn2learn.vision.models").OmniglotCNN(5)
    maml = peer_module("learn2learn.algorithms").MAML(network, lr=INNER_RATE, first_order=False)
    optimizer = torch.optim.Adam(maml.parameters(), OUTER_RATE)
    steps = 0

    def adapted_logits(sampler: Sampler, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        episode, learner = sampler.episode(index), maml.clone()
        learner.adapt(F.cross_entropy(learner(episode.support_inputs), episode.support_labels))
        return learner(episode.query_inputs), episode.query_labels

    def turn(seconds: float) -> tuple[float, float, int]:
        nonlocal steps
        spent = 0.0
        while spent < seconds:
            episodes = [train.episode(steps * TASKS + task) for task in range(TASKS)]
            begun = time.perf_counter()
            optimizer.zero_grad()
            for episode in episodes:
                learner = maml.clone()
                learner.adapt(F.cross_entropy(learner(episode.support_inputs), episode.support_labels))
                loss = F.cross_entropy(learner(episode.query_inputs), episode.query_labels) / TASKS
                torch.autograd.backward(loss)
            optimizer.step()
            steps += 1
            spent += time.perf_counter() - begun
        found = [adapted_logits(test, index) for index in range(EPISODES)]
        accuracy = np.mean([float((logits.argmax(1) == labels).float().mean()) for logits, labels in found])
        return spent, float(accuracy), steps

    return turn


def ours(trainer: MetaTrainer, architecture: tuple[int, ...], rate: float, tasks: int) -> Turn:
    """Warm-up as `metanas train` does it."""

    def turn(seconds: float) -> tuple[float, float, int]:
        begun = time.perf_counter()
        while (spent := time.perf_counter() - begun) < seconds:
            trainer.train([[architecture] * tasks] * 10, trainer.version * tasks, rate)
        jobs = [
            EvaluationJob(SUPERNET, architecture, Cost(0, 0), "validation", (index,), 0, 0, trainer.version)
            for index in range(EPISODES)
        ]
        results = [row.accuracy for rows in trainer.executor.run(jobs) for row in rows]
        return spent, float(np.mean([accuracy for accuracy in results if accuracy is not None])), trainer.version

    return turn


def main() -> None:
    """Prints a line a turn, then the minutes of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turn", type=float, default=20, help="seconds of training between two tests (default 20)")
    parser.add_argument("--limit", type=float, default=15, help="minutes that either may take (default 15)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    config = load_config(CONFIG, [SIZE, TEST])
    samplers = make_samplers(config, make_pool(config, None))
    peer_config = load_config(CONFIG, [SIZE, TEST, PEER_DRAW])
    peer_train = make_samplers(peer_config, make_pool(peer_config, None))["train"]
    with make_executor(WorkerRecipe(config)) as executor:
        settings = config.search
        trainer = MetaTrainer(SUPERNET, executor)
        turns = {
            "metanas": ours(trainer, make_space(config).default, settings.rate, settings.tasks_per_step),
            "learn2learn": peer(peer_train, samplers["validation"]),
        }
        minutes: dict[str, float | None] = dict.fromkeys(turns)
        best = dict.fromkeys(turns, 0.0)
        spent = dict.fromkeys(turns, 0.0)
        while running := [name for name in turns if minutes[name] is None and spent[name] < 60 * asked.limit]:
            for name in running:
                seconds, accuracy, steps = turns[name](asked.turn)
                spent[name] += seconds
                best[name] = max(best[name], accuracy)
                print(f"{spent[name]:5.0f} s  {name:12} {accuracy:.2%} after {steps} steps", flush=True)
                if accuracy >= GOAL:
                    minutes[name] = spent[name] / 60
    rows = [
        (name, f"{found:.1f}" if found else f"more than {asked.limit:g}", f"{best[name]:.2%}")
        for name, found in minutes.items()
    ]
    table(("two cores", "minutes to 97%", "best"), rows)
    if asked.json:
        print(json.dumps({"minutes": minutes, "best": best, "limit": asked.limit}))


if __name__ == "__main__":
    run(main)
