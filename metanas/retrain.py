"""`metanas predictor retrain`: the predictor anew, from the evaluations of several runs."""

from collections.abc import Sequence

import numpy as np

from metanas.api import Architecture, Evaluation
from metanas.assembly import make_space
from metanas.errors import MetanasError
from metanas.estimation import observations
from metanas.run import RunFolder
from metanas.store import Store
from metanas.training import ArchitectureFeatures
from predictors.retrain import RetrainReport, retrain
from predictors.saved import save_predictor


def retrain_predictor(runs: Sequence[RunFolder], stores: Sequence[str] = ()) -> RetrainReport:
    """Fits the predictor of the first run on its own evaluations, the other runs' and those of further stores.

    It replaces predictor.safetensors in the first run's folder. Raises MetanasError for evaluations of another space.
    """
    first = runs[0]
    config = first.config
    space = make_space(config)
    features = ArchitectureFeatures(space, config.image.size)
    seen: list[tuple[Architecture, float]] = []
    for url in [*(f"sqlite:///{run.path / 'store.sqlite'}" for run in runs), *stores]:
        with Store(url) as store:
            evaluations = store.evaluations()
        _refuse_another_space(url, evaluations, space.name)
        for evaluation in {e.architecture: e for e in evaluations}.values():
            space.check(evaluation.architecture)
        seen += observations(evaluations, space.default)
    architectures = list(dict.fromkeys(architecture for architecture, _ in seen))
    predictor, report = retrain(
        features([architecture for architecture, _ in seen]),
        np.array([target for _, target in seen]),
        [architectures.index(architecture) for architecture, _ in seen],
        config.seed,
    )
    save_predictor(first.path / "predictor.safetensors", predictor, space.name)
    return report


def _refuse_another_space(url: str, evaluations: Sequence[Evaluation], space: str) -> None:
    others = {evaluation.space for evaluation in evaluations} - {space}
    if others:
        raise MetanasError(
            f"the store '{url}' holds evaluations of the space '{min(others)}', this run's is '{space}'; leave it out, "
            "or retrain the predictor of a run of that space with it."
        )
