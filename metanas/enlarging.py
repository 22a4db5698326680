"""A run's architecture in a larger network for a larger data set.

NASNet's transfer (Zoph et al. 2018, section 3): cells that were found on a small data set are stacked more often and
wider. The same holds for the stages of the other spaces, which compound scaling makes larger (`spaces/scaling.py`).
"""

from dataclasses import dataclass, replace
from typing import cast

from metanas.api import Architecture
from metanas.assembly import make_space
from metanas.run import RunFolder
from metanas.samples import Samples
from metanas.spaces.scaling import Scalable
from metanas.standalone import Classifier, Training, make_classifier, train_alone


@dataclass(frozen=True)
class Enlarged:
    """An architecture in the space that builds it larger, its trained network, and the accuracy after every epoch."""

    space: Scalable
    architecture: Architecture
    network: Classifier
    accuracies: list[float]


def enlarge(
    run: RunFolder,
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
    image = replace(config.image, size=size, channels=channels)
    space = cast(Scalable, make_space(config.model_copy(update={"image": image}))).scaled(depth, width, size)
    genes = run.chosen if architecture is None else architecture
    network = make_classifier(space, genes, train.ways, size, seed)
    return Enlarged(space, genes, network, train_alone(network, train, validation, training, seed))
