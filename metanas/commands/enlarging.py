"""A run's architecture in a larger network for a larger data set.

NASNet's transfer (Zoph et al. 2018, section 3): cells that were found on a small data set are stacked more often and
wider. The same holds for the stages of the other spaces. Compound scaling (Tan and Le 2019, section 3.3) enlarges the
images as well, by coefficients that are given, or found here in the paper's two steps (`spaces/scaling.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from metanas.api import Architecture, Evaluation, Show
from metanas.config import EnlargeConfig, SearchConfig
from metanas.errors import MetanasError
from metanas.found import BuiltSpace, EnlargedFolder, SearchFolder, open_run, read_task, train_found
from metanas.learning.executor import one_thread
from metanas.learning.samples import Classification, Samples
from metanas.learning.worker import evaluated
from metanas.measuring.cost import cost
from metanas.measuring.measures import Alone, Estimator
from metanas.measuring.standalone import Classifier, Training, make_classifier, train_alone
from metanas.run import Recorder, RunFolder
from metanas.spaces.scaling import Coefficients, Point, Scalable, realised
from metanas.store import Store
from tasks.task import ImageForm, Task

GRID = "grid"
"""The split of the store's rows on points of a grid."""


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
    run: Path,
    config: EnlargeConfig,
    out: Path,
    data: Path | None = None,
    resume: bool = False,
    download: bool = False,
    show: Show = lambda event: None,
) -> EnlargedFolder:
    """`metanas enlarge`: the choice of `metanas train` or `metanas search`, larger, on the task of `config`.

    `show` is told every event of the log. With `resume` an interrupted one goes on after the last point of the grid
    that was tried; a finished one is left as it is. Raises MetanasError before anything is written when run,
    configuration or folder are not as they should be.
    """
    found = open_run(run)
    searched = found.config
    if isinstance(searched, SearchConfig) and searched.table is not None:
        raise MetanasError(f"'{run}' searched a table, whose cells are built by its benchmark and not here.")
    folder = EnlargedFolder(out)

    @lru_cache(maxsize=1)
    def read(image: ImageForm) -> tuple[Task, Classification]:
        return read_task(config.model_copy(update={"image": image}), data, download)

    asked = _Asked(config, BuiltSpace(config.image, searched.space), found.chosen, read)
    with one_thread():
        task, _ = read(config.image)
        points = asked.points()
        folder.begin(config, resume)
        folder.tell_changes({task.name: task.content_hash}, show)
        if folder.finished:
            return folder
        with folder.store() as store:
            trials = _try(asked, points, store, Recorder(folder, store, show))
            built, scaling = _built(asked, points, trials)
            store.discard_from(folder.id, len(points))  # a final training that nobody heard of
            larger, about = config.model_copy(update={"image": built.image}), {"of": str(run), **scaling}
            train_found(folder, store, larger, read(built.image), built, found.chosen, len(points), about)
    return folder


@dataclass(frozen=True)
class _Asked:
    """An architecture, the space that it was found in for the images of the task, and how to read that task."""

    config: EnlargeConfig
    base: BuiltSpace
    architecture: Architecture
    read: Callable[[ImageForm], tuple[Task, Classification]]

    def points(self) -> list[Point]:
        """What is to be tried; nothing where the coefficients are given, or none asked for."""
        if self.config.phi is None or self.config.coefficients is not None:
            return []
        return realised(self.base.make(), self.architecture, self.base.image.size, cost)

    def scaled(self, coefficients: Coefficients, phi: float) -> BuiltSpace:
        depth, width, size = coefficients.factors(self.base.image.size, phi)
        return BuiltSpace(replace(self.base.image, size=size), self.base.space, depth, width)

    def trial(self, number: int, point: Point) -> Evaluation:
        """A point trained on the task's training part and judged on its validation part."""
        config, built = self.config, self.scaled(point.coefficients, 1)
        (task, parts), space = self.read(built.image), built.make()
        alone = Alone(Estimator(training=config.trial), space, parts.train, parts.validation, config.seed)
        return evaluated(
            lambda: (alone(self.architecture), None),
            point.cost,
            lambda: space.describe(self.architecture),
            architecture=self.architecture,
            space=space.name,
            generation=number,
            weights_version=0,
            split=GRID,
            task=task.name,
            episode=0,
            seed=config.seed,
        )


def _try(asked: _Asked, points: Sequence[Point], store: Store, recorder: Recorder) -> list[Evaluation]:
    """What every point comes to: a row of the store each, whose generation is the point's number.

    Those that are there are not trained again. Raises MetanasError where they are of something else.
    """
    folder, started = recorder.folder, time.monotonic()
    rows = [row for row in store.evaluations(run=folder.id) if row.split == GRID]
    for point, row in zip(points, rows, strict=False):
        if (row.architecture, row.params, row.macs) != (asked.architecture, point.cost.params, point.cost.macs):
            raise MetanasError(
                f"'{folder.path}' was begun for another run; resume it with that one, or give another --out."
            )
    for number, point in list(enumerate(points))[len(rows) :]:
        row = asked.trial(number, point)
        recorder.record([row])
        recorder.event(
            "point",
            point=number + 1,
            growth=point.growth,
            accuracy=row.accuracy,
            seconds=time.monotonic() - started,
            done=(number + 1) / len(points),
        )
        rows.append(row)
    return rows


def _built(asked: _Asked, points: Sequence[Point], trials: Sequence[Evaluation]) -> tuple[BuiltSpace, dict[str, Any]]:
    """What is to be trained in the end, and how it came to that, as result.json has it."""
    config, base = asked.config, asked.base
    if config.phi is None:
        return replace(base, depth=config.depth, width=config.width), {}
    accuracies = {p: trial.accuracy for p, trial in zip(points, trials, strict=True) if trial.accuracy is not None}
    if points and not accuracies:
        reason = str(trials[-1].error).strip().splitlines()[-1]
        raise MetanasError(f"all {len(points)} trainings of the grid failed (the last: {reason}); change 'trial'.")
    coefficients = config.coefficients or max(accuracies, key=accuracies.__getitem__).coefficients
    built = asked.scaled(coefficients, config.phi)
    before, after = (cost(b.make(), asked.architecture, b.image.size).macs for b in (base, built))
    tried = [
        {**asdict(p.coefficients), "size": p.size, "growth": p.growth, "accuracy": trial.accuracy}
        for p, trial in zip(points, trials, strict=True)
    ]
    chosen = {"phi": config.phi, "coefficients": asdict(coefficients), "growth": after / before}
    return built, chosen | ({"tried": tried} if tried else {})
