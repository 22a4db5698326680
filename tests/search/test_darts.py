"""DARTS as a whole: what it learns, what it draws, how it stops, and that it goes on where it was left."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from metanas.errors import MetanasError
from metanas.files import save_arrays
from metanas.learning.samples import Classification, Samples
from metanas.learning.supernet import SuperNet
from metanas.parsing import parse
from metanas.search.darts import Darts, DartsSettings, halves
from metanas.search.relaxation import discretise, edges, relaxed_loss
from metanas.spaces.cells import Cells
from metanas.spaces.stages import Stages

SPACE = Cells(nodes=2, width=2, reductions=1, operations=("none", "skip_connect", "avg_pool_3x3", "conv_3x3"))
SETTINGS = DartsSettings(batch=8, architecture_rate=0.05, stop="never")


def stripes(count: int, seed: int) -> Samples:
    """Stripes that lie or stand, somewhere, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.randint(4, (count, 1), generator=generator)
    waves = ((torch.arange(8) + phase) % 4 < 2).float()
    lying = waves[:, :, None].expand(count, 8, 8)
    images = torch.where(labels[:, None, None] == 0, lying, lying.transpose(1, 2))
    return Samples((images + 0.3 * torch.rand(count, 8, 8, generator=generator))[:, None] / 1.3, labels, 2)


TASK = Classification(stripes(64, 0), stripes(8, 1), stripes(8, 2))


def darts(settings: DartsSettings = SETTINGS, seed: int = 0, space: Cells = SPACE) -> Darts:
    supernet = SuperNet(space, space.initial_weights(torch.Generator().manual_seed(seed)))
    return Darts(supernet, TASK, settings, seed)


def of(total: int) -> Callable[[int], float]:
    """A budget of so many steps."""
    return lambda steps: steps / total


def until(stop: int, total: int) -> Callable[[int], float]:
    """The same, broken off at a step."""
    return lambda steps: 1.0 if steps >= stop else steps / total


def same(a: Darts, b: Darts) -> bool:
    ours, theirs = a.state(), b.state()
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_the_halves_share_no_sample_and_hold_all() -> None:
    samples = Samples(torch.arange(13.0)[:, None], torch.arange(13), 13)
    parts = halves(samples, seed=3)
    assert [len(parts[name]) for name in ("weights", "architecture")] == [7, 6]
    labels = torch.cat([part.labels for part in parts.values()])
    assert sorted(labels.tolist()) == list(range(13))
    assert parts["weights"].inputs[:, 0].tolist() == parts["weights"].labels.tolist()
    assert halves(samples, seed=4)["weights"].labels.tolist() != parts["weights"].labels.tolist()


@pytest.mark.parametrize("order", [1, 2])
def test_both_losses_fall_and_the_architecture_is_one_of_the_space(order: int) -> None:
    search = darts(replace(SETTINGS, order=order, rate=0.1))
    everything = [relaxed_loss(SPACE, half.inputs, half.labels) for half in search.halves.values()]

    def losses() -> list[float]:
        return [float(loss(search.weights, search.alphas)) for loss in everything]

    before = losses()
    architecture = search.run(of(20))
    assert all(now < 0.7 * then for now, then in zip(losses(), before, strict=True))
    SPACE.check(architecture)
    assert architecture == discretise(SPACE, search.alphas)
    assert search.steps == 20
    assert len(search.skips) == 5, "an epoch is four steps"


def test_it_trains_the_shared_weights_of_the_relaxed_network_in_place() -> None:
    supernet = SuperNet(SPACE, SPACE.initial_weights(torch.Generator().manual_seed(0)))
    before = {name: weight.clone() for name, weight in supernet.shared.items()}
    Darts(supernet, TASK, SETTINGS, 0).run(of(2))
    changed = {name for name, weight in supernet.shared.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name, _ in SPACE.relaxed().named_parameters()}


@pytest.mark.parametrize(
    ("learns", "resting"),
    [("weights", {"architecture_rate": 0.0}), ("architecture", {"rate": 0.0, "last_rate": 0.0})],
)
def test_each_side_learns_from_its_own_half_alone(learns: str, resting: dict[str, float]) -> None:
    """With the other side at rest, what lies in the other half changes nothing."""
    searches = [darts(replace(SETTINGS, **resting)) for _ in range(3)]
    (other,) = {"weights", "architecture"} - {learns}
    searches[1].halves[other] = stripes(32, seed=9)
    searches[2].halves[learns] = stripes(32, seed=9)
    for search in searches:
        search.run(of(3))
    found = [search.weights if learns == "weights" else search.alphas for search in searches]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


@pytest.mark.parametrize("order", [1, 2])
def test_a_search_goes_on_from_its_state_to_the_same_result(order: int, tmp_path: Path) -> None:
    settings = replace(SETTINGS, order=order, batch=16, stop="eigenvalue", temperature=(1.0, 0.2))
    whole, part, rest = darts(settings), darts(settings), darts(settings, seed=0)
    whole.run(of(4))
    part.run(until(3, 4))
    save_arrays(tmp_path / "state.safetensors", part.state())
    rest.run(until(1, 4))  # whatever it has done is forgotten
    rest.restore(load_file(tmp_path / "state.safetensors"))
    assert same(rest, part)
    assert not same(rest, whole)
    rest.run(of(4))
    assert same(rest, whole)
    assert len(whole.eigenvalues) == 2


def test_another_seed_is_another_search() -> None:
    first, again, other = darts(), darts(), darts(seed=1)
    for search in (first, again, other):
        search.run(of(2))
    assert same(first, again)
    assert not same(first, other)


def leaning(kind_logits: dict[str, int]) -> dict[str, torch.Tensor]:
    """Alphas that lean to one operation on every edge."""
    rows = sum(edges(SPACE))
    return {
        kind: torch.nn.functional.one_hot(torch.full((rows,), operation), 4).float()
        for kind, operation in kind_logits.items()
    }


def test_a_collapse_to_skip_connections_stops_the_search_and_gives_the_architecture_of_before() -> None:
    search = darts(replace(SETTINGS, stop="skips", window=2, architecture_rate=1e-9))
    skip, conv = 1, 3
    search.history = [leaning({"normal": conv, "reduction": skip})]
    for kind, alpha in leaning({"normal": skip, "reduction": conv}).items():
        search.alphas[kind].copy_(alpha)
    found = search.run(of(100))
    assert search.skips == [0, 4, 4]
    assert search.steps == 8, "two epochs above the limit are enough"
    assert search.kept == 0
    assert found == discretise(SPACE, leaning({"normal": conv, "reduction": skip}))
    assert search.run(of(1000)) == found, "a search that has stopped stays so"
    other = darts(search.settings)
    other.restore(search.state())
    assert other.kept == 0
    assert other.architecture == found


def test_without_a_rule_the_same_collapse_is_reported_and_kept() -> None:
    search = darts(replace(SETTINGS, stop="never", architecture_rate=1e-9))
    for kind, alpha in leaning({"normal": 1, "reduction": 3}).items():
        search.alphas[kind].copy_(alpha)
    found = search.run(of(12))
    assert search.skips == [4, 4, 4]
    assert search.kept is None
    assert search.collapsed
    assert found == discretise(SPACE, search.alphas)


@pytest.mark.parametrize("stop", ["never", "skips", "eigenvalue"])
def test_a_collapse_of_the_last_epochs_is_reported_whatever_stops_a_search(stop: str) -> None:
    search = darts(replace(SETTINGS, stop=stop, window=2))
    over, within = leaning({"normal": 1, "reduction": 3}), leaning({"normal": 3, "reduction": 1})
    for history, collapsed in (
        ([], False),
        ([within], False),
        ([over], True),
        ([over, over, over], True),  # from the start, so that no rule has an architecture of before
        ([within, over, over], True),
        ([over, over, within], False),
        ([over, within, over], False),
    ):
        search.history = history
        assert search.collapsed == collapsed
    search.kept = 0
    assert search.collapsed, "a search that was stopped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, r"^strategy\.batch of 'darts' must be at least 1, but is 0\.$"),
        (
            {"temperature": [1, 0]},
            r"^strategy\.temperature of 'darts' must be two finite numbers above 0, but is \(1.0, 0.0\)",
        ),
        ({"temperature": [float("inf"), 1]}, r"'darts': key 'temperature\.0': Input should be a finite number"),
        ({"rate": -0.1}, r"strategy\.rate of 'darts' must be finite and at least 0, but is -0.1"),
        ({"last_rate": float("nan")}, r"'darts': key 'last_rate': Input should be a finite number"),
        ({"decay": -1}, r"strategy\.decay"),
        ({"architecture_rate": -1}, r"strategy\.architecture_rate"),
        ({"architecture_decay": -1}, r"strategy\.architecture_decay"),
        ({"momentum": 1}, r"strategy\.momentum of 'darts' must be at least 0 and below 1"),
        ({"skips": -1}, r"strategy\.skips"),
        ({"window": 0}, r"strategy\.window of 'darts' must be at least 1"),
        ({"growth": 0}, r"strategy\.growth of 'darts' must be above 0 and at most 1"),
        ({"growth": 1.1}, r"strategy\.growth"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        parse(DartsSettings, options, "strategy: 'darts'")


def test_the_growth_of_the_eigenvalue_stops_the_search() -> None:
    search = darts(replace(SETTINGS, batch=32, stop="eigenvalue", window=2))
    search.run(until(1, 20))
    assert len(search.eigenvalues) == 1
    search.eigenvalues = [1e-12, 1e-12, 1e-12]
    search.history = [search.history[0]] * 3
    search.run(of(20))
    # The measured ones are far above: after the first of them its window's mean has grown, whatever it is.
    assert search.kept == 1
    assert search.eigenvalues[-1] > 1e-9


def test_a_diverged_search_says_so() -> None:
    with pytest.raises(MetanasError, match=r"diverged: its loss is nan at step [1-9].*lower the rate"):
        darts(replace(SETTINGS, rate=1e30)).run(of(10))


def test_temperature_runs_over_the_budget_from_the_first_value_to_the_last() -> None:
    search = darts(replace(SETTINGS, temperature=(4.0, 1.0)))
    found = []
    search.run(lambda steps: found.append(search.temperature) or steps / 4)
    assert found == pytest.approx([4.0, 4.0, 4.0 / 2**0.5, 2.0, 2.0 / 2**0.5])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Stages(channels=1, size=16), "DARTS relaxes the space 'cells', but the space is 'stages'"),
        (Cells(nodes=2, combine=("concat",)), "'sum' in combine"),
        (Cells(nodes=2, operations=("none",)), "an operation other than 'none'"),
    ],
)
def test_a_space_that_cannot_be_relaxed_is_refused(space: Cells, message: str) -> None:
    with pytest.raises(MetanasError, match=message):
        Darts(SuperNet(space, {}), TASK, SETTINGS, 0)
