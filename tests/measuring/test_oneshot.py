"""Shared weights on an ordinary task: what training touches, what is taken out, what recalibration changes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.supernet_rank import recalibrate
from metanas.learning.state import weights_of
from metanas.measuring.measures import SHARED, SharedRecipe
from metanas.measuring.oneshot import OneShot, draw_paths
from metanas.measuring.standalone import accuracy
from metanas.spaces.cells import Cells
from metanas.spaces.mobile import Mobile
from metanas.spaces.space import Space
from metanas.spaces.stages import Stages
from tests.reference import SPOTS as TASK

SPACE = Cells(nodes=2, width=4, reductions=1, operations=("none", "skip_connect", "conv_1x1", "conv_3x3"))

STAGES = Stages(size=8, widths=((4, 6), (4, 6)))
"""On a last map of 2 x 2 positions: 4, 6, 16 or 24 features."""
PREFIXES = ("", "adam.first.", "adam.second.", "adam.steps.")
NAMES = ("weight.6", "weight.24", "bias.6", "bias.24")


def trained(steps: int, seed: int = 0) -> OneShot:
    shared = OneShot(SPACE, TASK, seed, batch=16, rate=0.02)
    shared.run(lambda step: step / steps, draw_paths(SPACE))
    return shared


def test_shared_weights_learn_the_task_for_the_default_and_for_other_paths() -> None:
    untrained, shared = OneShot(SPACE, TASK, 0), trained(60)
    assert accuracy(shared.classifier(SPACE.default), TASK.test) >= 0.9
    rng = np.random.default_rng(0)
    others = [SPACE.sample(rng) for _ in range(8)]

    def mean(network: OneShot) -> float:
        return float(np.mean([accuracy(network.classifier(a), TASK.test) for a in others]))

    assert mean(shared) > mean(untrained) + 0.1


def test_a_step_changes_the_weights_of_its_paths_and_the_head_alone() -> None:
    shared = OneShot(SPACE, TASK, 0, batch=16)
    before = {name: weight.clone() for name, weight in shared.learner.supernet.shared.items()}
    head = shared.learner.meta["head.weight.8"].clone()
    shared.run(lambda step: step / 3, lambda part, rng: [SPACE.default])
    now = shared.learner.supernet.shared
    changed = {name for name in before if not torch.equal(before[name], now[name])}
    assert changed == set(SPACE.slices(SPACE.default))
    assert not torch.equal(head, shared.learner.meta["head.weight.8"])


def test_one_step_of_two_paths_goes_down_their_mean_loss() -> None:
    """Adam's first step has the sign of the gradient, which autograd gives for the extracted networks as well."""
    shared = OneShot(SPACE, TASK, 0, batch=64, rate=1e-3)
    paths = [SPACE.default, SPACE.sample(np.random.default_rng(3))]
    networks = [shared.classifier(path) for path in paths]
    before = {name: weight.clone() for name, weight in shared.learner.supernet.shared.items()}
    head = shared.learner.meta["head.weight.8"].clone()
    # The batch is all of the training samples, so its order does not matter.
    loss = sum(F.cross_entropy(network(TASK.train.inputs, 64), TASK.train.labels) for network in networks) / 2
    loss.backward()
    shared.run(lambda step: float(step), lambda part, rng: paths)
    gradient = sum(network.head.weight.grad for network in networks)
    clear = gradient.abs() > 1e-4
    moved = shared.learner.meta["head.weight.8"] - head
    assert clear.any()
    assert torch.equal(moved[clear].sign(), -gradient[clear].sign())
    name = "stem.weight"
    gradient = sum(dict(network.features.named_parameters())[name].grad for network in networks)
    clear = gradient.abs() > 1e-4
    moved = shared.learner.supernet.shared[name] - before[name]
    assert torch.equal(moved[clear].sign(), -gradient[clear].sign())


def test_training_is_a_function_of_the_seed_and_goes_on() -> None:
    whole, parts, other = trained(6), OneShot(SPACE, TASK, 0, batch=16, rate=0.02), trained(6, seed=1)
    for end in (2, 6):
        parts.run(lambda step, end=end: 1.0 if step >= end else step / 6, draw_paths(SPACE))
    for name, weight in whole.learner.supernet.shared.items():
        assert torch.equal(weight, parts.learner.supernet.shared[name])
    assert not torch.equal(whole.learner.meta["head.weight.8"], other.learner.meta["head.weight.8"])


def test_the_default_goes_first_and_stays_among_the_paths() -> None:
    draw, rng = draw_paths(SPACE), np.random.default_rng(0)
    assert all(draw(0.39, rng) == [SPACE.default] for _ in range(20))
    later = [draw(0.41, rng)[0] for _ in range(600)]
    assert sum(path == SPACE.default for path in later) / 600 == pytest.approx(1 / 3, abs=0.06)
    assert len(set(later)) > 350


def test_recalibration_changes_normalisations_and_head_of_its_own_copy_and_helps() -> None:
    shared = trained(30)
    before = {name: weight.clone() for name, weight in shared.learner.supernet.shared.items()}
    rng = np.random.default_rng(1)
    gains = []
    for architecture in [SPACE.sample(rng) for _ in range(3)]:
        network = shared.classifier(architecture)
        old = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        without = float(F.cross_entropy(network(TASK.train.inputs, 64), TASK.train.labels).detach())
        for seed in range(4):  # the task is small: an epoch is a single batch
            reached = recalibrate(network, TASK, seed)
        assert reached == accuracy(network, TASK.validation)
        gains.append(without - float(F.cross_entropy(network(TASK.train.inputs, 64), TASK.train.labels).detach()))
        changed = {name for name, weight in network.named_parameters() if not torch.equal(weight, old[name])}
        assert changed == {name for name in old if "norm" in name or name.startswith("head.")}
    assert min(gains) > 0
    assert all(torch.equal(before[name], weight) for name, weight in shared.learner.supernet.shared.items())


@pytest.mark.parametrize(
    "space",
    [
        STAGES,
        Cells(nodes=2, width=4, reductions=1, operations=("none", "conv_1x1"), combine=("sum", "concat")),
        Mobile(widths=((4, 8), (4, 8)), strides=(1, 2), stem=4, features=8),
    ],
    ids=lambda space: space.name,
)
def test_on_every_space_training_goes_on_exactly_and_workers_measure_the_same(space: Space) -> None:
    def uniform(part: float, rng: np.random.Generator) -> list[tuple[int, ...]]:
        return [space.sample(rng), space.sample(rng)]

    whole, part, rest = (OneShot(space, TASK, 0, batch=16) for _ in range(3))
    whole.run(lambda step: step / 6, uniform)
    part.run(lambda step: 1.0 if step >= 3 else step / 6, uniform)
    rest.run(lambda step: 1.0 if step >= 5 else step / 6, uniform)  # whatever it has done is forgotten
    rest.restore(part.state())
    rest.run(lambda step: step / 6, uniform)
    expected, found = whole.state(), rest.state()
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    worker = SharedRecipe(space, TASK, 0)()
    worker.load(SHARED, weights_of(expected))
    rng = np.random.default_rng(0)
    for architecture in [space.sample(rng) for _ in range(6)]:
        assert worker.measures[SHARED](architecture, 1.0) == whole.measure(architecture)


def test_a_step_moves_the_head_of_its_number_of_features_alone() -> None:
    averaged = (*STAGES.default[:-1], 1)
    shared = OneShot(STAGES, TASK, 0, batch=16)
    shared.run(lambda step: step / 2, lambda part, rng: [STAGES.default])
    before = shared.state()
    untrained = shared.head(6)
    assert torch.equal(untrained["head.weight.6"], shared.learner.meta["head.weight.24"][:, :6])
    shared.run(lambda step: (step - 2) / 2, lambda part, rng: [averaged])
    after = shared.state()
    heads = {name for name in after if "head" in name}
    assert heads == {f"{of}meta.head.{name}" for of in PREFIXES for name in NAMES}
    assert all(np.array_equal(before[name], after[name]) for name in heads if name.endswith(".24"))
    assert not np.array_equal(untrained["head.weight.6"], after["meta.head.weight.6"])


def test_every_number_of_features_learns_the_task() -> None:
    genes = [(*STAGES.default[:7], width, *STAGES.default[8:-1], readout) for width in (0, 1) for readout in (0, 1)]
    shared = OneShot(STAGES, TASK, 0, batch=16, rate=0.02)
    shared.run(lambda step: step / 30, lambda part, rng: genes)
    networks = [shared.classifier(architecture) for architecture in genes]
    assert {network.head.in_features for network in networks} == {4, 6, 16, 24}
    assert min(accuracy(network, TASK.test) for network in networks) >= 0.9
