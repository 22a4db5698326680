"""Meta-training: Adam as PyTorch has it, on the entries in use and on no others, and its state."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.learning.executor import InProcess
from metanas.learning.learner import SCALE, Inner, Learner
from metanas.learning.supernet import SuperNet
from metanas.learning.trainer import MetaTrainer
from metanas.learning.worker import Worker
from metanas.spaces.stages import Stages
from tests.reference import SmallEpisode, Weights, nearest_prototype, small_episode

SPACE = Stages(size=8, widths=((4, 8), (4, 8)))
SMALL: Architecture = (0, 0, 0, 0, 0, 0) * 2 + (0,)
LARGE: Architecture = (1, 1, 2, 1, 0, 1) * 2 + (0,)
PROTOTYPES = Inner(steps=0, learned_rates=False)


class Episodes:
    seed = 0

    def episode(self, index: int) -> SmallEpisode:
        return small_episode(index, dtype=torch.float64)


def make_learner(inner: Inner = PROTOTYPES) -> Learner:
    generator = torch.Generator().manual_seed(3)
    shared = {
        name: w.double() + 0.1 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in SPACE.initial_weights(generator).items()
    }
    meta = {name: w.double() for name, w in Learner.initial_meta(shared, inner).items()}
    return Learner(SuperNet(SPACE, shared), meta, inner)


@dataclass(frozen=True)
class Trained:
    """A trainer, and the learner that its worker holds."""

    trainer: MetaTrainer
    learner: Learner

    def step(self, architectures: Sequence[Architecture], first_episode: int, rate: float) -> tuple[float, float]:
        (score,) = self.trainer.train([architectures], first_episode, rate)
        return score


def make_trainer(inner: Inner = PROTOTYPES) -> Trained:
    learner = make_learner(inner)
    executor = InProcess(lambda: Worker({"net": learner}, {"train": Episodes()}))
    return Trained(MetaTrainer("net", executor), learner)


def copy(trainer: Trained) -> Weights:
    return {n: w.detach().clone() for n, w in (trainer.learner.supernet.shared | trainer.learner.meta).items()}


@pytest.mark.parametrize("architecture", [SMALL, LARGE], ids=["small", "large"])
def test_one_architecture_trains_as_a_plain_module_under_adam(architecture: Architecture) -> None:
    """Every step: the mean loss of two prototype episodes, both ways, written out, and torch.optim.Adam."""
    trainer = make_trainer()
    start = {n: w.clone() for n, w in trainer.learner.supernet.weights(architecture).items()}
    network = trainer.learner.supernet.extract(architecture).double()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(start[name])
    scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([*network.parameters(), scale], lr=0.0)
    for step, rate in enumerate((0.01, 0.01, 0.003, 0.003, 0.003)):
        losses = []
        for index in (2 * step, 2 * step + 1):
            episode = small_episode(index, dtype=torch.float64)
            features = network(torch.cat([episode.support_inputs, episode.query_inputs]), 6)
            support, queries = (features[:6], episode.support_labels), (features[6:], episode.query_labels)
            for (known, known_labels), (asked, labels) in ((support, queries), (queries, support)):
                distances = nearest_prototype(known, known_labels, 3, asked)
                logits = -scale.exp() / features.shape[1] ** 0.5 * distances
                losses.append(F.cross_entropy(logits, labels))
        loss = torch.stack(losses).mean()
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = rate
        adam.step()
        found, _ = trainer.step([architecture] * 2, 2 * step, rate)
        assert found == pytest.approx(loss.item(), rel=1e-8)
    moved = trainer.learner.supernet.weights(architecture)
    for name, weight in network.named_parameters():
        assert not torch.equal(weight, start[name])
        torch.testing.assert_close(moved[name], weight.detach(), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(trainer.learner.meta[SCALE], scale.detach(), rtol=1e-7, atol=1e-8)
    assert trainer.trainer.version == 5


def entries(architectures: Sequence[Architecture]) -> dict[str, torch.Tensor]:
    used = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in make_learner().supernet.shared.items()}
    for architecture in architectures:
        for name, index in SPACE.slices(architecture).items():
            used[name][index] = True
    return used


def test_a_step_moves_the_entries_in_use_and_no_others() -> None:
    """Adam's momentum of earlier steps must not carry on with what a later step does not use."""
    trainer = make_trainer()
    for step in range(3):
        trainer.step([LARGE, SMALL], 2 * step, 0.01)
    before = copy(trainer)
    trainer.step([SMALL, SMALL], 6, 0.01)
    after = copy(trainer)
    used = entries([SMALL])
    assert any((~mask).any() for mask in used.values())
    for name, mask in used.items():
        assert torch.equal(after[name][~mask], before[name][~mask]), name
    moved = sum(int((after[n] != before[n])[mask].sum()) for n, mask in used.items())
    assert moved > 0.9 * sum(int(mask.sum()) for mask in used.values())


def test_gradients_of_tasks_are_averaged_also_where_slices_overlap() -> None:
    """After the first step Adam's running mean is a tenth of the gradient."""
    trainer = make_trainer()
    singles = []
    for index, architecture in enumerate((SMALL, LARGE)):
        found, _ = trainer.learner.gradient(architecture, small_episode(index, dtype=torch.float64))
        whole = {n: torch.zeros_like(w) for n, w in trainer.learner.supernet.shared.items()}
        for name, gradient in found.weights.items():
            whole[name][SPACE.slices(architecture)[name]] = gradient
        singles.append(whole)
    trainer.step([SMALL, LARGE], 0, 0.01)
    state = trainer.trainer.state()
    for name in trainer.learner.supernet.shared:
        mean = torch.from_numpy(state["adam.first.net." + name]) / 0.1
        torch.testing.assert_close(mean, (singles[0][name] + singles[1][name]) / 2, rtol=1e-9, atol=1e-15)


def test_what_a_step_does_not_use_keeps_its_moments() -> None:
    trainer = make_trainer()
    trainer.step([LARGE, SMALL], 0, 0.01)
    before = trainer.trainer.state()
    trainer.step([SMALL, SMALL], 2, 0.01)
    after = trainer.trainer.state()
    for name, mask in entries([SMALL]).items():
        for kind in ("adam.first.net.", "adam.second.net."):
            assert np.array_equal(after[kind + name][~mask.numpy()], before[kind + name][~mask.numpy()])
    name = "stages.0.first.conv.weight"
    assert not np.array_equal(after["adam.first.net." + name], before["adam.first.net." + name])


@pytest.mark.parametrize("method", ["maml", "fomaml", "anil", "reptile", "difference"])
def test_learned_rates_train_with_the_weights(method: str) -> None:
    inner = Inner(steps=2, body_rate=0.05, head_rate=0.2, method=method)  # type: ignore[arg-type]
    trainer = make_trainer(inner)
    before = copy(trainer)
    trainer.step([SMALL, SMALL], 0, 0.01)
    after = copy(trainer)
    moved = {n for n in trainer.learner.meta if not torch.equal(before[n], after[n])}
    if method == "reptile":
        assert not moved
    else:
        assert {"rate.head.weight", "rate.head.bias", SCALE} <= moved
        assert ("rate.stages.0.first.conv.weight" in moved) == (method != "anil")
        assert "rate.stages.0.blocks.0.conv.weight" not in moved  # a weight that the architecture does not have


def test_a_restored_trainer_goes_on_as_the_first_would() -> None:
    inner = Inner(steps=1)
    first, second = make_trainer(inner), make_trainer(inner)
    schedule = [(LARGE, SMALL), (SMALL, SMALL), (SMALL, LARGE), (LARGE, LARGE)]
    for step, pair in enumerate(schedule):
        if step == 2:
            saved = {name: np.array(array) for name, array in first.trainer.state().items()}
        first.step(pair, 2 * step, 0.01)
    second.trainer.restore(saved)
    assert second.trainer.version == 2
    for step, pair in enumerate(schedule[2:], start=2):
        second.step(pair, 2 * step, 0.01)
    found, expected = copy(second), copy(first)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert set(first.trainer.state()) == set(second.trainer.state())


def test_a_state_is_a_copy() -> None:
    trainer = make_trainer()
    trainer.step([SMALL, SMALL], 0, 0.01)
    state = trainer.trainer.state()
    kept = {name: array.copy() for name, array in state.items()}
    trainer.step([SMALL, SMALL], 2, 0.01)
    assert all(np.array_equal(state[name], array) for name, array in kept.items())


def test_training_learns() -> None:
    trainer = make_trainer()
    losses = [trainer.step([SMALL, LARGE], 2 * (step % 4), 0.01)[0] for step in range(40)]
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
