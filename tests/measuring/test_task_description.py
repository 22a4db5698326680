"""What is read off a support set, against hand-made images and embeddings."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metanas.assembly import make_learner
from metanas.learning.learner import Learner
from metanas.learning.samples import Samples
from metanas.measuring.task_description import COLUMNS, DIMENSIONS, TaskDescriber, embedding, statistics, unit
from tests.runs import tiny_config


def support(images: Tensor, labels: list[int]) -> Samples:
    return Samples(images, torch.tensor(labels), max(labels) + 1)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return make_learner(tiny_config(precision="bfloat16"))


def test_statistics_by_hand() -> None:
    """Two images of 2 x 3 pixels: one even, one with a step to the right and one downwards."""
    image = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.0, 1.0]])
    images = torch.stack([torch.zeros(2, 3), image])[:, None]
    mean, spread, edges, channels = statistics(support(images, [0, 1]))
    pixels = np.array([0] * 6 + [0, 0, 1, 0.5, 0, 1])
    assert mean == pytest.approx(pixels.mean())
    assert spread == pytest.approx(pixels.std())
    # Neighbours exist below and to the right of two pixels an image: steps (0.5, 0) and (0, 1).
    assert edges == pytest.approx((0.5 + 1) / 4)
    assert channels == 1


def test_channels_that_say_nothing_new_are_not_in_use() -> None:
    grey = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert statistics(support(grey.repeat(1, 3, 1, 1), [0, 1, 1]))[3] == 1
    two = grey.repeat(1, 3, 1, 1)
    two[1, 2, 0, 0] = 1 - two[1, 2, 0, 0]
    assert statistics(support(two, [0, 1, 1]))[3] == 2


def test_the_embedding_is_the_mean_feature_of_the_default_network(learner: Learner) -> None:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = learner.supernet.extract(learner.supernet.space.default)
    with torch.no_grad():
        mean = network(images, len(images)).mean(0).double().numpy()
    found = embedding(learner, support(images, [0, 1, 2] * 2))
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), rtol=1e-4)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_every_column_by_hand(learner: Learner) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (support(torch.rand(6, 1, 8, 8, generator=generator), [0, 1, 2] * 2) for _ in range(2))
    own = embedding(learner, first)
    other = unit(np.random.default_rng(0).normal(size=len(own)))
    describer = TaskDescriber(learner, np.stack([own, other]))
    found = dict(zip(COLUMNS, describer(first), strict=True))
    assert (found["ways"], found["shots"]) == (pytest.approx(np.log(3)), pytest.approx(np.log(2)))
    named = ("mean", "spread", "edges", "channels")
    assert [found[name] for name in named] == list(statistics(first))
    assert found["nearest"] == pytest.approx(1), "the task itself is in the pool"
    assert found["similarity"] == pytest.approx((1 + own @ other) / 2)
    np.testing.assert_allclose(describer.mean([first, second]), (describer(first) + describer(second)) / 2)
    assert TaskDescriber(learner, other[None])(first)[6 : 6 + DIMENSIONS].tolist() == [
        found[f"embedding {dimension}"] for dimension in range(DIMENSIONS)
    ], "the projection does not depend on the pool"


def test_the_projection_keeps_what_is_near_near(learner: Learner) -> None:
    """Alike tasks get alike numbers: with a little noise they move less than to another task."""
    generator = torch.Generator().manual_seed(2)
    bright, dark = torch.rand(6, 1, 8, 8, generator=generator), torch.rand(6, 1, 8, 8, generator=generator) ** 4
    noisy = (bright + 0.01 * torch.rand(6, 1, 8, 8, generator=generator)).clamp(0, 1)
    describer = TaskDescriber(learner, np.eye(len(embedding(learner, support(bright, [0, 1] * 3))))[:1])
    a, b, c = (describer(support(images, [0, 1] * 3)) for images in (bright, noisy, dark))
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(a - c)
