"""A run's architecture in a larger network for a larger data set.

NASNet's transfer (Zoph et al. 2018, section 3): cells that were found on a small data set are stacked more often and
wider. The same holds for the stages of the other spaces, which compound scaling makes larger (`spaces/scaling.py`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from metanas.api import Architecture
from metanas.config import EnlargeConfig, SearchConfig
from metanas.errors import MetanasError
from metanas.found import BuiltSpace, EnlargedFolder, SearchFolder, one_thread, read_task, train_found
from metanas.learning.samples import Samples
from metanas.measuring.standalone import Classifier, Training, make_classifier, train_alone
from metanas.run import RunFolder
from metanas.spaces.scaling import Scalable


@dataclass(frozen=True)
class Enlarged:
    """An architecture in the space that builds it larger, its trained network, and the accuracy after every epoch."""

    space: Scalable
    architecture: Architecture
    network: Classifier
    accuracies: list[float]


def enlarge(
    run: RunFolder | SearchFolder,
    train: Samples,
    validation: Samples,
    training: Training,
    depth: float = 1.0,
    width: float = 1.0,
    architecture: Architecture | None = None,
    seed: int = 0,
) -> Enlarged:
    """Trains the run's choice, or another `architecture` of it, from scratch with `depth` times the layers or cells.

    Its genes stay as they are. `width` multiplies the channels; the images' size and channels are those of `train`.
    """
    channels, size = train.inputs.shape[1], train.inputs.shape[-1]
    config = run.config
    space = BuiltSpace(replace(config.image, size=size, channels=channels), config.space, depth, width).make()
    genes = run.chosen if architecture is None else architecture
    network = make_classifier(space, genes, train.ways, size, seed)
    return Enlarged(space, genes, network, train_alone(network, train, validation, training, seed))


def enlarge_run(
    run: Path, config: EnlargeConfig, out: Path, data: Path | None = None, download: bool = False
) -> EnlargedFolder:
    """`metanas enlarge`: the choice of `metanas train` or `metanas search`, larger, on the task of `config`.

    Raises MetanasError before anything is written when one of them is not as it should be.
    """
    found = RunFolder(run) if (run / "population.json").exists() else SearchFolder(run)
    searched = found.config
    if isinstance(searched, SearchConfig) and searched.table is not None:
        raise MetanasError(f"'{run}' searched a table, whose cells are built by its benchmark and not here.")
    architecture = found.chosen
    built = BuiltSpace(config.image, searched.space, config.depth, config.width)
    folder = EnlargedFolder(out)
    with one_thread():
        task = read_task(config, data, download)
        folder.begin(config, resume=False)
        with folder.store() as store:
            train_found(folder, store, config, task, built, architecture, 0, {"of": str(run)})
    return folder
