"""An adapted network: made for a new task's folder, saved, loaded, and asked about files."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from metanas.api import Architecture, Show
from metanas.assembly import answering_precision, left_out, make_space
from metanas.commands.blocks import meta_network
from metanas.commands.candidates import candidates
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.files import save_arrays, write_text
from metanas.learning.executor import one_thread
from metanas.learning.inner import HEAD, Weights, apply_head
from metanas.learning.learner import Learner
from metanas.learning.samples import Samples, samples_of
from metanas.learning.supernet import SuperNet
from metanas.learning.transfer import Adaptation, answers, choose, fine_tune, folds, from_scratch, mixture, over_turns
from metanas.measuring.task_description import TaskDescriber
from metanas.parsing import parse
from metanas.run import RunFolder
from metanas.seeding import stream, torch_stream
from metanas.spaces.norm import record_statistics
from metanas.spaces.space import Features
from metanas.statistics import wilson
from tasks.cache import CachedImages, open_image, to_form
from tasks.episodes import as_tensor
from tasks.sources import Where
from tasks.sources.folder import SUFFIXES
from tasks.sources.folder import load as load_folder
from tasks.task import Task

PREFIXES = ("", "scratch.")  # of the members in weights.safetensors: the adapted network, the one from scratch


@dataclass(frozen=True)
class Expected:
    """Cross-validated accuracy with its 95% Wilson interval; all None where nothing could be held out."""

    accuracy: float | None
    low: float | None
    high: float | None
    samples: int


@dataclass(frozen=True)
class Adapted:
    """What model.json must hold of a network for one task."""

    config: RunConfig
    architecture: Architecture
    classes: tuple[str, ...]
    expected: Expected


@dataclass(frozen=True)
class Member:
    """Plain features with recorded support statistics, and a linear head."""

    network: Features
    head: dict[str, Tensor]

    def logits(self, images: Tensor) -> Tensor:
        """(N, K) for images (N, C, H, W) in [0, 1]."""
        return apply_head(self.head, self.network(images, 0))


@dataclass(frozen=True)
class Model(Adapted):
    """For one task the adapted network, and where adaptation asks for it the one trained from scratch."""

    members: tuple[Member, ...]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, K) for images (N, C, H, W) in [0, 1]; each answer depends on its own image alone."""
        turns = self.config.adaptation.turns
        return mixture([over_turns(member.logits, images, turns) for member in self.members])


def adapt(run: RunFolder, folder: Path, out: Path, show: Show = lambda event: None, groups: str | None = None) -> Model:
    """A model for the task in `folder` (one subfolder a class), saved as `out`.

    The predictor ranks the population and fresh offspring; where one of the best of them does significantly better on
    the support set than the run's choice it is adapted, else the choice is. `show` is told of files that are no
    images. Of samples whose file names give the same for the regular expression `groups` none helps to choose by the
    others, or to say what is expected of them. Raises MetanasError for folders that cannot be learned from.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MetanasError(f"'{out}' is there already; give another --out, or remove it first.")
    config = run.config
    learner = meta_network(run)
    learner.precision = "float32"
    line = _read_line(folder, config, groups, show)
    support = samples_of(line)
    asked = candidates(run, config)
    out.mkdir(parents=True, exist_ok=True)  # where nothing can be written is told before the work, not after it
    task = None if asked.pool is None else TaskDescriber(learner, asked.pool)(support)
    with one_thread():
        architecture = choose(learner, asked.best(task), support, line.groups)
    held_out = folds(support.labels.numpy(), config.adaptation.folds, stream(config.seed, "folds"), line.groups)
    supports = [support, *(_without(support, rows) for rows in held_out)]
    found, *tuned = _fine_tuned(learner, architecture, supports, config)
    expected = _expected(learner, architecture, support, held_out, tuned, config.adaptation)
    members = tuple(_member(learner.supernet.space.build(architecture), weights, support.inputs) for weights in found)
    model = Model(config, architecture, line.classes, expected, members)
    _save(model, out, run)
    return model


def load_model(path: Path) -> Model:
    """Reads what `adapt` wrote. Raises MetanasError when it is no model."""
    try:
        content = json.loads((path / "model.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "weights.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise MetanasError(f"'{path}' is no adapted model ({error}); make one with `metanas adapt`.") from error
    about = parse(Adapted, content, str(path / "model.json"))
    space, prefixes = make_space(about.config), PREFIXES if about.config.adaptation.with_scratch else PREFIXES[:1]
    try:
        members = tuple(_loaded(space.build(about.architecture), tensors, prefix) for prefix in prefixes)
        fits = all(len(member.head["head.bias"]) == len(about.classes) for member in members)
    except (RuntimeError, KeyError):
        fits = False
    if not fits:
        raise MetanasError(
            f"'{path}' is no adapted model: its weights.safetensors is not of the network and the classes of its "
            "model.json; copy both again, or make it anew with `metanas adapt`."
        )
    return Model(**vars(about), members=members)


def predict(model: Model, files: Sequence[Path]) -> list[dict[str, Any]]:
    """For each file its class and the probability of every class, or under "error" why it has none."""
    return [_answer(model, file) for file in files]


def _answer(model: Model, file: Path) -> dict[str, Any]:
    try:
        if file.is_dir():
            raise MetanasError(f"'{file}' is a folder; give the images in it, such as {file / '*.png'}.")
        if not file.exists():
            raise MetanasError(f"there is no file '{file}'; give the paths of images.")
        image = to_form(open_image(file, str(file)), model.config.image)
    except MetanasError as error:
        return {"file": str(file), "error": str(error)}
    except OSError as error:
        return {"file": str(file), "error": f"'{file}': {error.strerror}; put that right, or leave it out."}
    probabilities = model.probabilities(as_tensor(np.stack([image])))[0].tolist()
    return {
        "file": str(file),
        "class": model.classes[int(np.argmax(probabilities))],
        "probabilities": dict(zip(model.classes, probabilities, strict=True)),
    }


def _read_line(folder: Path, config: RunConfig, groups: str | None, show: Show) -> Task:
    if not folder.is_dir():
        raise MetanasError(f"there is no folder '{folder}'; give one that holds a folder of images for every class.")
    tasks = load_folder(name=folder.name, form=config.image, where=Where(Path()), path=folder.absolute(), groups=groups)
    if len(tasks) != 1:
        raise MetanasError(f"'{folder}' holds {len(tasks)} lines; give the folder of one, with its classes inside.")
    task = tasks[0]
    if len(task.classes) < 2:
        raise MetanasError(f"'{folder}' holds one class, '{task.classes[0]}'; add a folder of a second class.")
    assert isinstance(task.inputs, CachedImages)
    base = Path(task.inputs.originals.name(0)).parent.parent
    empty = {place.name for place in base.iterdir() if place.is_dir() and place.name[0] != "."} - set(task.classes)
    if empty:
        raise MetanasError(
            f"'{base / min(empty)}' holds no image that can be read; put some there ({', '.join(sorted(SUFFIXES))}), "
            "or take the folder away."
        )
    if (text := left_out([task])) is not None:
        show({"event": "note", "text": text})
    return task


def _fine_tuned(
    learner: Learner, architecture: Architecture, supports: Sequence[Samples], config: RunConfig
) -> list[list[Weights]]:
    """For each support set the weights of every member, their steps in the precision that pays here.

    A thread each: their batches are too small for more than one core.
    """
    adaptation, precision = config.adaptation, answering_precision(config, "cpu")
    threads = torch.get_num_threads()

    def one(number: int) -> list[Weights]:
        torch.set_num_threads(1)
        # A SuperNet of its own: running a network puts weights into it, which threads must not see of each other.
        supernet = SuperNet(learner.supernet.space, learner.supernet.shared)
        alone = Learner(supernet, learner.meta, learner.inner, precision)
        generator = torch_stream(config.seed, "adapt", number)
        found = [fine_tune(alone, architecture, supports[number], adaptation, generator)]
        if adaptation.with_scratch:
            generator = torch_stream(config.seed, "scratch", number)
            fresh, longer = from_scratch(alone, adaptation, generator)
            found.append(fine_tune(fresh, architecture, supports[number], longer, generator))
        return found

    with one_thread(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(len(supports))))


def _expected(
    learner: Learner,
    architecture: Architecture,
    support: Samples,
    held_out: Sequence[np.ndarray],
    tuned: Sequence[Sequence[Weights]],
    how: Adaptation,
) -> Expected:
    """What members tuned without some samples say of these, over all `held_out`."""
    if not held_out:
        return Expected(None, None, None, 0)
    right = 0
    for rows, members in zip(held_out, tuned, strict=True):
        kept, left = _without(support, rows), support.take(rows)
        logits = [answers(learner, architecture, weights, kept.inputs, left.inputs, how) for weights in members]
        right += int((mixture(logits).argmax(1) == left.labels).sum())
    count = len(support.labels)
    low, high = wilson(right, count)
    return Expected(right / count, low, high, count)


def _without(support: Samples, rows: np.ndarray) -> Samples:
    return support.take(np.setdiff1d(np.arange(len(support.labels)), rows))


def _member(network: Features, weights: Weights, support: Tensor) -> Member:
    network.load_state_dict({name: weight for name, weight in weights.items() if name not in HEAD}, strict=False)
    record_statistics(network, True)
    with torch.no_grad():
        network(support, len(support))
    record_statistics(network, False)
    return Member(network.requires_grad_(False), {name: weights[name] for name in HEAD})


def _loaded(network: Features, tensors: dict[str, Tensor], prefix: str) -> Member:
    body = prefix + "body."
    network.load_state_dict({n.removeprefix(body): t for n, t in tensors.items() if n.startswith(body)})
    return Member(network.requires_grad_(False), {name: tensors[prefix + name] for name in HEAD})


def _save(model: Model, out: Path, run: RunFolder) -> None:
    tensors: dict[str, Tensor] = {}
    for prefix, member in zip(PREFIXES, model.members, strict=False):
        tensors |= {f"{prefix}body.{name}": tensor for name, tensor in member.network.state_dict().items()}
        tensors |= {prefix + name: tensor for name, tensor in member.head.items()}
    save_arrays(out / "weights.safetensors", {name: tensor.numpy() for name, tensor in tensors.items()})
    content = {
        "classes": model.classes,
        "architecture": model.architecture,
        "describe": make_space(model.config).describe(model.architecture),
        "expected": asdict(model.expected),
        "run": run.path.name,
        "versions": run.read_json("versions.json"),
        "config": model.config.model_dump(mode="json"),
    }
    write_text(out / "model.json", json.dumps(content, indent=1))
