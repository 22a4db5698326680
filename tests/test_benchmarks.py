"""What benchmarks have in common: figures with their spread, and what is missing as one sentence."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks import inner_loop, meta_step, predictor, pruning, rounds, same_accuracy, sampler, supernet, transfer
from metanas.assembly import CONV4, SUPERNET, make_learner
from metanas.errors import MetanasError
from metanas.learning.learner import Learner
from metanas.learning.meta import Method
from metanas.learning.problems import SCALE
from metanas.learning.supernet import SuperNet
from metanas.spaces.norm import SampleNorm
from metanas.spaces.winograd import Convolution
from metanas.statistics import mean_interval
from metanas.tables import nasbench201, transnas
from metanas.tables.cell import EDGES
from metanas.tables.table import Table
from tests.reference import small_episode
from tests.tables.test_tables import write201


def test_every_figure_in_the_json_has_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = np.array([2.0, 8.0, 3.0])
    rounds.finish(
        argparse.Namespace(json=True), seconds=rounds.spread(seconds), ratio=rounds.ratio(seconds, seconds / 2)
    )
    assert json.loads(capsys.readouterr().out) == {
        "seconds": 3.0,
        "seconds_range": [2.0, 8.0],
        "ratio": 2.0,
        "ratio_range": [2.0, 2.0],
    }


def test_meta_updates_are_compared_on_the_same_work() -> None:
    configs = inner_loop.contenders(steps=3, learned=False, rate=0.002)
    plain = {name: config.model_dump(exclude={"inner"}) for name, config in configs.items()}
    assert len(plain) == 1 + len(get_args(Method))
    assert all(content == plain[inner_loop.PROTOTYPES] for content in plain.values())
    assert {
        (config.inner.steps, config.inner.method) for name, config in configs.items() if name in get_args(Method)
    } == {(3, method) for method in get_args(Method)}
    assert configs[inner_loop.PROTOTYPES].inner.steps == 0
    assert {config.inner.learned_rates for config in configs.values()} == {False}


def test_missing_data_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("METANAS_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["sampler"])
    with pytest.raises(SystemExit) as ended:
        rounds.run(sampler.main)
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert "METANAS_DATA" in err


def test_a_missing_peer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "learn2learn.algorithms", None)
    with pytest.raises(MetanasError, match=r"the peer cannot be loaded .*learn2learn.* run 'make -B setup'\.$"):
        rounds.peer_module("learn2learn.algorithms")


def test_speed_that_costs_accuracy_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = np.linspace(0.5, 0.9, 50)
    noise = np.tile([-0.02, 0.02], 25)
    found = {"learn2learn maml": theirs, "metanas maml float32": theirs + noise}
    checked = meta_step.check_accuracy("conv-4", found, 0.01)
    assert checked["accuracy"] == pytest.approx({"learn2learn maml": 0.7, "metanas maml float32": 0.7})
    difference, half = checked["accuracy_difference"]["metanas maml float32"]
    assert (difference, half) == (pytest.approx(0), pytest.approx(mean_interval(noise)[1]))
    for off, said in ((-0.05, r"-5\.0%"), (0.05, r"\+5\.0%")):
        with pytest.raises(MetanasError, match=rf"metanas maml float32 is {said} .* from its peer's accuracy"):
            meta_step.check_accuracy("conv-4", found | {"metanas maml float32": theirs + noise + off}, 0.01)
    meta_step.check_accuracy("conv-4", found | {"metanas maml bfloat16": theirs + noise + 0.05}, 0.01)
    with pytest.raises(MetanasError, match=r"metanas maml bfloat16 is -5\.0%"):
        meta_step.check_accuracy("conv-4", found | {"metanas maml bfloat16": theirs + noise - 0.05}, 0.01)


@pytest.mark.parametrize("network", [CONV4, SUPERNET])
@pytest.mark.parametrize("method", meta_step.METHODS)
def test_the_peer_computes_the_same_meta_gradient(method: Method, network: str) -> None:
    """In double precision: in single, a unit that rounding switches in an inner step moves the gradient by 0.1%."""
    pytest.importorskip("learn2learn", reason="learn2learn could not be built here, see `make setup`")
    single = make_learner(meta_step.run_config(method, "float32"), network)
    supernet, architecture = single.supernet, single.supernet.space.default
    shared, meta = ({n: w.double() for n, w in weights.items()} for weights in (supernet.shared, single.meta))
    learner = Learner(SuperNet(supernet.space, shared), meta, single.inner)
    episode = small_episode(0, ways=5, shots=1, queries=15, size=28, dtype=torch.float64)
    peer = meta_step.Peer(meta_step.plain(learner.supernet.extract(architecture).double()), method == "fomaml")
    peer.scale = peer.scale.detach().double().requires_grad_()
    loss = functional.cross_entropy(peer.adapted_logits(episode), episode.query_labels)
    loss.backward()  # type: ignore[no-untyped-call]
    ours, _ = learner.gradient(architecture, episode)
    assert float(loss.detach()) == pytest.approx(ours.loss, rel=1e-9)
    images = {"support_inputs": episode.support_inputs.float(), "query_inputs": episode.query_inputs.float()}
    assert single.gradient(architecture, replace(episode, **images))[0].loss == pytest.approx(ours.loss, rel=1e-4)
    theirs = {name: weight.grad for name, weight in peer.maml.module.features.named_parameters()}
    assert theirs.keys() == ours.weights.keys()
    for name, gradient in ours.weights.items():
        assert theirs[name] is not None
        assert float((gradient - theirs[name]).norm() / theirs[name].norm()) < 1e-9, name
    assert float(peer.scale.grad) == pytest.approx(float(ours.parameters[SCALE]), rel=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", [CONV4, SUPERNET])
def test_the_peer_has_the_same_network_without_our_operations(network: str) -> None:
    learner = make_learner(meta_step.run_config("maml", "float32"), network)
    ours = learner.supernet.extract(learner.supernet.space.default)
    theirs = meta_step.plain(learner.supernet.extract(learner.supernet.space.default))
    assert not any(isinstance(module, SampleNorm | Convolution) for module in theirs.modules())
    inputs = torch.rand(6, 1, 28, 28)
    torch.testing.assert_close(theirs(inputs, 6), ours(inputs, 6), rtol=1e-4, atol=1e-5)


def test_each_contender_trains_until_the_goal_or_the_limit() -> None:
    def turn(accuracies: list[float]) -> same_accuracy.Turn:
        left = iter(accuracies)
        return lambda seconds: (seconds + 10, next(left), 1)

    quick, slow = turn([0.6, 0.98]), turn([0.7, 0.8, 0.75])
    found = same_accuracy.trained_in_turn({"quick": quick, "slow": slow}, seconds=50, limit=3)
    assert found == {
        "quick": same_accuracy.Trained(minutes=2.0, best=0.98, spent=2.0),
        "slow": same_accuracy.Trained(minutes=None, best=0.8, spent=3.0),
    }


def test_trainings_that_part_are_refused() -> None:
    assert supernet.loss_difference(lambda: [(9.0, 0.1), (2.0, 0.5)], lambda: [(1.0, 0.2), (2.002, 0.5)]) < 1.1e-3
    with pytest.raises(MetanasError, match=r"loss 2\.0000 and accuracy 50\.0% in the SuperNet, 2\.5000"):
        supernet.loss_difference(lambda: [(2.0, 0.5)], lambda: [(2.5, 0.5)])


def test_queries_to_a_level_are_the_first_of_the_mean_curve() -> None:
    curves = np.array([[1.0, 2.0, 5.0], [1.0, 4.0, 5.0]])
    assert predictor.queries_to(3.0, curves)[0] == 2
    count, low, high = predictor.queries_to(3.5, curves)
    assert (count, low <= count <= high) == (3, True)
    assert predictor.queries_to(6.0, curves) == (4, 4.0, 4.0), "never: one more than there are"


def test_naswot_is_found_by_the_names_of_operations(tmp_path: Path) -> None:
    write201(tmp_path)
    table = nasbench201.load(tmp_path)["cifar10"]
    # NASLib's 0 is the identity, 2 a 3x3 convolution; its edges are sorted by their target here.
    names = dict(zip(sorted(EDGES), (0, 2, 1, 1, 1, 3), strict=True))
    arch = "(" + ", ".join(str(names[edge]) for edge in sorted(EDGES)) + ")"
    content = {"cifar10": {"one": {"arch": arch, "nwot": {"score": 7.5}}}}
    (tmp_path / predictor.PROXIES).write_text(json.dumps(content))
    scores = predictor.naswot(tmp_path, table)
    (row,) = np.flatnonzero(np.isfinite(scores))
    assert scores[row] == 7.5
    said = [table.space.operations[gene] for gene in transfer.every(table.space)[row]]
    assert said == [predictor.NASLIB[names[edge]] for edge in EDGES]
    (tmp_path / predictor.PROXIES).write_text("{}")
    with pytest.raises(MetanasError, match="must hold zero-cost scores"):
        predictor.naswot(tmp_path, table)


def alike(name: str, sign: float = 1.0) -> Table:
    """A task that orders cells by their place."""
    size = transnas.SPACE.size()
    worth, costs = sign * np.arange(float(size)), np.zeros(size)
    return Table(name, transnas.SPACE, (1.0,), worth[None], worth, costs, costs)


def test_other_tasks_rank_a_new_one_as_far_as_they_are_alike() -> None:
    tables = {"a": alike("a"), "b": alike("b"), "c": alike("c", -1.0)}
    cells = transfer.different(tables)[::4]
    features = transfer.encoded(transnas.SPACE, cells)
    others = [transfer.source(tables[name], cells, 0) for name in "ab"]
    for name, sign in (("b", 1), ("c", -1)):
        found = transfer.rankings(tables[name], cells, features, others[:1], 0)
        assert found["without the pool"][0] is None
        assert found["nearest of its own"][0] is None
        first, _, last = (one.tau for one in found["with the pool"] if one is not None)
        assert sign * first > 0.6
        assert last > 0.4, "its own measurements have the say by then"
        assert {one.tau for one in found["parameters"] if one is not None} == {0.0}
    regrets, weight = transfer.transfer(tables["b"], others[:1], "bayesian ridge", 0)
    assert set(regrets) == {"with the pool", "without the pool", "regularized evolution", "random"}
    assert regrets["with the pool"][0] < regrets["random"][0]
    assert all(np.all(np.diff(regret) <= 0) for regret in regrets.values()), "of the best so far"
    assert 0 <= weight <= 1


def test_both_arms_of_the_pruning_differ_in_the_predictor_alone() -> None:
    arms = pruning.ARMS
    assert arms["without"][: len(arms["with"])] == arms["with"]
    assert arms["without"][len(arms["with"]) :] == ["--set", "predictor.floor=2"]
    found = {
        "seed": 0, "arm": "with", "steps": 10, "saved": 0.25, "proposed": 72, "tau": None,
        "accuracies": {"test": [0.5, 0.7]},
        "screenings": [{"pruned": 24, "audited": 3, "winners": 1}, {"pruned": 0, "audited": 0, "winners": 0}],
    }  # fmt: skip
    assert pruning.row(found, ["test"])[:5] == ("0, with", "10", "25% of 72", "-", "1 of 3")
