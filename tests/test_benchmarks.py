"""What benchmarks have in common: figures with their spread, and what is missing as one sentence."""

import argparse
import json
import sys

import numpy as np
import pytest

from benchmarks import meta_step, rounds, sampler, supernet
from metanas.errors import MetanasError


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
    means = meta_step.check_accuracy("conv-4", found)
    assert means == pytest.approx({"learn2learn maml": 0.7, "metanas maml float32": 0.7})
    with pytest.raises(MetanasError, match=r"metanas maml float32 is 5\.0% .* below learn2learn maml"):
        meta_step.check_accuracy("conv-4", found | {"metanas maml float32": theirs + noise - 0.05})


def test_trainings_that_part_are_refused() -> None:
    assert supernet.loss_difference(lambda: [(9.0, 0.1), (2.0, 0.5)], lambda: [(1.0, 0.2), (2.002, 0.5)]) < 1.1e-3
    with pytest.raises(MetanasError, match=r"loss 2\.0000 and accuracy 50\.0% in the SuperNet, 2\.5000"):
        supernet.loss_difference(lambda: [(2.0, 0.5)], lambda: [(2.5, 0.5)])
