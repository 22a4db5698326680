"""What a search takes over from earlier ones: weights to start trainings from, and what their evaluations say."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metanas.config import SearchConfig
from metanas.errors import MetanasError
from metanas.found import FINAL, RESULT, WEIGHTS, SearchFolder, open_run
from metanas.measuring.measures import SHARED
from metanas.run import RunFolder
from metanas.search.catalogue import ENAS
from metanas.spaces.genes import Genotypes
from predictors.models import make_model
from predictors.predictor import Predictor
from predictors.ranking import normal_scores

MODEL = "trees"
"""What speaks for an earlier search: of 100 evaluations and more it ranks best (docs/predictor.md)."""
FEWEST = 10
"""Networks that a search must have measured to be asked."""


def earlier_predictors(config: SearchConfig, space: Genotypes) -> list[Predictor]:
    """A predictor of each search that `learn_from` names, fitted to what it measured, in normal scores.

    Raises MetanasError for a folder without a search over this space, or with too few measurements.
    """
    return [_predictor(config, space, Path(path)) for path in config.learn_from]


def _predictor(config: SearchConfig, space: Genotypes, path: Path) -> Predictor:
    folder = SearchFolder(path)
    own = folder.config
    if (own.space, own.table is None) != (config.space, config.table is None):
        raise MetanasError(f"learn_from: the search '{path}' is over another space; take over its 'space'.")
    with folder.store() as store:
        evaluations = store.evaluations(run=folder.id, space=space.name)
    # The last of each network, in a race that of the highest rung; the final training is another measurement.
    last = {
        space.canonical(e.architecture): e.accuracy for e in evaluations if e.accuracy is not None and e.split != FINAL
    }
    if len(last) < FEWEST:
        raise MetanasError(
            f"learn_from: the search '{path}' holds measurements of {len(last)} networks of the space '{space.name}', "
            f"and {FEWEST} are needed; let it go on with a larger budget, or leave it out."
        )
    features = np.stack([space.encode(architecture) for architecture in last])
    return make_model(MODEL, config.seed, ()).fit(features, normal_scores(np.array(list(last.values()))))


def earlier_weights(config: SearchConfig, path: Path) -> dict[str, Tensor]:
    """The shared weights of a run of `metanas train`, or of a search that had some, in the same space.

    Raises MetanasError when there are none, and for another space or other images.
    """
    run = open_run(path)
    if not any((path / name).is_file() for name in (RESULT, WEIGHTS)):
        raise MetanasError(f"evaluator.warm_start: the run '{path}' did not finish; go on with it by --resume.")
    if (run.config.space, run.config.image) != (config.space, config.image):
        raise MetanasError(
            f"evaluator.warm_start: the run '{path}' has another space or other images; take over its 'space' and "
            "'image'."
        )
    state = run.weights() if isinstance(run, RunFolder) else (run.last() or ({}, {}))[1]
    shared = {name.removeprefix("net."): torch.tensor(w) for name, w in state.items() if name.startswith("net.")}
    if not shared:
        raise MetanasError(
            f"evaluator.warm_start: the search '{path}' trained no shared weights; name a run of `metanas train`, or a "
            f"search by '{ENAS}' or the evaluator '{SHARED}'."
        )
    return shared
