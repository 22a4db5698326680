"""Several tasks at once against one after the other: the same gradients, in float64."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch

from metanas.learning import batching
from metanas.learning.batching import TaskBatches
from metanas.learning.learner import Inner, Learner
from metanas.learning.meta import Method
from metanas.learning.outer import OuterOptimizer, Part
from metanas.learning.supernet import SuperNet
from metanas.spaces.cells import Cells
from metanas.spaces.space import Family
from tests.learning.test_learner import ARCHITECTURE, STAGES, make_learner
from tests.reference import small_episode

EPISODES = [small_episode(seed, dtype=torch.float64) for seed in range(5)]
CELLS = Cells(channels=1, width=4, nodes=1)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def on(device: str, learner: Learner) -> Learner:
    """The same learner on a device."""
    shared = {name: weight.to(device) for name, weight in learner.supernet.shared.items()}
    meta = {name: value.to(device) for name, value in learner.meta.items()}
    return Learner(SuperNet(learner.supernet.space, shared), meta, learner.inner)


@pytest.mark.parametrize(
    ("method", "family", "steps"),
    [*((method, STAGES, 2) for method in get_args(Method)), ("fomaml", STAGES, 0), ("maml", CELLS, 1)],
)
def test_the_gradient_of_a_batch_is_the_sum_of_its_tasks(
    method: Method, family: Family, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float64 the step can be so short that it jumps over no kink, whichever vector it is relative to.
    monkeypatch.setattr("metanas.learning.learner.DIFFERENCE", 1e-5)
    learner = make_learner(Inner(steps=steps, body_rate=0.1, head_rate=0.4, method=method), family)
    architecture = ARCHITECTURE if family is STAGES else family.default
    together, scores = learner.gradients(architecture, EPISODES)
    alone = [learner.gradient(architecture, episode) for episode in EPISODES]
    # One side is compiled: maps of a few numbers leave little of their variance beside its rounding.
    tolerance = 1e-4 if method == "difference" else 1e-7
    for name in alone[0][0].weights:
        expected = torch.stack([found.weights[name] for found, _ in alone]).sum(0)
        torch.testing.assert_close(together.weights[name], expected, rtol=tolerance, atol=0.1 * tolerance)
    for name in alone[0][0].parameters:
        expected = torch.stack([found.parameters[name] for found, _ in alone]).sum(0)
        torch.testing.assert_close(together.parameters[name], expected, rtol=tolerance, atol=0.1 * tolerance)
    assert [loss for loss, _ in scores] == pytest.approx([found.loss for found, _ in alone])
    assert [accuracy for _, accuracy in scores] == pytest.approx([accuracy for _, accuracy in alone])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", [STAGES, CELLS])
@pytest.mark.parametrize(("method", "steps"), [("maml", 2), ("anil", 2), ("fomaml", 0)])
def test_evaluations_at_once_are_those_of_single_tasks(
    method: Method, steps: int, family: Family, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":  # where nobody tells how much memory is free
        monkeypatch.setattr(batching, "with_room", three_fit)
    learner = make_learner(Inner(steps=steps, body_rate=0.1, head_rate=0.4, method=method), family)
    episodes = [*EPISODES, small_episode(9, ways=4, dtype=torch.float64)]
    together = TaskBatches(on(device, learner)).evaluations(family.default, episodes, steps)
    alone = [learner.evaluate(family.default, episode, steps) for episode in episodes]
    assert [accuracy for accuracy, _ in together] == pytest.approx([accuracy for accuracy, _ in alone])
    assert [loss for _, loss in together] == pytest.approx([loss for _, loss in alone])


def three_fit(device: torch.device, one: Callable[[], Any]) -> tuple[Any, int]:
    return one(), 3


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_of_batches_is_the_step_of_single_tasks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two architectures and two shapes; three tasks of a kind fit at once."""
    monkeypatch.setattr(batching, "with_room", three_fit)
    inner = Inner(steps=1, method="fomaml")
    episodes = [*EPISODES, small_episode(9, ways=4, dtype=torch.float64), *EPISODES]
    architectures = [STAGES.default if n % 2 else ARCHITECTURE for n in range(len(episodes))]
    batched, single = on(device, make_learner(inner)), make_learner(inner)
    seen: list[int] = []
    whole = batched.gradients
    batched.gradients = lambda a, e: (seen.append(len(e)), whole(a, e))[1]  # type: ignore[method-assign, func-returns-value]
    parts, scores = TaskBatches(batched).gradients(architectures, episodes)
    assert sorted(seen) == [1, 1, 1, 2, 3, 3]
    assert [part.tasks for part in parts] == seen
    alone = [single.gradient(a, e) for a, e in zip(architectures, episodes, strict=True)]
    assert [loss for loss, _ in scores] == pytest.approx([found.loss for found, _ in alone])
    assert [accuracy for _, accuracy in scores] == pytest.approx([accuracy for _, accuracy in alone])
    OuterOptimizer(batched).step(parts, 0.01)
    OuterOptimizer(single).step([Part.of(a, f) for a, (f, _) in zip(architectures, alone, strict=True)], 0.01)
    for name, weight in single.supernet.shared.items():
        torch.testing.assert_close(batched.supernet.shared[name].cpu(), weight, rtol=1e-6, atol=1e-8)


def test_where_memory_runs_out_fewer_tasks_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven were thought to fit and only three do; a single one that does not fit is an error."""
    monkeypatch.setattr(batching, "with_room", lambda device, one: (one(), 7))
    learner = make_learner(Inner(steps=0))
    episodes = [small_episode(seed, dtype=torch.float64) for seed in range(9)]
    whole, done = learner.gradients, []

    def small(architecture: Any, some: Any) -> Any:
        if len(some) > 3:
            raise torch.cuda.OutOfMemoryError
        done.append(len(some))
        return whole(architecture, some)

    monkeypatch.setattr(learner, "gradients", small)
    parts, scores = TaskBatches(learner).gradients([ARCHITECTURE] * 9, episodes)
    assert done == [part.tasks for part in parts] == [1, 3, 3, 2]
    assert [loss for loss, _ in scores] == pytest.approx([learner.gradient(ARCHITECTURE, e)[0].loss for e in episodes])
    monkeypatch.setattr(learner, "gradients", lambda architecture, some: small(architecture, [*some] * 4))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        TaskBatches(learner).gradients([ARCHITECTURE], episodes[:1])


def test_the_room_is_what_was_free_before_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 700 bytes free and 300 kept for reuse, a task that takes 100 fits seven times with three tenths to spare."""
    device, peak = torch.device("cuda"), iter([50, 150])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda d: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d: next(peak))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (700, 4000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d: 350)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: next(peak))
    assert batching.with_room(device, lambda: "done") == ("done", 7)
