"""Adapting to a new task: folds, the choice of an architecture against brute force, fine-tuning."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from metanas.learning import transfer
from metanas.learning.inner import HEAD, discriminant_head
from metanas.learning.learner import Inner, Learner
from metanas.learning.problems import SCALE
from metanas.learning.samples import Samples
from metanas.learning.supernet import SuperNet
from metanas.learning.transfer import (
    COPIES,
    Adaptation,
    _leave_one_out,
    answers,
    choose,
    fine_tune,
    folds,
    from_scratch,
    mixture,
    over_turns,
)
from metanas.seeding import torch_stream
from metanas.spaces.stages import Stages
from tasks.augment import AUGMENTATIONS
from tests.reference import nearest_prototype, small_episode

SPACE = Stages(size=8, widths=((4, 8), (4, 8)))


@pytest.fixture
def learner() -> Learner:
    generator = torch.Generator().manual_seed(1)
    shared = {
        name: w + 0.3 * torch.randn(w.shape, generator=generator)
        for name, w in SPACE.initial_weights(generator).items()
    }
    inner = Inner(steps=0, learned_rates=False)
    return Learner(SuperNet(SPACE, shared), Learner.initial_meta(shared, inner), inner)


def noisy_support(shots: int, ways: int = 4, seed: int = 0) -> Samples:
    """Classes that overlap, so that leaving one out goes wrong now and then."""
    episode = small_episode(seed, ways=ways, shots=shots)
    noise = torch.rand(episode.support_inputs.shape, generator=torch.Generator().manual_seed(seed + 1))
    return Samples((episode.support_inputs + 3 * noise) / 4, episode.support_labels, ways)


@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=6), asked=st.integers(2, 8), seed=st.integers(0, 1000))
def test_folds_are_stratified(counts: list[int], asked: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    parts = folds(labels, asked, rng)
    if min(counts) == 1:
        assert parts == []
        return
    assert len(parts) == min(asked, min(counts))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label, count in enumerate(counts):
        sizes = [int((labels[part] == label).sum()) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) < count  # a class never lies in one fold alone


@given(
    groups=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=2, max_size=4),
    asked=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_no_group_lies_in_two_folds(groups: list[list[int]], asked: int, seed: int) -> None:
    """Of classes that have groups of so many samples."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(groups)), [sum(sizes) for sizes in groups])
    names = np.repeat(np.arange(sum(map(len, groups))), [size for sizes in groups for size in sizes])
    order = rng.permutation(len(labels))
    labels, names = labels[order], names[order]
    parts = folds(labels, asked, rng, names)
    assert bool(parts) <= (min(map(len, groups)) > 1)
    assert len(parts) <= min(asked, min(map(len, groups)))
    if parts:
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        kept = np.setdiff1d(np.arange(len(labels)), part)
        assert not set(names[part]) & set(names[kept])
        assert set(labels[kept]) == set(labels)


def test_folds_by_group_are_as_many_as_asked_where_groups_allow() -> None:
    labels, names = np.repeat(np.arange(3), 10), np.tile(np.repeat(np.arange(5), 2), 3)
    parts = folds(labels, 5, np.random.default_rng(0), names)
    assert sorted(len(part) for part in parts) == [6] * 5


def brute_force(
    learner: Learner, architecture: tuple[int, ...], support: Samples, groups: np.ndarray | None = None
) -> np.ndarray:
    """Leave one out, with the others of its class and group, by leaving them out.

    The statistics of normalisation stay those of the whole support set.
    """
    network = learner.supernet.extract(architecture)
    with torch.no_grad():
        features = network(support.inputs, len(support.inputs))
    right = []
    for row, label in enumerate(support.labels):
        mates = np.arange(len(features)) == row if groups is None else groups == groups[row]
        kept = ~(torch.from_numpy(mates) & (support.labels == label))
        distances = nearest_prototype(features[kept], support.labels[kept], support.ways, features[row][None])
        right.append(int(distances.argmin(1)) == int(label))
    return np.array(right)


def brute_force_choice(answers: dict[tuple[int, ...], np.ndarray]) -> tuple[int, ...]:
    """From which samples each architecture answers rightly, the first one in question first."""
    (chosen, first), *others = answers.items()
    best = 0
    for architecture, right in others:
        gained, lost = int((right & ~first).sum()), int((first & ~right).sum())
        of = gained + lost
        if sum(math.comb(of, k) for k in range(gained, of + 1)) / 2**of < 0.05:
            chosen, best = (architecture, right.sum()) if right.sum() > best else (chosen, best)
    return chosen


def test_another_architecture_is_chosen_where_it_answers_significantly_more(learner: Learner) -> None:
    rng, support = np.random.default_rng(0), noisy_support(20)
    architectures = [SPACE.default, *(SPACE.sample(rng) for _ in range(7))]
    answers = {architecture: brute_force(learner, architecture, support) for architecture in architectures}
    chosen = set()
    for first in architectures:
        order = [first, *(a for a in architectures if a != first)]
        expected = brute_force_choice({architecture: answers[architecture] for architecture in order})
        assert choose(learner, order, support) == expected
        chosen.add(expected == first)
    assert choose(learner, [SPACE.default] * 2, support) == SPACE.default
    assert chosen == {True, False}


def test_leaving_one_out_has_a_closed_form_for_classes_of_unequal_size(learner: Learner) -> None:
    whole = noisy_support(5)
    support = whole.take(np.array([0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16]))
    assert torch.bincount(support.labels).tolist() == [2, 5, 3, 2]
    own = F.one_hot(support.labels).float()
    rng = np.random.default_rng(0)
    for architecture in [SPACE.default, *(SPACE.sample(rng) for _ in range(7))]:
        right = _leave_one_out(learner, architecture, support, own, own @ own.T - torch.eye(len(own)))
        assert right.tolist() == brute_force(learner, architecture, support).tolist()


def test_no_sample_is_answered_by_its_own_group(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    support, names = noisy_support(20), np.tile(np.repeat([f"board {i}" for i in range(4)], 5), 4)
    answered: list[Tensor] = []

    def seen(*given: Any) -> Tensor:
        answered.append(_leave_one_out(*given))
        return answered[-1]

    monkeypatch.setattr(transfer, "_leave_one_out", seen)
    rng = np.random.default_rng(0)
    architectures = [SPACE.default, *(SPACE.sample(rng) for _ in range(3))]
    choose(learner, architectures, support, names)
    apart = [brute_force(learner, architecture, support, names) for architecture in architectures]
    assert [right.tolist() for right in answered] == [right.tolist() for right in apart]
    assert any((a != brute_force(learner, b, support)).any() for a, b in zip(apart, architectures, strict=True))
    names[:20] = "one board"
    assert choose(learner, architectures[::-1], support, names) == architectures[-1], "a class of one group"


def test_with_a_single_sample_nothing_can_be_left_out(learner: Learner) -> None:
    support = noisy_support(5).take(np.array([0, 1, 5, 6, 10, 11, 15]))
    architectures = [SPACE.sample(np.random.default_rng(seed)) for seed in range(3)]
    assert choose(learner, architectures, support) == architectures[0]


def support_loss(learner: Learner, weights: dict[str, Tensor], support: Samples) -> float:
    with torch.no_grad():
        logits = learner.support_logits(SPACE.default, weights, support.inputs)
    return float(F.cross_entropy(logits, support.labels))


def test_fine_tuning_lowers_the_loss_of_the_support_set(learner: Learner) -> None:
    support, generator = noisy_support(4), torch.Generator()
    before, after = (
        fine_tune(learner, SPACE.default, support, Adaptation(steps=steps, body_rate=3e-3), generator)
        for steps in (0, 30)
    )
    assert support_loss(learner, after, support) < 0.8 * support_loss(learner, before, support)


def test_without_steps_it_is_the_nearest_prototype(learner: Learner) -> None:
    support = noisy_support(3)
    tuned = fine_tune(learner, SPACE.default, support, Adaptation(steps=0), torch.Generator())
    plain = learner.adapt(SPACE.default, support.inputs, support.labels, support.ways, steps=0)
    assert tuned.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(tuned[name], plain[name])


def test_the_inner_loop_comes_first(learner: Learner) -> None:
    """Alone it is the inner loop of meta-training with its rates; Adam goes on from there."""
    support, inner = noisy_support(3), Inner(steps=2, body_rate=0.2, head_rate=0.4, method="maml")
    meta = Learner.initial_meta(learner.supernet.shared, inner)
    meta = {name: rate * 0.5 if name != SCALE else rate for name, rate in meta.items()}  # as if learned
    taught = Learner(learner.supernet, meta, inner)
    tuned = fine_tune(taught, SPACE.default, support, Adaptation(steps=0), torch.Generator())
    expected = taught.adapt(SPACE.default, support.inputs, support.labels, support.ways, steps=2)
    plain = fine_tune(learner, SPACE.default, support, Adaptation(steps=0), torch.Generator())
    for name in expected:
        torch.testing.assert_close(tuned[name], expected[name])
        assert not torch.equal(tuned[name], plain[name])
    still = Adaptation(steps=1, body_rate=0.0, head_rate=0.0)
    after = fine_tune(taught, SPACE.default, support, still, torch.Generator())
    for name in expected.keys() - set(HEAD):
        torch.testing.assert_close(after[name], expected[name])


def test_rates_of_zero_leave_the_body_alone(learner: Learner) -> None:
    support = noisy_support(3)
    kept = fine_tune(
        learner, SPACE.default, support, Adaptation(steps=3, body_rate=0.0, head_rate=0.1), torch.Generator()
    )
    moved = fine_tune(learner, SPACE.default, support, Adaptation(steps=3, body_rate=0.1), torch.Generator())
    shared = learner.supernet.weights(SPACE.default)
    assert all(torch.equal(kept[name], shared[name]) for name in shared)
    assert not any(torch.equal(moved[name], shared[name]) for name in shared)
    assert set(kept) == {*shared, *HEAD}
    assert not any(weight.requires_grad for weight in moved.values())


def test_the_head_is_the_discriminant_of_the_support_set_and_its_copies(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is answered as with the features of the extracted network, normalised by the support set alone."""
    support, copies = noisy_support(3), list[Tensor]()

    def darker(images: Tensor, generator: torch.Generator) -> Tensor:
        copies.append(images * torch.rand((), generator=generator))
        return copies[-1]

    monkeypatch.setitem(AUGMENTATIONS, "darker", darker)
    still = Adaptation(steps=1, body_rate=0.0, head_rate=0.0, augment="darker")
    tuned = fine_tune(learner, SPACE.default, support, still, torch_stream(0, "x"))
    inputs = torch.cat([support.inputs, *copies[1:]])
    with torch.no_grad():
        features = learner.supernet.extract(SPACE.default)(inputs, len(support.inputs))
    own, *others = features.split(len(support.inputs))
    expected = discriminant_head(own, torch.stack(others), support.labels, support.ways, learner.meta[SCALE].exp())
    assert len(others) == COPIES
    for name in HEAD:
        torch.testing.assert_close(tuned[name], expected[name])


def test_every_step_sees_another_augmented_copy(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    support, seen = noisy_support(3), []

    def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(images + torch.rand((), generator=generator))
        return seen[-1]

    monkeypatch.setitem(AUGMENTATIONS, "shifted", shifted)
    how = Adaptation(steps=3, augment="shifted")
    first, second = (fine_tune(learner, SPACE.default, support, how, torch_stream(0, "x")) for _ in range(2))
    assert len(seen) == 2 * (3 + COPIES)
    assert not any(torch.equal(seen[0], other) for other in seen[1 : 3 + COPIES])
    assert torch.equal(seen[0], seen[3 + COPIES])
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = fine_tune(learner, SPACE.default, support, Adaptation(steps=3), torch_stream(0, "x"))
    assert any(not torch.equal(first[name], plain[name]) for name in first)


def test_the_supernet_stays_as_it_was(learner: Learner) -> None:
    before = {name: w.clone() for name, w in learner.supernet.shared.items()}
    fine_tune(learner, SPACE.default, noisy_support(3), Adaptation(steps=3), torch.Generator())
    assert all(torch.equal(learner.supernet.shared[name], w) for name, w in before.items())


class TestTurns:
    def test_an_answer_is_the_mean_of_eight_views(self, learner: Learner) -> None:
        support, queries = noisy_support(3), noisy_support(2).inputs
        weights = fine_tune(learner, SPACE.default, support, Adaptation(steps=0), torch.Generator())
        plain = [
            learner.logits(SPACE.default, weights, support.inputs, view)
            for mirrored in (queries, queries.transpose(2, 3))
            for view in (mirrored, mirrored.flip(2), mirrored.flip(3), mirrored.flip(2).flip(3))
        ]
        found = answers(learner, SPACE.default, weights, support.inputs, queries, Adaptation(turns=True))
        torch.testing.assert_close(found, torch.stack(plain).mean(0))
        once = answers(learner, SPACE.default, weights, support.inputs, queries, Adaptation())
        assert torch.equal(once, plain[0])
        assert not torch.allclose(found, once)

    def test_turning_an_image_changes_no_answer(self) -> None:
        images = torch.rand(3, 1, 5, 5, generator=torch_stream(0, "images"))
        weights = torch.rand(25, 2, generator=torch_stream(0, "weights"))
        first, *others = (
            over_turns(lambda views: views.flatten(1) @ weights, view, True)
            for view in (images, images.rot90(1, (2, 3)), images.flip(3), images.flip(2).rot90(3, (2, 3)))
        )
        for other in others:
            torch.testing.assert_close(other, first)


class TestFromScratch:
    def test_weights_are_the_streams_and_not_the_learned_ones(self, learner: Learner) -> None:
        one, other, again = (from_scratch(learner, Adaptation(), torch_stream(0, name))[0] for name in "aba")
        for name, weight in again.supernet.shared.items():
            assert torch.equal(one.supernet.shared[name], weight)
        for drawn in (one, other):
            names = [name for name, w in drawn.supernet.shared.items() if name.endswith("weight") and w.ndim == 4]
            assert names
            assert not any(torch.equal(drawn.supernet.shared[n], learner.supernet.shared[n]) for n in names)
        assert not any(torch.equal(one.supernet.shared[n], other.supernet.shared[n]) for n in names)

    @pytest.mark.parametrize(("asked", "inner", "made"), [(3, 0, 20), (30, 0, 30), (30, 2, 32)])
    def test_it_makes_as_many_steps_as_the_learned_one_and_twenty_at_least(
        self, learner: Learner, asked: int, inner: int, made: int
    ) -> None:
        steps = Inner(steps=inner)
        taught = Learner(learner.supernet, Learner.initial_meta(learner.supernet.shared, steps), steps)
        fresh, how = from_scratch(taught, Adaptation(steps=asked, turns=True), torch_stream(0, "x"))
        assert (how.steps, how.turns, fresh.inner.steps) == (made, True, 0)

    def test_a_mixture_is_the_mean_of_probabilities(self) -> None:
        """Not of logits: the one that is sure outvotes the one that is not."""
        sure, torn = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.5]])
        expected = (torch.softmax(sure, 1) + torch.softmax(torn, 1)) / 2
        torch.testing.assert_close(mixture([sure, torn]), expected)
        torch.testing.assert_close(mixture([torn]), torch.softmax(torn, 1))
