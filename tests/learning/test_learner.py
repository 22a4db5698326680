"""The learner: the meta-gradients of a whole network with its prototype head, and its predictions."""

import platform
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from metanas.api import Architecture
from metanas.config import load_config
from metanas.errors import MetanasError
from metanas.learning.inner import HEAD
from metanas.learning.learner import RATE, SCALE, Inner, Learner, native_precision
from metanas.learning.meta import Method
from metanas.learning.supernet import SuperNet
from metanas.spaces.cells import Cells
from metanas.spaces.conv4 import Conv4
from metanas.spaces.space import Family
from metanas.spaces.stages import Stages
from tests.reference import (
    SmallEpisode,
    Weights,
    adapted,
    cross_entropy,
    direction_like,
    inner_product,
    nearest_prototype,
    slope,
    small_episode,
)

STAGES = Stages(size=8, widths=((4, 6), (4, 6)))
# Average pooling, squeeze, both normalisations, a residual block; few kinks for the differences to fall into.
ARCHITECTURE: Architecture = (0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0)
INNER = Inner(steps=2, body_rate=0.1, head_rate=0.4, method="maml")


def make_learner(inner: Inner = INNER, family: Family = STAGES, dtype: torch.dtype = torch.float64) -> Learner:
    """Weights away from their special starting values, so that nothing is tested at zero."""
    generator = torch.Generator().manual_seed(3)
    shared = {
        name: (w + 0.2 * torch.randn(w.shape, generator=generator)).to(dtype)
        for name, w in family.initial_weights(generator).items()
    }
    meta = {
        name: (w + 0.05 * torch.rand(w.shape, generator=generator)).to(dtype)
        for name, w in Learner.initial_meta(shared, inner).items()
    }
    return Learner(SuperNet(family, shared), meta, inner)


def at(learner: Learner, weights: Weights) -> Learner:
    """The same learner with other numbers: "net." and "meta." names, those of the architecture's slices."""
    shared = {name: w.clone() for name, w in learner.supernet.shared.items()}
    slices = STAGES.slices(ARCHITECTURE)
    for name, weight in weights.items():
        if name.startswith("net."):
            shared[name[4:]][slices[name[4:]]] = weight
    meta = {name: weights.get("meta." + name, value) for name, value in learner.meta.items()}
    return Learner(SuperNet(STAGES, shared), meta, learner.inner)


def numbers(learner: Learner) -> Weights:
    used = learner.supernet.weights(ARCHITECTURE)
    meta = {n: w for n, w in learner.meta.items() if n.removeprefix(RATE) in {*used, *HEAD, SCALE}}
    return {"net." + n: w for n, w in used.items()} | {"meta." + n: w for n, w in meta.items()}


@pytest.fixture
def episode() -> SmallEpisode:
    return small_episode(1, dtype=torch.float64)


@pytest.mark.parametrize(("method", "tolerance"), [("maml", 1e-5), ("difference", 1e-4), ("anil", 1e-5)])
def test_the_meta_gradient_is_the_slope_of_the_loss_after_adaptation(
    episode: SmallEpisode, method: Method, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the query loss that `evaluate` measures, by the body, by the head's scale and by the learned rates."""
    # In float64 the step can be so short that it jumps over no kink of this network of a dozen channels.
    monkeypatch.setattr("metanas.learning.learner.DIFFERENCE", 1e-5)
    learner = make_learner(replace(INNER, method=method))
    found, _ = learner.gradient(ARCHITECTURE, episode)
    gradient = {"net." + n: g for n, g in found.weights.items()} | {"meta." + n: g for n, g in found.parameters.items()}
    start = numbers(learner)
    assert gradient.keys() == start.keys()
    for kind in ("net.", "meta.scale", "meta.rate."):
        part = {name: w for name, w in start.items() if name.startswith(kind)}
        for seed in range(3):
            direction = direction_like(part, seed)
            expected = slope(
                lambda w: at(learner, w).evaluate(ARCHITECTURE, episode, INNER.steps)[1], start, direction, step=1e-6
            )
            assert abs(expected) > 1e-6
            assert inner_product(gradient, direction) == pytest.approx(expected, rel=tolerance, abs=tolerance * 0.01)


@pytest.mark.parametrize("method", get_args(Method))
def test_training_sees_the_loss_and_accuracy_that_evaluation_measures(episode: SmallEpisode, method: Method) -> None:
    learner = make_learner(replace(INNER, method=method))
    found, accuracy = learner.gradient(ARCHITECTURE, episode)
    measured = learner.evaluate(ARCHITECTURE, episode, INNER.steps)
    assert (accuracy, found.loss) == pytest.approx(measured, rel=1e-9)


@pytest.mark.parametrize("method", ["maml", "fomaml"])
def test_first_order_is_the_gradient_at_the_adapted_weights_through_the_prototypes(
    episode: SmallEpisode, method: Method
) -> None:
    """The head starts from the body's prototypes, so the body's gradient has a part through the head."""
    inner = replace(INNER, method=method, learned_rates=False, head_rate=INNER.body_rate)
    learner = make_learner(inner)
    weights = {n: w.clone().requires_grad_() for n, w in learner.supernet.weights(ARCHITECTURE).items()}

    def head_of(body: Weights) -> Weights:
        features = learner.features(ARCHITECTURE, body, episode.support_inputs, 6)
        prototypes = torch.stack([features[episode.support_labels == k].mean(0) for k in range(3)])
        sharpness = learner.meta[SCALE].exp() / features.shape[1] ** 0.5
        return {"head.weight": 2 * sharpness * prototypes, "head.bias": -sharpness * (prototypes**2).sum(1)}

    def loss(w: Weights, inputs: Tensor, labels: Tensor) -> Tensor:
        features = learner.features(ARCHITECTURE, w, torch.cat([episode.support_inputs, inputs]), 6)[6:]
        return F.cross_entropy(features @ w["head.weight"].T + w["head.bias"], labels)

    start = {**weights, **head_of(weights)}
    last = adapted(
        lambda w: F.cross_entropy(
            learner.support_logits(ARCHITECTURE, w, episode.support_inputs), episode.support_labels
        ),
        start,
        tuple(start),
        inner.body_rate,
        inner.steps,
    )
    leaves = {name: w.requires_grad_() for name, w in last.items()}
    outer = torch.autograd.grad(loss(leaves, episode.query_inputs, episode.query_labels), list(leaves.values()))
    at_last = dict(zip(leaves, outer, strict=True))
    through_head = torch.autograd.grad(
        [start[n] for n in HEAD], list(weights.values()), [at_last[n] for n in HEAD], allow_unused=True
    )
    expected = {n: at_last[n] + (0 if g is None else g) for n, g in zip(weights, through_head, strict=True)}
    found = learner.gradient(ARCHITECTURE, episode)[0].weights
    equal = all(torch.allclose(found[n], expected[n], rtol=1e-9, atol=1e-12) for n in weights)
    assert equal == (method == "fomaml")


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("family", [STAGES, Cells(nodes=1, width=4, reductions=1), Conv4(1)], ids=lambda f: f.name)
def test_a_prediction_does_not_depend_on_the_other_queries(family: Family, steps: int) -> None:
    learner = make_learner(replace(INNER, steps=max(1, steps)), family)
    episode = small_episode(2, size=16, dtype=torch.float64)
    support = episode.support_inputs
    weights = learner.adapt(family.default, support, episode.support_labels, episode.ways, steps)
    logits = learner.logits(family.default, weights, support, episode.query_inputs)
    assert logits.std() > 0
    others = torch.cat([episode.query_inputs[:4], 5 * torch.rand_like(episode.query_inputs[4:])])
    changed = learner.logits(family.default, weights, support, others)
    torch.testing.assert_close(changed[:4], logits[:4], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(changed[4:], logits[4:])
    alone = torch.cat([learner.logits(family.default, weights, support, q[None]) for q in episode.query_inputs])
    torch.testing.assert_close(alone, logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ways", [2, 5, 17, 30])
def test_one_network_answers_any_number_of_classes(ways: int) -> None:
    learner = make_learner()
    episode = small_episode(3, ways=ways, dtype=torch.float64)
    accuracy, loss = learner.evaluate(ARCHITECTURE, episode, steps=1)
    found, _ = learner.gradient(ARCHITECTURE, episode)
    assert 1 / ways < accuracy <= 1
    assert np.isfinite(loss)
    assert all(g.isfinite().all() for g in found.weights.values())


def test_without_steps_it_answers_with_the_nearest_prototype(episode: SmallEpisode) -> None:
    learner = make_learner()
    support, labels = episode.support_inputs, episode.support_labels
    weights = learner.adapt(ARCHITECTURE, support, labels, episode.ways, steps=0)
    body = learner.supernet.extract(ARCHITECTURE).double()
    with torch.no_grad():
        for name, weight in body.named_parameters():
            weight.copy_(learner.supernet.weights(ARCHITECTURE)[name])
        features = body(torch.cat([support, episode.query_inputs]), len(support))
    distances = nearest_prototype(features[: len(support)], labels, episode.ways, features[len(support) :])
    logits = learner.logits(ARCHITECTURE, weights, support, episode.query_inputs)
    assert torch.equal(logits.argmax(1), distances.argmin(1))
    sharpness = float(learner.meta[SCALE].exp()) / features.shape[1] ** 0.5
    assert cross_entropy(logits, episode.query_labels) == pytest.approx(
        cross_entropy(-sharpness * distances, episode.query_labels), rel=1e-10
    )


def test_without_steps_an_evaluation_looks_at_every_image_once(
    episode: SmallEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner()
    weights = learner.adapt(ARCHITECTURE, episode.support_inputs, episode.support_labels, episode.ways, steps=0)
    logits = learner.logits(ARCHITECTURE, weights, episode.support_inputs, episode.query_inputs)
    seen: list[int] = []
    whole = learner.supernet.features
    monkeypatch.setattr(learner.supernet, "features", lambda a, w, x, n: (seen.append(len(x)), whole(a, w, x, n))[1])
    right, loss = learner.evaluate(ARCHITECTURE, episode, 0)
    assert seen == [len(episode.support_labels) + len(episode.query_labels)]
    assert loss == pytest.approx(cross_entropy(logits, episode.query_labels), rel=1e-10)
    assert right == float((logits.argmax(1) == episode.query_labels).float().mean())


def test_without_an_inner_loop_training_asks_the_reverse_question_too(episode: SmallEpisode) -> None:
    # No statistics of the support set: what is the support set differs between the two questions.
    family = Stages(size=8, widths=STAGES.widths, norms=("sample",))
    learner = make_learner(replace(INNER, steps=0), family)
    reverse = replace(
        episode,
        support_inputs=episode.query_inputs,
        support_labels=episode.query_labels,
        query_inputs=episode.support_inputs,
        query_labels=episode.support_labels,
    )
    found, accuracy = learner.gradient(family.default, episode)
    forth, back = (learner.evaluate(family.default, e, 0) for e in (episode, reverse))
    assert found.loss == pytest.approx((forth[1] + back[1]) / 2, rel=1e-10)
    assert accuracy == forth[0]


def test_anil_adapts_the_head_alone(episode: SmallEpisode) -> None:
    for method in get_args(Method):
        learner = make_learner(replace(INNER, method=method))
        before = learner.adapt(ARCHITECTURE, episode.support_inputs, episode.support_labels, 3, steps=0)
        after = learner.adapt(ARCHITECTURE, episode.support_inputs, episode.support_labels, 3, steps=1)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == (set(HEAD) if method == "anil" else set(before)), method


def test_adapting_leaves_the_shared_weights_alone(episode: SmallEpisode) -> None:
    learner = make_learner()
    before = {name: w.clone() for name, w in (learner.supernet.shared | learner.meta).items()}
    learner.evaluate(ARCHITECTURE, episode, 2)
    learner.gradient(ARCHITECTURE, episode)
    after = learner.supernet.shared | learner.meta
    assert all(torch.equal(after[name], w) for name, w in before.items())


def test_bfloat16_is_native_where_the_processor_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        pytest.skip("only Linux on x86-64 lists what its processor can do")
    listed = " avx512_bf16" in cpuinfo.read_text()
    assert native_precision("cpu") == ("bfloat16" if listed else "float32")
    for has in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert native_precision("cuda") == ("bfloat16" if has else "float32")


def test_half_precision_gives_nearly_the_same_gradient() -> None:
    episode = small_episode(1, ways=5, queries=8, size=16)
    plain = make_learner(replace(INNER, steps=0), dtype=torch.float32)
    half = Learner(plain.supernet, plain.meta, plain.inner, "bfloat16")
    found, expected = (learner.gradient(STAGES.default, episode)[0] for learner in (half, plain))
    assert found.loss == pytest.approx(expected.loss, rel=0.05)
    assert found.loss != expected.loss
    together = torch.cat([found.weights[n].flatten() for n in expected.weights])
    reference = torch.cat([expected.weights[n].flatten() for n in expected.weights])
    assert together.dtype == torch.float32
    assert float(F.cosine_similarity(together, reference, dim=0)) > 0.98


def test_dropped_paths_change_the_gradient_by_the_generator_alone_and_leave_no_trace() -> None:
    learner = make_learner(dtype=torch.float32)
    episode = small_episode(0)

    def gradient(drop_path: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        found, _ = learner.gradient(ARCHITECTURE, episode, drop_path, generator)
        return torch.cat([g.flatten() for g in found.weights.values()])

    whole = gradient(0.0, 0)
    dropped = gradient(0.5, 0)
    assert torch.equal(dropped, gradient(0.5, 0))
    assert not torch.equal(dropped, gradient(0.5, 1))
    assert not torch.allclose(dropped, whole)
    assert torch.equal(gradient(0.0, 2), whole)


def test_drawn_weights_are_on_the_device_and_a_function_of_the_generator() -> None:
    first, again, other = (
        Learner.drawn(STAGES, INNER, "float32", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert all(torch.equal(weight, again.supernet.shared[name]) for name, weight in first.supernet.shared.items())
    assert any(not torch.equal(weight, other.supernet.shared[name]) for name, weight in first.supernet.shared.items())
    elsewhere = Learner.drawn(STAGES, INNER, "float32", torch.Generator(), "meta")
    assert elsewhere.device == torch.device("meta")
    assert {value.device for value in elsewhere.meta.values()} == {torch.device("meta")}


@pytest.mark.parametrize("family", [Stages(size=16), Conv4(1)])
def test_differences_stay_near_exact_maml_where_units_switch(family: Family) -> None:
    """On digits, by fresh networks as they are meta-trained: ReLU and max pooling everywhere, float32."""
    architecture = family.default if isinstance(family, Stages) else ()
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    inputs = F.interpolate(images, (16, 16), mode="bilinear")
    rows = np.stack([np.flatnonzero(digits.target == label)[:15] for label in range(5)])
    support, query = torch.from_numpy(rows[:, :5].ravel()), torch.from_numpy(rows[:, 5:].ravel())
    labels = torch.from_numpy(digits.target)
    episode = SmallEpisode(inputs[support], labels[support], inputs[query], labels[query], 5)
    shared = family.initial_weights(torch.Generator().manual_seed(0))

    def gradient(method: Method) -> Tensor:
        inner = Inner(steps=3, learned_rates=False, method=method)
        learner = Learner(SuperNet(family, shared), Learner.initial_meta(shared, inner), inner)
        found, _ = learner.gradient(architecture, episode)
        return torch.cat([found.weights[name].flatten() for name in sorted(found.weights)])

    assert float(F.cosine_similarity(gradient("difference"), gradient("maml"), 0)) > 0.75


def test_differences_are_of_one_network_where_paths_are_dropped(
    episode: SmallEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at the support set drops the same paths, so that short steps in float64 tend to exact MAML."""
    monkeypatch.setattr("metanas.learning.learner.DIFFERENCE", 1e-5)

    def gradient(method: Method) -> Weights:
        learner = make_learner(replace(INNER, method=method))
        return learner.gradient(ARCHITECTURE, episode, 0.5, torch.Generator().manual_seed(0))[0].weights

    exact, found = gradient("maml"), gradient("difference")
    for name, weight in exact.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6)


def test_reptile_without_inner_steps_is_refused_for_it_would_learn_nothing() -> None:
    with pytest.raises(MetanasError, match=r"inner.steps is 0: set inner.steps to 1 or more"):
        Inner(steps=0, method="reptile")
    with pytest.raises(MetanasError, match=r"inner.method: reptile learns from"):
        load_config(Path(__file__).parents[2] / "configs/lines.yaml", ["inner.method=reptile"])
    Inner(steps=1, method="reptile")
