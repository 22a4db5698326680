"""What is told of a run while it goes on."""

import pytest

from metanas.commands.progress import make_show


def test_whether_the_predictor_prunes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    why = "stands aside: Kendall's tau 0.12 on 16 unseen evaluations, floor 0.2"
    with make_show() as show:
        show({"event": "generation", "generation": 3, "best": 0.5, "predictor": {"why": why}})
    assert capsys.readouterr().err == f"generation 3: best 50.0%; predictor {why}\n"
