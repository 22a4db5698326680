"""Stand-alone training: what a step does, what is learned, and when it stops."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from metanas.errors import MetanasError
from metanas.learning.samples import Samples
from metanas.measuring.standalone import (
    CLIP,
    Classifier,
    Training,
    accuracy,
    make_classifier,
    rate_share,
    settle,
    train_alone,
)
from metanas.seeding import stream
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.norm import SupportNorm
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from tests.reference import SPOTS

STAGES = Stages(size=8, widths=((4, 8), (8, 12)))
CELLS = Cells(nodes=1, width=4, reductions=1, operations=("skip_connect", "conv_3x3"))
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


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_every_space_learn(name: str) -> None:
    train, validation = digits()
    found = train_alone(fresh(SPACES[name]), train, validation, Training(epochs=6, batch=32, rate=1e-2, drop_path=0.05))
    assert len(found) == 6
    assert found[-1] > 0.9 > found[0]


@pytest.mark.parametrize(
    "change", [{"optimizer": "sgd", "rate": 0.1}, {"optimizer": "adamw", "rate": 1e-2}, {"precision": "bfloat16"}]
)
def test_every_optimizer_and_precision_learns(change: dict[str, Any]) -> None:
    network = make_classifier(CELLS, CELLS.default, 2, 8, 0)
    settle(network, SPOTS.train)
    assert accuracy(network, SPOTS.test) < 0.9
    training = replace(Training(epochs=6, batch=16, rate=1e-2), **change)
    assert train_alone(network, SPOTS.train, SPOTS.validation, training)[-1] >= 0.9
    assert accuracy(network, SPOTS.test) >= 0.9
    assert network.precision == training.precision
    assert network(SPOTS.test.inputs).dtype == torch.float32


def test_only_the_chosen_parameters_learn() -> None:
    network = make_classifier(CELLS, CELLS.default, 2, 8, 0)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    norms = [p for m in network.modules() if isinstance(m, SupportNorm) for p in m.parameters()]
    train_alone(network, SPOTS.train, SPOTS.validation, Training(epochs=2), parameters=norms)
    changed = {name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if "norm" in name}


def test_training_is_a_function_of_its_arguments() -> None:
    train, validation = digits()
    training = Training(epochs=1, augment="affine", drop_path=0.2)

    def trained(seed: int = 0, **change: Any) -> tuple[Tensor, list[float]]:
        torch.manual_seed(len(change))  # of no effect
        network = fresh(seed=0)
        found = train_alone(network, train, validation, replace(training, **change), seed)
        return torch.cat([weight.flatten() for weight in network.parameters()]), found

    first, reached = trained()
    again, reached_again = trained(epochs=1)
    assert torch.equal(first, again)
    assert reached == reached_again
    for other, _ in (trained(seed=1), trained(augment=None), trained(drop_path=0.0)):
        assert not torch.equal(first, other)


def test_another_seed_draws_other_weights() -> None:
    first, other = fresh(seed=0), fresh(seed=1)
    for name in ("head.weight", next(name for name, w in first.named_parameters() if w.ndim == 4)):
        assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_step_by_hand(optimizer: str) -> None:
    """The whole of the data as one batch; AdamW decays weights beside the gradient, SGD within it."""
    train, validation = digits()
    network, other = fresh(), fresh()
    rate, decay = 0.05, 0.1
    train_alone(network, train, validation, Training(1, 1000, optimizer, rate, decay))
    weights = list(other.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(other(train.inputs), train.labels), weights)
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    gradients = [gradient * min(1, CLIP / float(length)) for gradient in gradients]
    for trained, weight, gradient in zip(network.parameters(), weights, gradients, strict=True):
        if optimizer == "adamw":
            expected = weight * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
        else:
            expected = weight - rate * (gradient + decay * weight)
        torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-6)


def test_long_gradients_are_cut() -> None:
    """One step of SGD moves weights by the rate times the longest gradient at most."""
    train, validation = digits()
    network, other = fresh(), fresh()
    for head in (network.head, other.head):
        with torch.no_grad():
            head.weight.mul_(1000)
    train_alone(network, train, validation, Training(1, 1000, "sgd", rate=0.1, weight_decay=0.0))
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    moved = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
    assert float(moved.detach()) == pytest.approx(0.1 * CLIP, rel=1e-2)


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
