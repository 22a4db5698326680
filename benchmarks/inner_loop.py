"""The five meta-updates on one network: what they learn in as many outer steps, and what a step takes.

The default network, Omniglot 5-way 1-shot: trained on the training characters of `configs/omniglot.yaml`, turned as new
classes, and judged on its validation characters, on common episodes. Prototypes alone, without an inner step, stand
beside them: what an inner loop has to beat. All begin with the same weights and see the same episodes; they take turns
of outer steps, so that whatever else the machine does falls on all of them. METANAS_DATA names the folder of Omniglot.
"""

import argparse
import json
import time
from typing import get_args

import numpy as np

from benchmarks.rounds import run, table
from benchmarks.same_accuracy import CONFIG, SIZE, TEST
from metanas.api import Cost
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_space
from metanas.config import RunConfig, load_config
from metanas.learning.executor import Executor
from metanas.learning.meta import Method
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import EvaluationJob
from metanas.statistics import mean_interval, paired

PROTOTYPES = "prototypes, no inner step"
TURN = 10


def contenders(steps: int, learned: bool, rate: float) -> dict[str, RunConfig]:
    """The configurations, which differ in their inner loop alone."""
    draw = 'train={"ways": 5, "shots": 1, "queries": 15, "rotations": true}'
    common = [SIZE, TEST, draw, "workers=0", f"search.rate={rate}", f"inner.learned_rates={str(learned).lower()}"]
    methods = {name: [f"inner.steps={steps}", f"inner.method={name}"] for name in get_args(Method)}
    return {
        name: load_config(CONFIG, [*common, *own]) for name, own in ({PROTOTYPES: ["inner.steps=0"]} | methods).items()
    }


def judge(executor: Executor, config: RunConfig, episodes: int) -> np.ndarray:
    """The accuracy on every validation episode."""
    jobs = [
        EvaluationJob(
            SUPERNET,
            make_space(config).default,
            Cost(0, 0),
            "validation",
            tuple(range(episodes)),
            config.inner.steps,
            0,
            0,
        )
    ]
    return np.array([row.accuracy for rows in executor.run(jobs) for row in rows], dtype=np.float64)


def main() -> None:
    """Prints accuracy, the difference to prototypes alone and the time of a step, a line a method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outer", type=int, default=400, help="outer steps of two episodes (default 400)")
    parser.add_argument("--inner", type=int, default=3, help="inner steps (default 3)")
    parser.add_argument("--rate", type=float, default=0.003, help="of Adam in the outer steps (default 0.003)")
    parser.add_argument("--fixed-rates", action="store_true", help="do not learn the inner rates")
    parser.add_argument("--episodes", type=int, default=300, help="validation episodes (default 300)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    configs = contenders(asked.inner, not asked.fixed_rates, asked.rate)
    executors = {name: make_executor(WorkerRecipe(config)) for name, config in configs.items()}
    trainers = {name: MetaTrainer(SUPERNET, executor) for name, executor in executors.items()}
    seconds = dict.fromkeys(configs, 0.0)
    while any(trainer.version < asked.outer for trainer in trainers.values()):
        for name, trainer in trainers.items():
            begun, step = time.process_time(), [make_space(configs[name]).default] * configs[name].search.tasks_per_step
            trainer.train([step] * min(TURN, asked.outer - trainer.version), trainer.version * len(step), asked.rate)
            seconds[name] += time.process_time() - begun
    found = {name: judge(executors[name], config, asked.episodes) for name, config in configs.items()}
    rows = []
    for name, accuracies in found.items():
        mean, half = mean_interval(accuracies)
        than = paired(accuracies, found[PROTOTYPES])
        beside = "" if name == PROTOTYPES else f"{than.difference:+.2%} ({than.low:+.2%} to {than.high:+.2%})"
        rows.append((name, f"{mean:.2%} +- {half:.2%}", beside, f"{1e3 * seconds[name] / asked.outer:.0f}"))
    table((f"{asked.outer} outer steps, {asked.inner} inner", "accuracy", "over prototypes", "ms a step"), rows)
    if asked.json:
        keys = {name: float(accuracies.mean()) for name, accuracies in found.items()}
        print(json.dumps({"accuracy": keys, "seconds": seconds, "outer": asked.outer, "inner": asked.inner}))


if __name__ == "__main__":
    run(main)
