"""Episodes a second, metanas against learn2learn tasksets of the same Omniglot characters.

5-way 1-shot with 15 queries a class, rotated classes, one thread. learn2learn once as its own Omniglot taskset is
(image files, read and scaled when drawn), once over tensors that are already in memory at 28x28. METANAS_DATA names the
folder that holds Omniglot.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from torchvision import transforms

from benchmarks.rounds import arguments, finish, in_turn, peer_module, ratio, run, table
from tasks.episodes import EpisodeSampler, EpisodeSpec, as_tensor
from tasks.pool import load_pool
from tasks.task import ImageForm, Task

WAYS, SHOTS, QUERIES, EPISODES = 5, 1, 15, 50
CHARACTERS = 200
SPEC = EpisodeSpec(ways=WAYS, shots=SHOTS, queries=QUERIES, rotations=True)


def characters(size: int) -> Task:
    """The first background characters of Omniglot."""
    pool = {
        "name": "omniglot",
        "sources": [{"name": "omniglot", "kind": "omniglot", "part": "background"}],
        "splits": {"by": "class", "fractions": {"train": 1.0}},
    }
    (task,) = load_pool(pool, ImageForm(size=size)).train
    return task.only(task.classes[:CHARACTERS])


class Files(Dataset[tuple[Tensor, int]]):
    """PNG files with the transforms of learn2learn's `omniglot_tasksets`."""

    def __init__(self, folder: Path) -> None:
        task = characters(size=105)
        self.files, self.labels = [], task.labels.tolist()
        for number, image in enumerate(task.read(np.arange(len(task)))):
            self.files.append(folder / f"{number}.png")
            Image.fromarray(255 - image[0]).save(self.files[-1])
        scale = transforms.Resize(28, interpolation=transforms.InterpolationMode.LANCZOS)
        self.transform = transforms.Compose([scale, transforms.ToTensor(), lambda x: 1.0 - x])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.files[index]).convert("L")), self.labels[index]


def in_memory() -> TensorDataset:
    """The same as tensors."""
    task = characters(size=28)
    return TensorDataset(as_tensor(task.read(np.arange(len(task)))), torch.from_numpy(task.labels.astype(np.int64)))


def peer(images: Dataset[Any]) -> Callable[[], object]:
    """Draws tasks with the transforms of learn2learn's `omniglot_tasksets`."""
    data, vision = peer_module("learn2learn.data"), peer_module("learn2learn.vision")
    dataset = data.MetaDataset(images)
    steps = [
        data.transforms.FusedNWaysKShots(dataset, n=WAYS, k=SHOTS + QUERIES),
        data.transforms.LoadData(dataset),
        data.transforms.RemapLabels(dataset),
        data.transforms.ConsecutiveLabels(dataset),
        vision.transforms.RandomClassRotation(dataset, [0.0, 90.0, 180.0, 270.0]),
    ]
    taskset = data.Taskset(dataset, task_transforms=steps, num_tasks=-1)
    return lambda: [taskset.sample() for _ in range(EPISODES)]


def ours(sampler: EpisodeSampler) -> None:
    """Draws episodes."""
    for index in range(EPISODES):
        sampler.episode(index)


def main() -> None:
    """Prints the rates and their ratios."""
    asked = arguments(__doc__.splitlines()[0], rounds=7)
    torch.set_num_threads(1)
    sampler = EpisodeSampler([characters(size=28)], SPEC, 0, "train")
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Callable[[], object]] = {
            "learn2learn, its Omniglot taskset": peer(Files(Path(folder))),
            "learn2learn, images in memory": peer(in_memory()),
            "metanas": partial(ours, sampler),
        }
        seconds = in_turn(contenders, asked.rounds)
    times = {name: ratio(values, seconds["metanas"]) for name, values in seconds.items()}
    rows = [(name, f"{EPISODES / np.median(values):.0f}", str(times[name])) for name, values in seconds.items()]
    table(("one thread", "episodes/s", "metanas draws so many times as many"), rows)
    files, memory = list(times.values())[:2]
    finish(asked, sampler_ratio=files, in_memory_ratio=memory)


if __name__ == "__main__":
    run(main)
