"""Minutes of training until 97% on Omniglot 5-way 1-shot, metanas against learn2learn's MAML, two cores each.

Both learn from the characters that `configs/omniglot.yaml` trains on, turned as new classes, and are tested on the same
200 episodes of its validation characters. learn2learn as its `maml_omniglot` example sets it: the network of Finn et
al. (2017), second order, 32 tasks a step, inner rate 0.5, Adam at 0.003; its episodes come from metanas's sampler, and
drawing them does not count. They take turns of --turn seconds of training; tests do not count. Each of --rounds trains
both anew by the next seed, with other weights and episodes. METANAS_DATA names the folder that holds Omniglot.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.rounds import finish, parser_of, peer_module, run, spread, table
from metanas.api import Cost
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_pool, make_samplers, make_space
from metanas.config import load_config
from metanas.errors import MetanasError
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import EvaluationJob, GradientJob, Sampler

GOAL, EPISODES = 0.97, 200
CONFIG = Path(__file__).parents[1] / "configs" / "omniglot.yaml"
SIZE = "image.size=28"  # learn2learn's network takes no other
TEST = 'validation={"ways": 5, "shots": 1, "queries": 15, "rotations": false}'
PEER_DRAW = 'train={"ways": 5, "shots": 1, "queries": 1, "rotations": true}'
TASKS, INNER_RATE, OUTER_RATE = 32, 0.5, 0.003

Turn = Callable[[float], tuple[float, float, int]]
"""Trains for that many seconds, to the end of a step: seconds spent, accuracy on test episodes, all steps so far."""


def peer(train: Sampler, test: Sampler, seed: int) -> Turn:
    """learn2learn's example."""
    torch.manual_seed(seed)
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
        measured = [row for rows in trainer.executor.run(jobs) for row in rows]
        if errors := [row.error for row in measured if row.error]:
            raise MetanasError(f"metanas could not be evaluated: {errors[0].strip().splitlines()[-1]}")
        return spent, float(np.mean([row.accuracy for row in measured])), trainer.version

    return turn


@dataclass(frozen=True)
class Trained:
    """One training: minutes to the end of the turn that reached the goal, the best accuracy seen, minutes spent."""

    minutes: float | None
    best: float
    spent: float


def trained_in_turn(turns: Mapping[str, Turn], seconds: float, limit: float) -> dict[str, Trained]:
    """Every contender until it has the goal or has trained `limit` minutes, in turns of `seconds`."""
    found = dict.fromkeys(turns, Trained(None, 0.0, 0.0))
    while running := [name for name, one in found.items() if one.minutes is None and one.spent < limit]:
        for name in running:
            more, accuracy, steps = turns[name](seconds)
            spent = found[name].spent + more / 60
            reached = spent if accuracy >= GOAL else None
            found[name] = Trained(reached, max(found[name].best, accuracy), spent)
            print(f"{60 * spent:5.0f} s  {name:12} {accuracy:.2%} after {steps} steps", flush=True)
    return found


def compare(seed: int, seconds: float, limit: float) -> dict[str, Trained]:
    """Both, with weights and episodes of one seed."""
    config, peer_config = (load_config(CONFIG, [SIZE, TEST, f"seed={seed}", *more]) for more in ([], [PEER_DRAW]))
    test, peer_train = (
        make_samplers(made, make_pool(made, None))[split]
        for made, split in ((config, "validation"), (peer_config, "train"))
    )
    with make_executor(WorkerRecipe(config)) as executor:
        settings = config.search
        trainer = MetaTrainer(SUPERNET, executor)
        turns = {
            "metanas": ours(trainer, make_space(config).default, settings.rate, settings.tasks_per_step),
            "learn2learn": peer(peer_train, test, seed),
        }
        # Neither the start of the workers nor reading Omniglot for the first time is training.
        executor.run(
            [GradientJob(SUPERNET, make_space(config).default, episode) for episode in range(executor.workers)]
        )
        return trained_in_turn(turns, seconds, limit)


def main() -> None:
    """Prints a line a turn, then the minutes of both in every round."""
    parser = parser_of(__doc__.splitlines()[0], rounds=3)
    parser.add_argument("--turn", type=float, default=20, help="seconds of training between two tests (default 20)")
    parser.add_argument("--limit", type=float, default=15, help="minutes that either may take (default 15)")
    asked = parser.parse_args()
    torch.set_num_threads(2)
    found = [compare(seed, asked.turn, asked.limit) for seed in range(asked.rounds)]
    table(
        ("two cores", "minutes to 97%", "best"),
        [
            (
                f"{name}, seed {seed}",
                f"{one.minutes:.1f}" if one.minutes else f"more than {one.spent:.1f}",
                f"{one.best:.2%}",
            )
            for name in found[0]
            for seed, one in enumerate(each[name] for each in found)
        ]
        + [
            (f"{name}, median", str(spread(np.array([each[name].minutes for each in found]))), "")
            for name in found[0]
            if all(each[name].minutes for each in found)
        ],
    )
    finish(asked, limit=asked.limit, **{name: [asdict(each[name]) for each in found] for name in found[0]})


if __name__ == "__main__":
    run(main)
