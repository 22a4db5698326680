"""Samples: the parts of a task, and the batches of its epochs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metanas.errors import MetanasError
from metanas.learning.samples import Samples, batches_of, draw_batch, samples_of, split_task
from tasks.task import Task


@dataclass(frozen=True)
class Numbered:
    """Images whose first pixel is their number."""

    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def content(self) -> str:
        return str(self.count)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        images = np.zeros((len(indices), 1, 4, 4), np.uint8)
        images[:, 0, 0, 0] = indices
        return images


def numbered(labels: np.ndarray, groups: np.ndarray | None = None) -> Task:
    names = tuple(f"class {label}" for label in range(labels.max() + 1))
    return Task("numbered", "image", Numbered(len(labels)), labels, names, groups=groups)


def numbers(samples: Samples) -> list[int]:
    return (samples.inputs[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_stratified_part_keeps_classes_and_loses_nothing() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20 + [2])
    samples = Samples(torch.arange(31.0)[:, None, None, None], labels, 3)
    part, rest = samples.split(0.3, np.random.default_rng(0))
    assert torch.bincount(part.labels).tolist() == [3, 6, 1]
    assert sorted(torch.cat([part.inputs, rest.inputs]).flatten().tolist()) == list(range(31))
    assert all(part.labels == labels[part.inputs.flatten().long()])


def test_all_of_a_task_or_some_rows_of_it() -> None:
    task = numbered(np.array([2, 0, 1, 0]))
    assert samples_of(task).labels.tolist() == [2, 0, 1, 0]
    some = samples_of(task, np.array([3, 2]))
    assert (numbers(some), some.labels.tolist(), some.ways) == ([3, 2], [0, 1], 3)


@given(st.lists(st.integers(5, 20), min_size=2, max_size=5), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_a_split_holds_every_sample_once_and_every_class_in_each_part(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    found = split_task(numbered(labels), seed)
    parts = [found.train, found.validation, found.test]
    assert sorted(chain.from_iterable(map(numbers, parts))) == list(range(len(labels)))
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert part.ways == len(sizes)
        assert labels[numbers(part)].tolist() == part.labels.tolist()
        counts = np.bincount(part.labels, minlength=len(sizes))
        assert (abs(counts - share * np.array(sizes)) <= 2).all()
        assert (counts > 0).all()


def test_a_group_lies_in_one_part_alone() -> None:
    labels, groups = np.arange(200) % 2, (np.arange(200) // 8).astype(str)
    found = split_task(numbered(labels, groups), seed=0)
    sides = [set(groups[numbers(part)]) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, sides)) == len(set(groups))
    assert numbers(found.test) != numbers(split_task(numbered(labels, groups), seed=1).test)
    assert numbers(found.test) == numbers(split_task(numbered(labels, groups), seed=0).test)


def test_a_class_too_small_to_be_split_is_named() -> None:
    with pytest.raises(MetanasError, match=r"class 'class 1' of the task 'numbered' has 4 samples, .* needs 5"):
        split_task(numbered(np.array([0] * 9 + [1] * 4)), seed=0)
    with pytest.raises(MetanasError, match=r"class 'class 0' of the task 'numbered' has 2 groups"):
        split_task(numbered(np.arange(40) % 2, np.arange(40) // 20), seed=0)


def test_an_epoch_has_every_sample_once_in_batches_of_even_size() -> None:
    samples = Samples(torch.arange(10.0)[:, None], torch.arange(10), 10)
    assert [batches_of(10, batch) for batch in (4, 5, 20)] == [3, 2, 1]
    epochs = [[draw_batch(samples, 4, 3 * epoch + i, 0, "name").labels.tolist() for i in range(3)] for epoch in (0, 1)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 3, 3]
        assert sorted(chain.from_iterable(batches)) == list(range(10))
    assert epochs[0] != epochs[1]
    assert draw_batch(samples, 4, 0, 0, "name").labels.tolist() == epochs[0][0]
    assert draw_batch(samples, 4, 0, 0, "other").labels.tolist() != epochs[0][0]
    assert draw_batch(samples, 4, 0, 1, "name").labels.tolist() != epochs[0][0]
