"""What a search of one task leaves in its folder: the architecture, its network trained anew, and how good that is."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from metanas.api import Architecture
from metanas.assembly import only_images, space_for
from metanas.config import SearchConfig, SpaceConfig, TaskConfig, read_config
from metanas.errors import MetanasError
from metanas.files import load_arrays, save_arrays
from metanas.learning.samples import Classification, split_task
from metanas.learning.worker import evaluated
from metanas.measuring.cost import cost
from metanas.measuring.standalone import Classifier, accuracy, make_classifier, train_alone
from metanas.run import Folder, RunFolder
from metanas.spaces.scaling import Scalable
from metanas.store import Store
from tasks.sources import Where, data_folder, load_source
from tasks.task import ImageForm, Task

RESULT, WEIGHTS = "result.json", "weights.safetensors"
FINAL = "final"
"""The split of the store's row on the final training."""


class FoundFolder(Folder):
    """Beside the files of every folder result.json and, unless a table was searched, weights.safetensors."""

    @property
    def finished(self) -> bool:
        return (self.path / RESULT).exists()

    @property
    def chosen(self) -> Architecture:
        return tuple(self.read_json(RESULT)["architecture"])

    def network(self) -> Classifier:
        """The trained network: `network(inputs, 0)` answers images (N, C, H, W) in [0, 1], each by itself.

        Raises MetanasError where there is none.
        """
        result = self.read_json(RESULT)
        if not (self.path / WEIGHTS).is_file():
            raise MetanasError(f"'{self.path}' holds no network: a table was searched, which trains none.")
        space = BuiltSpace(
            ImageForm(**result["image"]), SpaceConfig(**result["space"]), result["depth"], result["width"]
        ).make()
        size, ways = result["image"]["size"], len(result["classes"])
        network = make_classifier(space, tuple(result["architecture"]), ways, size, seed=0)
        arrays = load_arrays(self.path / WEIGHTS)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return network.eval()


class SearchFolder(FoundFolder):
    """What `metanas search` wrote; also latency.json where a task's latency is an objective, a limit or a cost."""

    COMMAND = "metanas search"

    @property
    def config(self) -> SearchConfig:
        return read_config(self._config(), SearchConfig)


class EnlargedFolder(FoundFolder):
    """What `metanas enlarge` wrote."""

    COMMAND = "metanas enlarge RUN"


def open_run(path: Path) -> RunFolder | SearchFolder:
    """What `metanas train` or `metanas search` wrote, finished or not. Raises MetanasError where there is none."""
    folder = SearchFolder(path)
    return RunFolder(path) if "pool" in folder.keys else folder


@dataclass(frozen=True)
class BuiltSpace:
    """A space as a configuration says it, for images of a form, `depth` times as deep and `width` times as wide."""

    image: ImageForm
    space: SpaceConfig
    depth: float = 1.0
    width: float = 1.0

    def make(self) -> Scalable:
        space = cast(Scalable, space_for(self.image, self.space))
        return space if self.depth == self.width == 1 else space.scaled(self.depth, self.width, self.image.size)


def read_task(config: TaskConfig, data: Path | None, download: bool = False) -> tuple[Task, Classification]:
    """The task that a configuration names, and its three parts. Raises MetanasError when it names none, or several."""
    if config.data is None:
        raise MetanasError("data: name a source, such as {name: digits, kind: sklearn, set: digits}, or a table.")
    source = config.data
    where = Where(data=data_folder(data), download=download)
    tasks = load_source(source.kind, source.name, config.image, where, source.model_extra or {})
    named = [task for task in tasks if config.task in (None, task.name)]
    if len(named) != 1:
        names = ", ".join(task.name for task in tasks)
        raise MetanasError(f"task: name one of the tasks of the source '{source.name}', which has {names}.")
    only_images(named, "name a source of images")
    return named[0], split_task(named[0], config.seed)


def train_found(
    folder: Folder,
    store: Store,
    config: TaskConfig,
    task: tuple[Task, Classification],
    built: BuiltSpace,
    architecture: Architecture,
    generation: int,
    more: dict[str, Any],
) -> None:
    """Trains what was found from scratch as `config.final` says, and writes the network and result.json.

    The validation accuracy goes to the store, as the split `FINAL`; the test accuracy is measured once, here.
    Raises MetanasError when the training fails.
    """
    (whole, parts), space, size = task, built.make(), config.image.size
    network = make_classifier(space, architecture, parts.train.ways, size, config.seed)

    def measure() -> tuple[float, None]:
        return train_alone(network, parts.train, parts.validation, config.final, config.seed)[-1], None

    evaluation = evaluated(
        measure,
        costs := cost(space, architecture, size),
        lambda: space.describe(architecture),
        architecture=architecture,
        space=space.name,
        generation=generation,
        weights_version=0,
        split=FINAL,
        task=whole.name,
        episode=0,
        seed=config.seed,
    )
    store.add(folder.id, [evaluation])
    if evaluation.error is not None:
        raise MetanasError(f"the final training failed ({evaluation.error.strip().splitlines()[-1]}); change 'final'.")
    save_arrays(folder.path / WEIGHTS, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    folder.write_json(
        RESULT,
        {
            "architecture": list(architecture),
            "description": space.describe(architecture),
            **more,
            "space": built.space.model_dump(mode="json"),
            "depth": built.depth,
            "width": built.width,
            "image": asdict(built.image),
            "classes": list(whole.classes),
            "params": costs.params,
            "macs": costs.macs,
            "validation": evaluation.accuracy,
            "test": accuracy(network, parts.test),
        },
    )
