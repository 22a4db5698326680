"""Which choices raise or lower what the predictor expects of the architecture that a run chose."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.commands.blocks import features_of
from metanas.commands.figures import GeneEffect
from metanas.commands.gathering import observed
from metanas.run import RunFolder
from predictors.explain import gene_effects, swaps
from predictors.saved import load_predictor


def explain(run: RunFolder, evaluations: Sequence[Evaluation]) -> list[GeneEffect]:
    """For every gene of the chosen architecture that has another value, what its own adds; the largest first.

    Empty where the run has no predictor or no choice yet. An effect is exact: all one-gene swaps are asked about, where
    the predictor tells tasks apart for each task that it learned from, and the mean is taken. Beside it stand the swaps
    that the run's `evaluations` measured, each as the mean over tasks of the differences on common episodes.
    """
    path = run.path / "predictor.safetensors"
    if not path.is_file() or not (run.path / "population.json").is_file():
        return []
    config, chosen = run.config, run.chosen
    space = make_space(config)
    predictor = load_predictor(path, space.name)
    features = features_of(run, config, space, predictor.saved)
    tasks = list(predictor.saved.data.descriptions().values())

    def predict(architectures: Sequence[Architecture]) -> np.ndarray:
        table = features.table(architectures)
        every = [table.beside("task", np.tile(task, (len(table), 1))) for task in tasks] or [table]
        mean: np.ndarray = np.mean([predictor.predict(one)[0] for one in every], axis=0)
        return mean

    found = swaps(predict, chosen, space.counts)
    effects = gene_effects(found, len(chosen))
    gaps = defaultdict[Architecture, list[float]](list)
    for architecture, _, gap in observed(evaluations, chosen):
        gaps[architecture].append(gap)
    measured = defaultdict[int, list[tuple[float, float]]](list)
    for swap in found:
        if swap.architecture in gaps:
            measured[swap.gene].append((-swap.gain, -float(np.mean(gaps[swap.architecture]))))
    named = [
        GeneEffect(space.gene_text(gene, chosen), float(effects[gene]), tuple(measured[gene]))
        for gene, count in enumerate(space.counts)
        if count > 1
    ]
    return sorted(named, key=lambda effect: -abs(effect.effect))
