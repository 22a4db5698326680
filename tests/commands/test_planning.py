"""Plans: the arithmetic by hand, and against what a run then really takes."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from metanas.commands import planning
from metanas.commands.planning import Rates, foresee, plan
from metanas.commands.training import train
from metanas.search.schedule import Budget, SearchSettings, evaluations_after
from tests.runs import tiny_config

RATES = Rates(set_up=7.0, warmup_step=0.1, later_step=0.2, evaluation=0.01)
SETTINGS = SearchSettings(population=6, offspring=4, episodes=10, finalists=2, final_episodes=50)


@pytest.fixture
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBE", 0.2)


def test_evaluations_after_each_phase() -> None:
    """A first population and the default network; then offspring beside them; finalists and default at the end."""
    budget = Budget(generation_steps=(5, 20), settling_steps=(9,))
    assert [evaluations_after(SETTINGS, budget, phase) for phase in range(5)] == [0, 70, 110, 110 + 150, 0]


def test_a_budget_by_steps_is_steps_times_rates() -> None:
    budget = Budget(warmup_steps=40, widening_steps=10, generation_steps=(5, 20), settling_steps=(30,))
    phases = foresee(budget, SETTINGS, RATES)
    assert [p.name for p in phases] == ["warm-up", "widening", "generation 1", "generation 2", "settling 1"]
    assert [p.steps for p in phases] == [40, 10, 5, 20, 30]
    assert [p.training for p in phases] == pytest.approx([4.0, 2.0, 1.0, 4.0, 3.0])  # one network alone is quicker
    assert [p.evaluation for p in phases] == pytest.approx([0.0, 0.7, 1.1, 2.6, 0.0])


def test_a_budget_by_minutes_fills_them() -> None:
    budget = Budget(minutes=2, generation_steps=(1, 1), warmup_share=0.5, widening_share=0.1)
    phases = foresee(budget, SETTINGS, RATES)
    assert sum(p.training + p.evaluation for p in phases) == pytest.approx(120, abs=0.5)
    assert phases[0].steps == 600  # half of two minutes at 0.1 s
    assert phases[1].steps == round((12 - 0.7) / 0.2)
    assert foresee(replace(budget, minutes=0.01), SETTINGS, RATES)[-1].steps == 0


def test_a_plan_of_a_run_that_fits_and_of_one_that_does_not(short_probe: None) -> None:
    config = tiny_config()
    roomy = plan(config, minutes=60)
    assert roomy.advice == "It fits into 60 minutes."
    assert roomy.steps == 20
    assert roomy.memory > 100
    long = config.model_copy(update={"budget": Budget(warmup_steps=10**6, widening_steps=3, generation_steps=(3,))})
    tight = plan(long, minutes=1)
    assert tight.seconds > 60
    assert tight.advice is not None
    assert "--minutes" in tight.advice


def test_disk_is_foreseen(short_probe: None, tmp_path: Path) -> None:
    config = tiny_config()
    foreseen = plan(config).disk
    out = train(config, tmp_path / "run").path
    weights = [file for file in out.rglob("*.safetensors") if file.name != "predictor.safetensors"]
    # The baselines come with `evaluate`.
    assert sum(file.stat().st_size for file in weights) / 2**20 < foreseen


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_comes_true_within_a_quarter(workers: int, tmp_path: Path) -> None:
    """On a machine that has nothing else to do."""
    config = tiny_config(workers=workers, image={"size": 28}, space={"options": {}})
    settings = replace(config.search, population=8, offspring=8, episodes=24)
    budget = Budget(warmup_steps=400, widening_steps=100, generation_steps=(100, 100))
    config = config.model_copy(update={"budget": budget, "search": settings})
    foreseen = plan(config)
    started = time.monotonic()
    train(config, tmp_path / "run")
    taken = time.monotonic() - started
    assert foreseen.seconds == pytest.approx(taken, rel=0.25), json.dumps({"plan": foreseen.seconds, "run": taken})
