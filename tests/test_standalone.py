"""Training one network alone: the parts of a task, what training changes, and how answers are given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metanas.errors import MetanasError
from metanas.spaces.cells import Cells
from metanas.spaces.norm import SupportNorm
from metanas.spaces.space import Features
from metanas.standalone import (
    Classification,
    Samples,
    Training,
    accuracy,
    batches_of,
    draw_batch,
    fit,
    reference_images,
    split,
    train_alone,
    with_head,
)
from metanas.supernet import SuperNet
from tasks.task import Task

SPACE = Cells(nodes=1, width=4, reductions=1, operations=("skip_connect", "conv_3x3"))
TRAINING = Training(epochs=6, batch=16, rate=0.1)


@dataclass(frozen=True)
class Numbered:
    """Images whose first pixel is their number."""

    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        images = np.zeros((len(indices), 1, 4, 4), np.uint8)
        images[:, 0, 0, 0] = indices
        return images


def numbered(labels: np.ndarray, groups: np.ndarray | None = None) -> Task:
    names = tuple(f"class {label}" for label in range(labels.max() + 1))
    return Task("numbered", "image", Numbered(len(labels)), labels, names, groups=groups)


def numbers(samples: Samples) -> list[int]:
    return (samples.inputs[:, 0, 0, 0] * 255).round().int().tolist()


def corners(count: int, seed: int) -> Samples:
    """A bright spot at the left or at the right, the other side dark, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.5 * torch.rand(count, 1, 8, 8, generator=generator)
    images[labels == 1, :, 2:6, 2:6] += 0.5
    return Samples(images, labels)


TASK = Classification(corners(64, 0), corners(20, 1), corners(30, 2), 2)


def network(seed: int = 0, space: Cells = SPACE) -> Features:
    return SuperNet(space, space.initial_weights(torch.Generator().manual_seed(seed))).extract(space.default)


@given(st.lists(st.integers(5, 20), min_size=2, max_size=5), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_a_split_holds_every_sample_once_and_every_class_in_each_part(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = split(numbered(labels), seed)
    parts = [found.train, found.validation, found.test]
    assert sorted(chain.from_iterable(map(numbers, parts))) == list(range(len(labels)))
    assert found.classes == len(sizes)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert labels[numbers(part)].tolist() == part.labels.tolist()
        counts = np.bincount(part.labels, minlength=len(sizes))
        assert (abs(counts - share * np.array(sizes)) <= 2).all()
        assert (counts > 0).all()


def test_a_group_lies_in_one_part_alone() -> None:
    labels, groups = np.arange(200) % 2, (np.arange(200) // 8).astype(str)
    found = split(numbered(labels, groups), seed=0)
    sides = [set(groups[numbers(part)]) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, sides)) == len(set(groups))
    assert numbers(found.test) != numbers(split(numbered(labels, groups), seed=1).test)
    assert numbers(found.test) == numbers(split(numbered(labels, groups), seed=0).test)


def test_a_class_too_small_to_be_split_is_named() -> None:
    with pytest.raises(MetanasError, match=r"class 'class 1' of the task 'numbered' has 4 samples, .* needs 5"):
        split(numbered(np.array([0] * 9 + [1] * 4)), seed=0)
    with pytest.raises(MetanasError, match=r"class 'class 0' of the task 'numbered' has 2 groups"):
        split(numbered(np.arange(40) % 2, np.arange(40) // 20), seed=0)


@pytest.mark.parametrize(
    "training", [TRAINING, replace(TRAINING, optimizer="adamw", rate=0.01), replace(TRAINING, precision="bfloat16")]
)
def test_training_learns_the_task(training: Training) -> None:
    found = train_alone(network(), TASK, training, seed=0)
    assert found.validation >= 0.9
    assert found.test >= 0.9
    assert found.seconds > 0
    untrained = with_head(network(), TASK, seed=0)
    assert accuracy(untrained, TASK.test, reference_images(TASK.train, 0)) < 0.9


def test_training_is_a_function_of_the_seed_alone() -> None:
    training = replace(TRAINING, epochs=1, augment="affine")
    torch.manual_seed(1)
    first = train_alone(network(), TASK, training, seed=0).network.state_dict()
    torch.manual_seed(2)
    again = train_alone(network(), TASK, training, seed=0).network.state_dict()
    other = train_alone(network(), TASK, training, seed=1).network.state_dict()
    plain = train_alone(network(), TASK, replace(training, augment=None), seed=0).network.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for different in (other, plain):
        assert not torch.equal(first["features.stem.weight"], different["features.stem.weight"])


def test_only_the_chosen_parameters_learn() -> None:
    classifier = with_head(network(), TASK, seed=0)
    before = {name: weight.detach().clone() for name, weight in classifier.named_parameters()}
    norms = [p for m in classifier.modules() if isinstance(m, SupportNorm) for p in m.parameters()]
    fit(classifier, TASK.train, TRAINING, 0, norms)
    changed = {name for name, weight in classifier.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "norm" in name}


def test_a_batch_is_drawn_without_repetition_within_an_epoch() -> None:
    samples = Samples(torch.arange(10.0)[:, None], torch.arange(10))
    assert batches_of(10, 4) == 2
    assert batches_of(3, 4) == 1
    epochs = [[draw_batch(samples, 4, step, 0, "name").labels.tolist() for step in (2 * e, 2 * e + 1)] for e in (0, 1)]
    for batches in epochs:
        drawn = list(chain.from_iterable(batches))
        assert len(drawn) == len(set(drawn)) == 8
    assert epochs[0] != epochs[1]
    assert draw_batch(samples, 4, 0, 0, "other").labels.tolist() != epochs[0][0]


def test_an_answer_does_not_depend_on_the_other_samples() -> None:
    classifier = train_alone(network(), TASK, replace(TRAINING, epochs=1), seed=0).network
    reference = reference_images(TASK.train, 0)
    alone = [accuracy(classifier, TASK.test.take(np.array([row])), reference) for row in range(30)]
    assert accuracy(classifier, TASK.test, reference) == pytest.approx(np.mean(alone))
    dark = Samples(torch.zeros(500, 1, 8, 8), torch.zeros(500, dtype=torch.long))
    of_dark = accuracy(classifier, dark, reference)
    both = Samples(torch.cat([dark.inputs, TASK.test.inputs]), torch.cat([dark.labels, TASK.test.labels]))
    expected = (500 * of_dark + sum(alone)) / 530
    assert accuracy(classifier, both, reference) == pytest.approx(expected)
