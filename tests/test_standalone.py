"""Stand-alone training: what a step does, what is learned, and when it stops."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from metanas.errors import MetanasError
from metanas.samples import Samples
from metanas.seeding import stream, torch_stream
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from metanas.standalone import Classifier, Training, accuracy, make_classifier, rate_share, train_alone

STAGES = Stages(size=8, widths=((4, 8), (8, 12)))
SPACES: dict[str, Space] = {
    "stages": STAGES,
    "cells": Cells(nodes=2, width=8, reductions=1),
    "mobile": Mobile(widths=((8, 12), (12, 16)), strides=(1, 2), stem=8, features=32),
}


def digits(classes: int = 4) -> tuple[Samples, Samples]:
    """Handwritten digits of 8x8 pixels: 200 to train on, the rest to validate."""
    found = load_digits(n_class=classes)
    inputs = torch.from_numpy(found.images).float()[:, None] / 16
    samples = Samples(inputs, torch.from_numpy(found.target).long(), classes)
    return samples.split(200 / len(samples), stream(0, "split"))


def fresh(space: Space = STAGES, seed: int = 0) -> Classifier:
    return make_classifier(space, space.default, 4, 8, seed)


def test_a_split_keeps_classes_and_loses_nothing() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20 + [2])
    samples = Samples(torch.arange(31.0)[:, None, None, None], labels, 3)
    part, rest = samples.split(0.3, np.random.default_rng(0))
    assert torch.bincount(part.labels).tolist() == [3, 6, 1]
    assert sorted(torch.cat([part.inputs, rest.inputs]).flatten().tolist()) == list(range(31))
    assert all(part.labels == labels[part.inputs.flatten().long()])


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_every_space_learn(name: str) -> None:
    train, validation = digits()
    found = train_alone(fresh(SPACES[name]), train, validation, Training(epochs=6, batch=32, rate=1e-2, drop_path=0.05))
    assert len(found) == 6
    assert found[-1] > 0.9 > found[0]


def test_the_same_seed_gives_the_same_network() -> None:
    train, validation = digits()
    training = Training(epochs=1, augment="affine", drop_path=0.2)
    networks = [fresh(seed=seed) for seed in (0, 0, 1)]
    found = [train_alone(n, train, validation, training, seed) for n, seed in zip(networks, (0, 0, 1), strict=True)]
    first, same, other = (torch.cat([w.flatten() for w in network.parameters()]) for network in networks)
    assert torch.equal(first, same)
    assert found[0] == found[1]
    assert not torch.equal(first, other)


def test_one_step_is_a_step_of_adamw() -> None:
    """By hand: the whole of the data as one batch, decoupled weight decay."""
    train, validation = digits()
    network, other = fresh(), fresh()
    training = Training(epochs=1, batch=1000, rate=0.05, weight_decay=0.1)
    train_alone(network, train, validation, training)
    rows = torch.randperm(len(train), generator=torch_stream(0, "alone", "batches"))
    weights = list(other.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(other(train.inputs[rows]), train.labels[rows]), weights)
    rate = 0.05
    for trained, weight, gradient in zip(network.parameters(), weights, gradients, strict=True):
        expected = weight * (1 - rate * 0.1) - rate * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)


def test_the_rate_rises_and_falls() -> None:
    shares = [rate_share(step, 40) for step in range(41)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[22] == pytest.approx(0.5)
    assert shares[40] == pytest.approx(0)


def test_accuracy_counts_single_images() -> None:
    train, validation = digits()
    network = fresh()
    reported = train_alone(network, train, validation, Training(epochs=2))[-1]
    with torch.no_grad():
        answers = [int(network(image[None], 0).argmax()) for image in validation.inputs]
    right = sum(answer == int(label) for answer, label in zip(answers, validation.labels, strict=True))
    assert reported == accuracy(network, validation) == right / len(validation)


def test_patience_ends_what_does_not_improve() -> None:
    train, validation = digits()
    still = Training(epochs=9, rate=0.0, patience=3)
    assert len(train_alone(fresh(), train, validation, still)) == 4
    assert len(train_alone(fresh(), train, validation, Training(epochs=5, rate=0.0))) == 5


def test_inherited_weights_are_where_training_starts() -> None:
    shared = {n: w + 0.1 for n, w in STAGES.initial_weights(torch.Generator().manual_seed(3)).items()}
    network = make_classifier(STAGES, STAGES.default, 4, 8, 0, shared)
    slices = STAGES.slices(STAGES.default)
    for name, weight in network.features.named_parameters():
        assert torch.equal(weight, shared[name][slices[name]])
    before = {name: weight.clone() for name, weight in shared.items()}
    train_alone(network, *digits(), Training(epochs=1))
    assert all(torch.equal(weight, before[name]) for name, weight in shared.items())


def test_divergence_and_missing_samples_are_named() -> None:
    train, validation = digits()
    poisoned = Samples(train.inputs * float("nan"), train.labels, 4)
    with pytest.raises(ArithmeticError, match="loss is nan in epoch 1"):
        train_alone(fresh(), poisoned, validation)
    with pytest.raises(MetanasError, match="no validation samples"):
        train_alone(fresh(), train, train.take(np.arange(0)))
