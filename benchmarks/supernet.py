"""A training step of an architecture in the SuperNet against the same one extracted: seconds and peak memory.

The default cell space, and one with every operation under three names, so three times the shared weights. The
extracted network trains as a plain module does: forward, `backward`, `torch.optim.Adam`. Both in float32, one thread.
They begin with the same weights, so after the same first steps their losses must be equal.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rounds import arguments, finish, in_turn, ratio, run, table
from metanas.api import Architecture
from metanas.errors import MetanasError
from metanas.learning.executor import InProcess
from metanas.learning.inner import apply_head, prototype_head
from metanas.learning.learner import Inner, Learner
from metanas.learning.memory import keep_freed_memory, peak_memory
from metanas.learning.problems import accuracy
from metanas.learning.supernet import SuperNet
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import Worker
from metanas.spaces.cells import Cells
from metanas.spaces.ops import DARTS, OPERATIONS
from metanas.spaces.space import Features

WAYS, SHOTS, QUERIES, STEPS, SAMPLES = 5, 1, 15, 3, 3
RATE = 1e-3
PROCESSES = 3  # that memory is measured in
ROUNDING = 0.05  # relative, of the loss: in float64 the two are equal, in float32 Adam's first steps let rounding grow
NAMES = {1: DARTS, 3: tuple(f"{name} {copy}" if copy else name for copy in range(3) for name in DARTS)}


def cells(copies: int) -> Cells:
    """The default space, with each operation in so many copies of other names."""
    OPERATIONS.update({name: OPERATIONS[name.split()[0]] for name in NAMES[copies]})
    return Cells(operations=NAMES[copies])


@dataclass(frozen=True)
class Noise:
    """An episode of the right form; what is in it does not matter here."""

    support_inputs: Tensor
    support_labels: Tensor
    query_inputs: Tensor
    query_labels: Tensor
    ways: int = WAYS
    task: str = "noise"


class Sampler:
    """The same episode again and again."""

    seed = 0

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand(WAYS * (SHOTS + QUERIES), 1, 28, 28, generator=generator)
        support, queries = torch.arange(WAYS).repeat(SHOTS), torch.arange(WAYS).repeat(QUERIES)
        self._episode = Noise(inputs[: len(support)], support, inputs[len(support) :], queries)

    def episode(self, index: int) -> Noise:
        return self._episode


def make_learner(copies: int) -> Learner:
    """Freshly drawn weights of the cell space with every operation under that many names."""
    space = cells(copies)
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    inner = Inner(steps=0, learned_rates=False)
    return Learner(SuperNet(space, shared), Learner.initial_meta(shared, inner), inner)


def architectures(copies: int) -> list[Architecture]:
    """The default and some drawn at random from the operations that all spaces have, so that the work is the same."""
    small, rng = Cells(), np.random.default_rng(0)
    found = [small.default, *(small.sample(rng) for _ in range(SAMPLES))]
    for architecture in found:
        cells(copies).check(architecture)
    return found


Steps = Callable[[], Sequence[tuple[float, float]]]
"""Makes STEPS outer steps; loss and accuracy on the queries before each."""


def shared(learner: Learner, architecture: Architecture) -> Steps:
    """Steps in the SuperNet, as `metanas train` makes them."""
    trainer = MetaTrainer("net", InProcess(lambda: Worker({"net": learner}, {"train": Sampler()})))
    return partial(trainer.train, [[architecture]] * STEPS, 0, RATE)


def alone(network: Features) -> Steps:
    """Steps of the plain module, with the scale of the head that the SuperNet learns too."""
    network = network.to(memory_format=torch.channels_last).requires_grad_()
    scale = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([*network.parameters(), scale], RATE)
    episode = Sampler().episode(0)
    inputs = torch.cat([episode.support_inputs, episode.query_inputs])
    labels, cut = (episode.support_labels, episode.query_labels), len(episode.support_inputs)

    def step() -> tuple[float, float]:
        features = network(inputs, cut)
        support, queries = features[:cut], features[cut:]
        there = apply_head(prototype_head(support, labels[0], WAYS, scale.exp()), queries)
        back = apply_head(prototype_head(queries, labels[1], WAYS, scale.exp()), support)
        loss = (F.cross_entropy(there, labels[1]) + F.cross_entropy(back, labels[0])) / 2
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach()), float(accuracy(there.detach(), labels[1]))

    return lambda: [step() for _ in range(STEPS)]


def loss_difference(ours: Steps, theirs: Steps) -> float:
    """Of the two after equally many steps, relative. Raises MetanasError where it is more than rounding."""
    (loss, right), (other, also) = ours()[-1], theirs()[-1]
    difference = abs(loss - other) / other
    if difference > ROUNDING:
        raise MetanasError(
            f"the two do not train alike: loss {loss:.4f} and accuracy {right:.1%} in the SuperNet, {other:.4f} and "
            f"{also:.1%} alone."
        )
    return difference


def shared_afresh(copies: int) -> Steps:
    """The default architecture in the SuperNet, weights drawn here."""
    return shared(make_learner(copies), Cells().default)


def alone_afresh(copies: int) -> Steps:
    """The default architecture by itself, in a process that never sees the shared weights."""
    return alone(cells(copies).build(Cells().default))


def more_memory(make: Callable[[int], Steps], copies: int) -> float:
    """MiB that a fresh process takes for some steps, beyond what imports take."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as the worker of the shared weights does
    torch.optim.Adam([torch.zeros(1)])  # PyTorch's first one imports a compiler
    before = peak_memory()
    steps = make(copies)
    for _ in range(3):
        steps()
    return peak_memory() - before


def in_a_fresh_process(make: Callable[[int], Steps], copies: int) -> float:
    """`more_memory`, measured where nothing else has run."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(more_memory, make, copies).result()


def main() -> None:
    """Prints times and memory, and their ratios."""
    asked = arguments(__doc__.splitlines()[0], rounds=7)
    torch.set_num_threads(1)
    keys: dict[str, Any] = {}
    rows = []
    for copies in NAMES:
        learner = make_learner(copies)
        for number, architecture in enumerate(architectures(copies)):
            network = learner.supernet.extract(architecture)  # before the shared weights are trained
            contenders = {"shared": shared(learner, architecture), "alone": alone(network)}
            keys[f"loss_difference_{8 * copies}_{number}"] = loss_difference(*contenders.values())
            seconds = in_turn(contenders, asked.rounds)
            times = ratio(seconds["shared"], seconds["alone"])
            name = f"{8 * copies} operations, {'default' if number == 0 else f'random {number}'}"
            milliseconds = [f"{1000 * np.median(seconds[key]) / STEPS:.0f}" for key in contenders]
            rows.append((name, *milliseconds, str(times)))
            keys[f"time_ratio_{8 * copies}_{number}"] = times
    table(("one thread", "SuperNet, ms", "extracted, ms", "ratio"), rows)
    memory = []
    for copies in NAMES:
        of_rounds = [
            [in_a_fresh_process(make, copies) for make in (shared_afresh, alone_afresh)] for _ in range(PROCESSES)
        ]
        ours, theirs = np.array(of_rounds).T
        more = ratio(ours, theirs)
        keys[f"memory_ratio_{8 * copies}"] = more
        memory.append(
            (f"{8 * copies} operations, default", f"{np.median(ours):.0f}", f"{np.median(theirs):.0f}", str(more))
        )
    print()
    table(("peak memory of a process", "SuperNet, MiB", "extracted, MiB", "ratio"), memory)
    finish(asked, **keys)


if __name__ == "__main__":
    run(main)
