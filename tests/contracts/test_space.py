"""What every search space promises, held for each of them."""

from collections import Counter, defaultdict
from functools import cache
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from metanas.errors import MetanasError
from metanas.measuring.cost import cost
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.ops import NASNET
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages

SIZE = 32
SPACES: dict[str, Space] = {
    "cells": Cells(),
    "nasnet cells": Cells(
        channels=3, nodes=3, width=4, stack=2, reductions=1, operations=NASNET, combine=("sum", "concat")
    ),
    "stages": Stages(),
    "colour stages": Stages(channels=3, size=SIZE, widths=((4, 8), (8, 16))),
    "mobile": Mobile(),
    "colour mobile": Mobile(channels=3, widths=((4, 8), (8, 12)), strides=(2, 1), expansions=(1, 4), norm="sample"),
}
TINY: dict[str, Space] = {
    "cells": Cells(nodes=1, width=2, reductions=1, operations=("none", "conv_1x1")),
    "stages": Stages(size=SIZE, widths=((4, 8),)),
    "stages with one position": Stages(size=2, widths=((4, 8),)),
    "mobile": Mobile(widths=((4, 8, 12),), strides=(2,)),
}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> Space:
    return TINY[request.param]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_every_gene_of_an_architecture_is_named_with_its_value(space: Space, rng: np.random.Generator) -> None:
    architecture = space.sample(rng)
    texts = [space.gene_text(gene, architecture) for gene in range(len(architecture))]
    for gene, count in enumerate(space.counts):
        others = {space.gene_text(gene, (*architecture[:gene], v, *architecture[gene + 1 :])) for v in range(count)}
        assert len(others) == count
        assert {text.split(":")[0] for text in others} == {texts[gene].split(":")[0]}


def is_valid(space: Space, architecture: tuple[int, ...]) -> bool:
    try:
        space.check(architecture)
    except MetanasError:
        return False
    return True


@cache
def every(space: Space) -> list[tuple[int, ...]]:
    """All architectures, by trying every tuple of small integers."""
    return [genes for genes in product(range(4), repeat=len(space.default)) if is_valid(space, genes)]


def features(space: Space, architecture: tuple[int, ...], images: torch.Tensor, reference: int) -> torch.Tensor:
    network = space.build(architecture)
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    slices = space.slices(architecture)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(shared[name][slices[name]])
        return network(images, reference)


def test_size_is_the_number_of_valid_tuples(tiny: Space) -> None:
    assert len(every(tiny)) == tiny.size() > 100


def test_every_architecture_has_the_same_probability(tiny: Space, rng: np.random.Generator) -> None:
    drawn = Counter(tiny.sample(rng) for _ in range(40 * tiny.size()))
    counts = [drawn[architecture] for architecture in every(tiny)]
    assert sum(counts) == 40 * tiny.size()
    assert chisquare(counts).pvalue > 1e-3


def test_samples_are_valid_and_hashable_plain_integers(space: Space, rng: np.random.Generator) -> None:
    samples = {space.sample(rng) for _ in range(50)}
    assert len(samples) > 45
    for sample in samples:
        space.check(sample)
        assert all(type(gene) is int for gene in sample)


def test_the_default_is_valid(space: Space) -> None:
    space.check(space.default)


def test_mutation_reaches_exactly_the_neighbours(tiny: Space, rng: np.random.Generator) -> None:
    parent = tiny.sample(rng)
    children = {tiny.mutate(parent, rng) for _ in range(2000)}
    distance = {child: sum(a != b for a, b in zip(child, parent, strict=True)) for child in every(tiny)}
    assert children == {child for child, changed in distance.items() if changed == 1}


def test_mutation_changes_one_gene(space: Space, rng: np.random.Generator) -> None:
    parent = space.sample(rng)
    for _ in range(100):
        child = space.mutate(parent, rng)
        space.check(child)
        assert sum(a != b for a, b in zip(child, parent, strict=True)) == 1
        parent = child


def test_crossover_takes_every_gene_from_a_parent(space: Space, rng: np.random.Generator) -> None:
    a, b = space.sample(rng), space.sample(rng)
    children = {space.crossover(a, b, rng) for _ in range(100)}
    assert len(children) > 10
    for child in children:
        space.check(child)
        assert all(gene in pair for gene, *pair in zip(child, a, b, strict=True))
    assert space.crossover(a, a, rng) == a


def test_canonical_is_idempotent_and_the_same_network(space: Space, rng: np.random.Generator) -> None:
    for _ in range(3):
        architecture = space.sample(rng)
        representative = space.canonical(architecture)
        space.check(representative)
        assert space.canonical(representative) == representative
        assert cost(space, representative, SIZE) == cost(space, architecture, SIZE)
        shapes, others = (
            Counter(weight.shape for weight in space.build(a).parameters()) for a in (architecture, representative)
        )
        assert shapes == others


def test_canonical_is_the_same_for_what_computes_the_same_and_for_nothing_else(tiny: Space) -> None:
    """By outputs with common random weights, and by their shapes: on a small map the rim of a kernel sees nothing."""
    generator = torch.Generator().manual_seed(0)
    size = 2 if tiny is TINY["stages with one position"] else 8
    images = torch.rand(2, tiny.channels, size, size, generator=generator)
    shared = {
        name: torch.randn(weight.shape, generator=generator) for name, weight in tiny.initial_weights(generator).items()
    }
    alike, merged = defaultdict(set), defaultdict(set)
    for architecture in every(tiny):
        network = tiny.build(architecture)
        weights = {name: shared[name][index] for name, index in tiny.slices(architecture).items()}
        with torch.no_grad():
            outputs = torch.func.functional_call(network, weights, (images, 2))
        shapes = sorted((name, weight.shape) for name, weight in weights.items())
        alike[tuple(outputs.flatten().tolist()), *shapes].add(architecture)
        merged[tiny.canonical(architecture)].add(architecture)
    assert sorted(map(sorted, merged.values())) == sorted(map(sorted, alike.values()))


def test_encoding_has_one_length_and_tells_networks_apart(tiny: Space) -> None:
    representatives = {tiny.canonical(architecture) for architecture in every(tiny)}
    codes = {tuple(tiny.encode(representative)) for representative in representatives}
    assert len(codes) == len(representatives)
    assert len({len(code) for code in codes}) == 1


def test_built_parameters_have_the_names_and_shapes_of_the_slices(space: Space, rng: np.random.Generator) -> None:
    shared = space.initial_weights(torch.Generator().manual_seed(0))
    for architecture in (space.default, *(space.sample(rng) for _ in range(5))):
        slices = space.slices(architecture)
        built = {name: weight.shape for name, weight in space.build(architecture).named_parameters()}
        assert built == {name: shared[name][index].shape for name, index in slices.items()}


def test_every_built_parameter_is_used(space: Space, rng: np.random.Generator) -> None:
    network = space.build(space.sample(rng))
    images = torch.rand(4, space.channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(network(images, 4).square().sum(), list(network.parameters()))
    assert len(gradients) > 5


def test_initial_weights_follow_the_generator(space: Space) -> None:
    first, second, third = (space.initial_weights(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    assert all(weight.isfinite().all() for weight in first.values())


def test_features_of_a_query_do_not_depend_on_the_others(space: Space, rng: np.random.Generator) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(9, space.channels, SIZE, SIZE, generator=generator)
    changed = images.clone()
    changed[6:] = torch.rand(3, space.channels, SIZE, SIZE, generator=generator) * 5
    for architecture in (space.default, space.sample(rng)):
        before, after = (features(space, architecture, x, reference=4) for x in (images, changed))
        assert before.dim() == 2
        torch.testing.assert_close(after[:6], before[:6], rtol=0, atol=1e-6)
        assert not torch.allclose(after[6:], before[6:])
        # Another number of images may take another algorithm of convolution, which rounds otherwise.
        torch.testing.assert_close(features(space, architecture, images[:5], 4), before[:5], rtol=0, atol=1e-4)


def test_pictures_and_descriptions(space: Space, rng: np.random.Generator) -> None:
    for architecture in (space.default, space.sample(rng)):
        description = space.describe(architecture)
        assert description
        assert "\n" not in description
        picture = ElementTree.fromstring(space.draw(architecture))
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
        assert picture.get("viewBox")
        assert len(list(picture.iter("{http://www.w3.org/2000/svg}text"))) > 3


def test_bad_genes_are_named(space: Space) -> None:
    for position in (0, len(space.default) - 1):
        for value in (-1, 99):
            genes = list(space.default)
            genes[position] = value
            with pytest.raises(MetanasError, match=rf"(?i)gene {position} \(.*{value}"):
                space.check(tuple(genes))
    with pytest.raises(MetanasError, match=f"{len(space.default)} genes"):
        space.check(space.default[:-1])
