"""The SuperNet: extraction is exact, and an architecture reaches only the weights that are its own."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from metanas.api import Architecture
from metanas.learning.supernet import SuperNet, channels_last
from metanas.measuring.cost import cost
from metanas.native import elementary
from metanas.spaces.cells import Cells
from metanas.spaces.conv4 import Conv4
from metanas.spaces.mobile import Mobile
from metanas.spaces.ops import NASNET
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from tests.reference import Weights

SPACES: dict[str, Space] = {
    "stages": Stages(size=16, widths=((4, 8), (4, 8, 12), (8, 16))),
    "cells": Cells(nodes=2, width=4, reductions=1),
    "mobile": Mobile(widths=((4, 8), (8, 12)), strides=(1, 2), expansions=(2, 3)),
    "nasnet cells": Cells(nodes=2, width=4, reductions=1, operations=NASNET, combine=("sum", "concat")),
}
IMAGES = torch.rand(7, 1, 16, 16, generator=torch.Generator().manual_seed(0))
REFERENCE = 3
seeds = st.integers(0, 2**32 - 1)
spaces = st.sampled_from(sorted(SPACES))


def some_supernet(name: str) -> SuperNet:
    """With weights away from the identities that residual paths start as."""
    generator = torch.Generator().manual_seed(5)
    initial = SPACES[name].initial_weights(generator)
    return SuperNet(SPACES[name], {n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in initial.items()})


SUPERNETS = {name: some_supernet(name) for name in SPACES}


def draw(name: str, seed: int) -> Architecture:
    return SPACES[name].sample(np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(name=spaces, seed=seeds)
def test_an_extracted_network_gives_the_outputs_of_the_supernet(name: str, seed: int) -> None:
    supernet, architecture = SUPERNETS[name], draw(name, seed)
    network = supernet.extract(architecture)
    with torch.no_grad():
        expected = supernet.features(architecture, supernet.weights(architecture), IMAGES, REFERENCE)
        found = network(IMAGES, REFERENCE)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_network_of_the_supernet_holds_no_numbers(name: str) -> None:
    network = SUPERNETS[name].network(SPACES[name].default)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    assert SUPERNETS[name].network(SPACES[name].default) is network


def test_an_extracted_network_owns_its_weights() -> None:
    supernet = some_supernet("stages")
    architecture = SPACES["stages"].default
    network = supernet.extract(architecture)
    before = {name: w.detach().clone() for name, w in network.named_parameters()}
    for weight in supernet.shared.values():
        weight.zero_()
    assert all(torch.equal(w, before[name]) and w.requires_grad for name, w in network.named_parameters())
    assert all(w.storage_offset() == 0 and w.is_contiguous() for w in network.parameters())


def work(run: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """What PyTorch counts in a forward and a backward pass: operations, and bytes kept from one for the other."""
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        run().square().sum().backward()
    return counter.get_total_flops(), sum(kept)


@settings(max_examples=20, deadline=None)
@given(name=spaces, seed=seeds)
def test_running_an_architecture_costs_what_it_costs_alone(name: str, seed: int) -> None:
    space, architecture = SPACES[name], draw(name, seed)
    supernet = SuperNet(space, {n: w.clone().requires_grad_() for n, w in SUPERNETS[name].shared.items()})
    alone, weights = supernet.extract(architecture), supernet.weights(architecture)
    costs = cost(space, architecture, IMAGES.shape[-1])
    assert sum(weight.numel() for weight in weights.values()) == costs.params
    found = work(lambda: supernet.features(architecture, weights, IMAGES, REFERENCE))
    assert found == work(lambda: alone(IMAGES, REFERENCE))
    with torch.no_grad(), elementary(), FlopCounterMode(display=False) as counter:
        supernet.features(architecture, weights, IMAGES, REFERENCE)
    assert counter.get_total_flops() == 2 * len(IMAGES) * costs.macs


@settings(max_examples=25, deadline=None)
@given(name=spaces, seed=seeds)
@example(name="nasnet cells", seed=2765)
def test_gradients_reach_only_the_slices_in_use(name: str, seed: int) -> None:
    space, shared, architecture = SPACES[name], SUPERNETS[name].shared, draw(name, seed)
    # In float64: in single precision two right gradients of a deep cell network differ by more than the tolerance.
    leaves = {n: w.double().requires_grad_() for n, w in shared.items()}
    supernet, images = SuperNet(space, leaves), IMAGES.double()
    network = SUPERNETS[name].extract(architecture).double()
    supernet.features(architecture, supernet.weights(architecture), images, REFERENCE).square().sum().backward()
    network(images, REFERENCE).square().sum().backward()
    own: Weights = {n: w.grad for n, w in network.named_parameters() if w.grad is not None}
    assert own
    slices = space.slices(architecture)
    scale = max(float(g.abs().max()) for g in own.values())
    for n, leaf in leaves.items():
        expected = torch.zeros_like(leaf)
        if n in own:
            expected[slices[n]] = own[n]
        found = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)
        outside = torch.ones_like(leaf, dtype=torch.bool)
        if n in slices:
            outside[slices[n]] = False
        assert not found[outside].any()


def test_stages_share_weights_densely() -> None:
    """A 3x3 kernel is the centre of the 5x5 one, a narrow stage the first channels of the wide one."""
    space = SPACES["stages"]
    shared = {n: torch.arange(w.numel()).reshape(w.shape) for n, w in SUPERNETS["stages"].shared.items()}
    supernet = SuperNet(space, shared)
    narrow, wide = list(space.default), list(space.default)
    narrow[0:2], wide[0:2] = (0, 0), (1, 1)
    small = supernet.weights(tuple(narrow))["stages.0.first.conv.weight"]
    large = supernet.weights(tuple(wide))["stages.0.first.conv.weight"]
    assert (small.shape, large.shape) == ((4, 1, 3, 3), (8, 1, 5, 5))
    assert torch.equal(small, large[:4, :, 1:4, 1:4])
    assert small.data_ptr() != large.data_ptr()
    assert small.untyped_storage().data_ptr() == large.untyped_storage().data_ptr()


def test_other_weights_can_stand_in_for_the_shared_ones() -> None:
    supernet, architecture = SUPERNETS["stages"], SPACES["stages"].default
    shared = supernet.weights(architecture)
    others = {name: weight * 1.5 for name, weight in shared.items()}
    with torch.no_grad():
        plain = supernet.features(architecture, shared, IMAGES, REFERENCE)
        changed = supernet.features(architecture, others, IMAGES, REFERENCE)
        assert torch.equal(supernet.features(architecture, shared, IMAGES, REFERENCE), plain)
    assert not torch.allclose(plain, changed)


@pytest.mark.parametrize("channels", [1, 3])
def test_conv4_is_the_network_of_the_papers(channels: int) -> None:
    """Four blocks of 3x3 convolution to 64 channels and 2x2 max pooling: 28x28 images give 64 features."""
    family = Conv4(channels)
    supernet = SuperNet(family, family.initial_weights(torch.Generator().manual_seed(0)))
    network = supernet.extract(())
    assert network(torch.rand(3, channels, 28, 28), 2).shape == (3, 64)
    assert network(torch.rand(3, channels, 8, 8), 2).shape == (3, 64)
    assert network(torch.rand(3, channels, 64, 64), 2).shape == (3, 64 * 16)
    convolutions = 9 * 64 * (channels + 3 * 64) + 4 * 64
    assert sum(w.numel() for w in network.parameters()) == convolutions + 4 * 2 * 64


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_runs_channels_last(channels: int) -> None:
    """Of one channel PyTorch takes any strides for channels last, and goes on with plain tensors, which are slower."""
    images = torch.rand(5, channels, 8, 8)
    kernel = torch.rand(4, channels, 3, 3)
    laid_out = channels_last(images)
    assert torch.equal(laid_out, images)
    convolved = torch.nn.functional.conv2d(laid_out, channels_last(kernel), padding=1)
    assert convolved.is_contiguous(memory_format=torch.channels_last)
    assert not convolved.is_contiguous()
    vector = torch.rand(3)
    assert channels_last(vector) is vector
