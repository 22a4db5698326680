"""Zero-cost scores against closed forms and definitions on tiny networks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metanas.learning.samples import Samples
from metanas.measuring.cost import cost
from metanas.measuring.scores import SCORES, flops, gradient_norm, naswot, params, randomise, snip, synflow
from metanas.measuring.standalone import make_classifier
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.norm import SupportNorm
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages

SPACES: dict[str, Space] = {
    "stages": Stages(channels=3, size=16, widths=((4, 8), (8, 12))),
    "cells": Cells(channels=3, nodes=2, width=8, reductions=1),
    "mobile": Mobile(channels=3, widths=((4, 8), (8, 12)), strides=(1, 2), stem=8, features=16),
}


class Normalised(nn.Module):
    """A chain of matrices whose middle is normalised, as one-pixel images."""

    def __init__(self, first: nn.Linear, second: nn.Linear) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.norm = SupportNorm(first.out_features)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.first(x.flatten(1))[:, :, None, None], len(x))
        return self.second(hidden[:, :, 0, 0])


def batch(count: int = 6, shape: tuple[int, ...] = (3, 1, 1), ways: int = 2, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    return Samples(torch.randn(count, *shape, generator=generator), torch.arange(count) % ways, ways)


def chain(*widths: int) -> tuple[nn.Sequential, list[nn.Linear]]:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *layers), layers


def test_synflow_of_a_linear_chain() -> None:
    """R is multilinear in the layers, so each layer's sum of w dR/dw is R: the score is R times the depth."""
    network, layers = chain(3, 4, 5, 2)
    flow = torch.ones(3)
    for layer in layers:
        flow = layer.weight.detach().abs() @ flow
    assert synflow(network, batch()) == pytest.approx(3 * float(flow.sum()), rel=1e-5)


def test_synflow_leaves_normalisation_out_and_the_network_as_it_was() -> None:
    network, (first, second) = chain(3, 4, 2)
    expected = synflow(network, batch())
    normalised = Normalised(first, second)
    before = [w.detach().clone() for w in normalised.parameters()]
    assert synflow(normalised, batch()) == pytest.approx(expected)
    assert all(torch.equal(a, b) for a, b in zip(before, normalised.parameters(), strict=True))


def test_naswot_by_hand() -> None:
    """Two units that read the two inputs: the codes of four images are 11, 10, 01 and 00."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.eye(2))
    images = torch.tensor([[3.0, 1.0], [2.0, -1.0], [-1.0, 4.0], [-5.0, -2.0]])[:, :, None, None]
    agreements = np.array([[2, 1, 1, 0], [1, 2, 0, 1], [1, 0, 2, 1], [0, 1, 1, 2]])
    three = slice(0, 3)
    expected = math.log(abs(np.linalg.det(agreements[three, three])))
    assert naswot(network, Samples(images[three], torch.zeros(3).long(), 2)) == pytest.approx(expected)
    same = Samples(images[[0, 0, 1]], torch.zeros(3).long(), 2)
    assert naswot(network, same) < -10


def test_naswot_counts_every_relu_however_it_is_called() -> None:
    """Against codes taken from the values between the layers."""
    first, second, last = chain(3, 7, 5, 2)[1]

    class Relus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(first(x.flatten(1)))
            return last(F.relu(second(x), inplace=True))

    samples = batch()
    hidden = first(samples.inputs.flatten(1))
    codes = torch.cat([hidden, second(hidden.relu())], dim=1) > 0
    kernel = [[int((a == b).sum()) for b in codes] for a in codes]
    assert naswot(Relus(), samples) == pytest.approx(np.linalg.slogdet(np.array(kernel, dtype=float))[1])


def finite_differences(network: nn.Module, samples: Samples, weight: Tensor) -> Tensor:
    """dL/dw, one weight at a time."""
    found = torch.empty_like(weight)
    with torch.no_grad():
        for i in np.ndindex(*weight.shape):
            value, losses = float(weight[i]), []
            for moved in (value + 1e-5, value - 1e-5):
                weight[i] = moved
                losses.append(float(F.cross_entropy(network(samples.inputs), samples.labels)))
            weight[i] = value
            found[i] = (losses[0] - losses[1]) / 2e-5
    return found


def test_snip_and_gradient_norm_by_definition() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    samples = Samples(batch().inputs.double(), batch().labels, 2)
    weights = [network[1].weight, network[3].weight]
    gradients = [finite_differences(network, samples, weight) for weight in weights]
    sensitivity = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True))
    assert snip(network, samples) == pytest.approx(sensitivity, rel=1e-6)
    assert gradient_norm(network, samples) == pytest.approx(sum(float(g.norm()) for g in gradients), rel=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_scores_of_real_networks(name: str) -> None:
    """All are finite, functions of the seed, and tell a small network from a large one."""
    space = SPACES[name]
    samples = batch(8, (3, 16, 16))
    rng = np.random.default_rng(0)
    drawn = sorted((space.sample(rng) for _ in range(12)), key=lambda a: cost(space, a, 16).params)
    found = {}
    for which, architecture in (("small", drawn[0]), ("large", drawn[-1]), ("again", drawn[-1])):
        network = make_classifier(space, architecture, 2, 16, 0)
        randomise(network, torch.Generator().manual_seed(0))
        found[which] = {key: score(network, samples) for key, score in SCORES.items()}
    assert found["large"] == found["again"]
    assert all(math.isfinite(value) for value in found["small"].values())
    assert all(found["small"][key] != found["large"][key] for key in SCORES)


def test_counts_are_those_of_the_cost_and_the_head() -> None:
    space = SPACES["mobile"]
    network, samples = make_classifier(space, space.default, 5, 16, 0), batch(4, (3, 16, 16))
    body = cost(space, space.default, 16)
    assert params(network, samples) == body.params + 16 * 5 + 5
    assert flops(network, samples) == 2 * (body.macs + 16 * 5)


def test_operations_are_counted_where_fewer_are_made() -> None:
    """Wide convolutions of large maps are computed by fewer multiplications than they are defined by."""
    space = Stages(3, 64)
    network = make_classifier(space, space.default, 5, 64, 0)
    body, features = cost(space, space.default, 64), network.head.in_features
    assert flops(network, batch(4, (3, 64, 64))) == 2 * (body.macs + features * 5)


def test_randomised_layers_all_carry_gradients() -> None:
    """Residual layers that start as the identity would have none."""
    space = SPACES["stages"]
    network = make_classifier(space, space.default, 2, 16, 0)

    def silent() -> int:
        loss = F.cross_entropy(network(samples.inputs), samples.labels)
        weights = [w for w in network.parameters() if w.ndim > 1]
        return sum(not g.any() for g in torch.autograd.grad(loss, weights))

    samples = batch(8, (3, 16, 16))
    assert silent() > 0
    randomise(network, torch.Generator().manual_seed(0))
    assert silent() == 0
