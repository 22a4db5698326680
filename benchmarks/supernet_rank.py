"""How shared weights rank architectures: Kendall's tau with stand-alone training, beside parameters and FLOPs.

Uniformly random cells on traffic signs. Shared weights are trained for --minutes, each architecture alone for --epochs;
its test accuracy is the truth, shared weights answer the validation images. Recalibrated: scales and shifts of the
normalisations and the head fitted to the architecture by 20 steps. Intervals are 95%, by a bootstrap over
architectures. METANAS_DATA names the folder that holds GTSRB.
"""

import argparse
import json
import time
from dataclasses import asdict

import numpy as np

from benchmarks.rounds import table
from benchmarks.signs import SIZE, SPACE, alone, budget, signs, single_thread
from metanas.api import Architecture
from metanas.learning.samples import Classification
from metanas.measuring.cost import cost
from metanas.measuring.oneshot import OneShot, draw_paths
from metanas.measuring.standalone import Classifier, Training, accuracy, train_alone
from metanas.seeding import stream
from metanas.spaces.norm import SampleNorm, SupportNorm
from predictors.ranking import correlation

RECALIBRATION = Training(epochs=1, batch=64, optimizer="sgd", rate=0.05, weight_decay=3e-4)
RECALIBRATION_STEPS = 20


def different(count: int, seed: int) -> list[Architecture]:
    """So many uniform draws that compute different networks."""
    rng = stream(seed, "architectures")
    found: dict[Architecture, Architecture] = {}
    while len(found) < count:
        architecture = SPACE.sample(rng)
        found.setdefault(SPACE.canonical(architecture), architecture)
    return list(found.values())


def recalibrate(network: Classifier, task: Classification, seed: int) -> float:
    """Fits scales and shifts of the normalisations, and the head, to this architecture by a few steps, in place.

    Returns the validation accuracy. What others recalibrate, the running statistics of batch normalisation, we do not
    have: statistics always come from reference images that the architecture itself has seen. What other paths have
    pulled away from it are the weights; these are the few that set each channel's level.
    """
    norms = [module for module in network.modules() if isinstance(module, SupportNorm | SampleNorm)]
    learned = [parameter for module in (*norms, network.head) for parameter in module.parameters()]
    rows = stream(seed, "recalibration").permutation(len(task.train))[: RECALIBRATION_STEPS * RECALIBRATION.batch]
    return train_alone(network, task.train.take(rows), task.validation, RECALIBRATION, seed, learned)[-1]


def main() -> None:
    """Prints a line an architecture, then the correlations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, default=30, help="how many are ranked (default 30)")
    parser.add_argument("--minutes", type=float, default=10, help="minutes of one core for the shared weights")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of each training alone (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    single_thread()
    task = signs(asked.seed)
    shared = OneShot(SPACE, task, asked.seed)
    shared.run(budget(asked.minutes), draw_paths(SPACE))
    print(f"shared weights: {shared.steps} steps", flush=True)
    rows = []
    for architecture in different(asked.architectures, asked.seed):
        network = shared.classifier(architecture)
        as_they_are = accuracy(network, task.validation)
        recalibrated = recalibrate(network, task, asked.seed)
        trained, _ = alone(architecture, task, asked.epochs, asked.seed)
        truth = accuracy(trained, task.test)
        costs = cost(SPACE, architecture, SIZE)
        rows.append((as_they_are, recalibrated, costs.params, costs.macs, truth))
        print(
            f"{len(rows):3d}  shared {as_they_are:.2%}  recalibrated {recalibrated:.2%}  alone {truth:.2%}  "
            f"{costs.params:,} parameters  {costs.macs:,} multiply-accumulates",
            flush=True,
        )
    *rankings, truths = np.array(rows).T
    names = ("shared weights", "shared weights, recalibrated", "parameters", "FLOPs")
    own = np.arange(len(rows))
    found = {name: correlation(ranking, truths, own, asked.seed) for name, ranking in zip(names, rankings, strict=True)}
    print()
    lines = [(name, f"{one.tau:.2f}", f"{one.low:.2f} to {one.high:.2f}") for name, one in found.items()]
    table((f"{len(rows)} architectures", "Kendall's tau", "95% interval"), lines)
    minutes = time.process_time() / 60
    print(f"accuracy alone {truths.min():.2%} to {truths.max():.2%}; {minutes:.1f} minutes of one core in all")
    if asked.json:
        taus = {name: asdict(one) for name, one in found.items()}
        settings = {key: value for key, value in vars(asked).items() if key != "json"}
        print(json.dumps({**settings, "steps": shared.steps, "tau": taus, "rows": rows, "core_minutes": minutes}))


if __name__ == "__main__":
    main()
