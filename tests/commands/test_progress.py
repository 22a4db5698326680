"""What is told of a run while it goes on."""

import re

import pytest

from metanas.commands.progress import make_show


def test_whether_the_predictor_prunes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    why = "stands aside: Kendall's tau 0.12 on 16 unseen evaluations, floor 0.2"
    with make_show() as show:
        show({"event": "generation", "generation": 3, "best": 0.5, "predictor": {"why": why}})
    assert capsys.readouterr().err == f"generation 3: best 50.0%; predictor {why}\n"


def test_the_first_line_of_a_baseline_knows_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    with make_show() as show:
        show({"event": "baseline", "network": "conv-4", "step": 5, "accuracy": 0.5, "done": 0.25, "seconds": 20.0})
    left = re.fullmatch(r"baseline conv-4: step 5, .* 25%, ETA (\d+) s\n", capsys.readouterr().err)
    assert left is not None
    assert int(left[1]) == pytest.approx(60, abs=2)
