"""Meta-training with and without the predictor that prunes, for the same minutes: what it saves and what it costs.

For each seed both train at once, on one core each, so that whatever else the machine does falls on both. Without, the
same strategy's first proposals are measured as they come (`predictor.floor` above 1), as many as with it: it has to
gain by what it picks. Both run more generations than the configuration asks for, since the predictor must first prove
itself, and audit more. Then the network that either chose answers the configuration's test episodes, the same for both.
METANAS_DATA names the folder of its data sets.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import run, table
from metanas.assembly import SUPERNET, WorkerRecipe, make_executor
from metanas.commands.baselines import AdaptationJob
from metanas.errors import MetanasError
from metanas.run import RunFolder, generation_lines
from metanas.statistics import mean_interval
from predictors.audit import missed_winners

CONFIG = Path(__file__).parents[1] / "configs" / "omniglot.yaml"
GENERATIONS = 6
SETTINGS = [
    *("--set", f"budget.generation_steps={[50] * GENERATIONS}"),
    *("--set", "budget.warmup_share=0.3"),
    *("--set", "budget.settling_share=0.12"),
    *("--set", "search.episodes=12"),
    *("--set", "search.final_episodes=60"),
    *("--set", "predictor.audit=3"),
]
ARMS: Mapping[str, Sequence[str]] = {"with": SETTINGS, "without": [*SETTINGS, "--set", "predictor.floor=2"]}


def train(folder: Path, asked: argparse.Namespace, seed: int, settings: Sequence[str]) -> None:
    """One run, or what is left of it where it was broken off. Raises MetanasError with what the command said."""
    command = [str(Path(sys.executable).with_name("metanas")), "train", str(asked.config), "--out", str(folder)]
    command += ["--seed", str(seed), "--minutes", str(asked.minutes), "--workers", "1", *settings]
    ended = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise MetanasError(f"{' '.join(command)} ended with: {said[-1]}")


def judge(folder: Path, seed: int, arm: str) -> dict[str, Any]:
    """What a finished run measured and turned away, and how its choice answers the tests."""
    found = RunFolder(folder)
    config, reports = found.config, [line["predictor"] for line in generation_lines(found.log())]
    proposed = config.search.proposals * (len(reports) - 1)  # the first population is taken as it comes
    pruned = sum(report["pruned"] - report["audited"] for report in reports)
    with make_executor(WorkerRecipe(config.model_copy(update={"workers": 2}))) as executor:
        executor.load(SUPERNET, found.weights())
        accuracies = {
            test.name: [
                score.accuracy
                for score in executor.run(
                    [
                        AdaptationJob(SUPERNET, (found.chosen,), config.adaptation, test.name, episode)
                        for episode in range(test.episodes)
                    ]
                )
            ]
            for test in config.test
        }
    return {
        "seed": seed,
        "arm": arm,
        "steps": sum(count for count, _ in found.read_json("steps.json")["rates"]),
        "proposed": proposed,
        "saved": pruned / proposed if proposed else 0.0,
        "tau": reports[-1]["tau"],
        "screenings": reports,
        "accuracies": accuracies,
    }


def both(asked: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Trains at once, then judges one after the other."""
    folders = {arm: asked.out / f"{arm}-{seed}" for arm in ARMS}
    with ThreadPoolExecutor(len(ARMS)) as pool:
        list(pool.map(lambda arm: train(folders[arm], asked, seed, ARMS[arm]), ARMS))
    return [judge(folder, seed, arm) for arm, folder in folders.items()]


def row(found: Mapping[str, Any], tests: Sequence[str]) -> tuple[str, ...]:
    """A run in words."""
    missed, tau = missed_winners(found["screenings"]), found["tau"]
    return (
        f"{found['seed']}, {found['arm']}",
        f"{found['steps']}",
        f"{found['saved']:.0%} of {found['proposed']}",
        "-" if tau is None else f"{tau:.2f}",
        f"{missed.winners} of {missed.audited}" if missed else "-",
        *("{:.2%} +- {:.2%}".format(*mean_interval(np.array(found["accuracies"][test]))) for test in tests),
    )


def main() -> None:
    """Prints a line a run, then what the predictor brings on each test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are not repeated")
    parser.add_argument("--config", type=Path, default=CONFIG, help="what to train (default configs/omniglot.yaml)")
    parser.add_argument("--minutes", type=float, default=15, help="minutes of one core for each run (default 15)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of either kind (default 3)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    asked = parser.parse_args()
    runs = [found for seed in range(asked.seeds) for found in both(asked, seed)]
    tests = list(runs[0]["accuracies"])
    table(("seed", "steps", "turned away", "tau", "won an audit", *tests), [row(found, tests) for found in runs])
    pruning = [found for found in runs if found["arm"] == "with"]
    saved = float(np.mean([found["saved"] for found in pruning]))
    missed = missed_winners([report for found in pruning for report in found["screenings"]])
    print(f"Turned away unmeasured, mean over the seeds: {saved:.0%} of what was proposed.")
    if missed:
        print(
            f"Of {missed.pruned} turned away while it pruned, {missed.audited} were measured all the same; winners "
            f"among the {missed.pruned} by this: {missed.estimate:.1f} ({missed.low:.1f} to {missed.high:.1f})."
        )
    gains: dict[str, list[float]] = {}
    for test in tests:
        ours, theirs = ([np.array(r["accuracies"][test]) for r in runs if r["arm"] == arm] for arm in ARMS)
        gains[test] = [float(np.mean(a - b)) for a, b in zip(ours, theirs, strict=True)]
        mean, half = mean_interval(np.array(gains[test]))
        print(f"{test}: with the predictor better by {mean:+.2%} +- {half:.2%} over {asked.seeds} seeds")
    if asked.json:
        for found in runs:
            found["missed"] = (judged := missed_winners(found.pop("screenings"))) and asdict(judged)
            found["accuracies"] = {test: float(np.mean(values)) for test, values in found["accuracies"].items()}
        pooled = {"saved": saved, "missed": missed and asdict(missed)}
        print(json.dumps({"minutes": asked.minutes, "runs": runs, "gains": gains, **pooled}))


if __name__ == "__main__":
    run(main)
