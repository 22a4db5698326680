"""Plans: the arithmetic by hand, and against what a run then really takes."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metanas.commands import planning
from metanas.commands.planning import Durations, PeakMemory, foresee, plan
from metanas.commands.training import train
from metanas.config import RunConfig
from metanas.errors import MetanasError
from metanas.learning.executor import RayActors
from metanas.learning.memory import peak_memory
from metanas.learning.worker import GradientJob
from metanas.search.schedule import Budget, SearchSettings, evaluations_after
from tests.runs import TINY, tiny_config

DURATIONS = Durations(opening=3.0, starting=0.0, warmup_step=0.1, later_step=0.2, settling_step=0.15, evaluation=0.01)
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
    phases = foresee(budget, SETTINGS, DURATIONS)
    assert [p.name for p in phases] == ["warm-up", "widening", "generation 1", "generation 2", "settling 1"]
    assert [p.steps for p in phases] == [40, 10, 5, 20, 30]
    assert [p.training for p in phases] == pytest.approx([4.0, 2.0, 1.0, 4.0, 4.5])  # one network alone is quicker
    assert [p.evaluation for p in phases] == pytest.approx([0.0, 0.7, 1.1, 2.6, 0.0])


def test_a_budget_by_minutes_fills_them() -> None:
    budget = Budget(minutes=2, generation_steps=(1, 1), warmup_share=0.5, widening_share=0.1)
    phases = foresee(budget, SETTINGS, DURATIONS)
    assert sum(p.training + p.evaluation for p in phases) == pytest.approx(120, abs=0.5)
    assert phases[0].steps == 600  # half of two minutes at 0.1 s
    assert phases[1].steps == 60  # 12 s: what evaluations take is not known yet
    assert foresee(replace(budget, minutes=0.01), SETTINGS, DURATIONS)[-1].steps == 0


def test_a_phase_of_no_steps_measures_nothing() -> None:
    """As `repeat.yaml` has them; the finalists are measured all the same."""
    budget = Budget(warmup_steps=40, widening_steps=10, generation_steps=(0, 0), settling_steps=(0,))
    assert [p.evaluation for p in foresee(budget, SETTINGS, DURATIONS)] == pytest.approx([0.0, 0.7, 0.0, 1.5, 0.0])


def test_generations_that_do_not_fit_are_left_out() -> None:
    """Of 60 seconds the workers have 1, warm-up 20, widening 9 and the first population 7.7: 10.3 are left.

    A generation takes 12.1 seconds and the choice after it 16.5: there is room for neither, and the choice has to be.
    Then 6.2 of settling's 12 seconds are over.
    """
    durations = replace(DURATIONS, starting=1.0, evaluation=0.11)
    phases = foresee(Budget(minutes=1, generation_steps=(1, 1)), SETTINGS, durations)
    assert [p.steps for p in phases] == [200, 45, 0, 0, 0, 12, 27]
    assert [p.evaluation for p in phases] == pytest.approx([0, 7.7, 0, 16.5, 0, 0, 0])


def test_warm_up_is_measured_on_its_own_images(short_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    gradient = GradientJob.gradient

    def seen(self: GradientJob, *worker_and_episode: Any) -> Any:
        trained.append(self.split)
        return gradient(self, *worker_and_episode)

    monkeypatch.setattr(GradientJob, "gradient", seen)
    plan(tiny_config())
    assert set(trained) == {"warmup", "train"}
    trained.clear()
    plan(tiny_config(warmup_size=None))
    assert set(trained) == {"train"}


def test_what_train_refuses_the_plan_refuses() -> None:
    splits = {key: value for key, value in TINY["pool"]["splits"].items() if key != "validation"}
    with pytest.raises(MetanasError, match="no task in its validation split"):
        plan(tiny_config(pool=TINY["pool"] | {"splits": splits}))
    with pytest.raises(MetanasError, match="more than 0"):
        plan(tiny_config(), minutes=0)


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
    hopeless = plan(long, minutes=1e-4).advice
    assert hopeless is not None
    assert "too few: setting up takes" in hopeless
    assert "--minutes" not in hopeless


def test_a_plan_says_which_generations_the_minutes_leave_out(short_probe: None) -> None:
    config = tiny_config(budget={"minutes": 1, "generation_steps": [3, 3]})
    many = config.model_copy(update={"search": replace(config.search, final_episodes=10**6)})
    advice = plan(many, minutes=10**9).advice
    assert advice is not None
    assert "; generation 1, generation 2 will be left out" in advice
    assert plan(config, minutes=60).advice == "It fits into 60 minutes."


def on_disk(folder: Path) -> float:
    """MiB of all that lies in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*")) / 2**20


def test_disk_is_foreseen(short_probe: None, tmp_path: Path) -> None:
    config = tiny_config(space={"options": {"widths": [[32, 64], [64, 128]]}})
    foreseen = plan(config).disk
    assert foreseen == pytest.approx(on_disk(train(config, tmp_path / "run").path), rel=0.25)


def seconds_and_memory(config: RunConfig, out: Path) -> tuple[float, float]:
    """Of a training, in a process that has done nothing else; its workers are asked before they end."""
    taken: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        end = RayActors.__exit__

        def asked(self: RayActors, *raised: object) -> None:
            taken.extend(self.run([PeakMemory()] * self.workers))
            end(self, *raised)  # type: ignore[arg-type]

        patch.setattr(RayActors, "__exit__", asked)
        started = time.monotonic()
        train(config, out)
        return time.monotonic() - started, peak_memory() + sum(taken)


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_comes_true_within_a_quarter(workers: int, tmp_path: Path) -> None:
    """Time, memory and disk, on a machine that has nothing else to do."""
    config = tiny_config(workers=workers, image={"size": 28}, warmup_size=16, space={"options": {}})
    settings = replace(config.search, population=8, offspring=8, episodes=24)
    budget = Budget(warmup_steps=400, widening_steps=100, generation_steps=(100, 100))
    config = config.model_copy(update={"budget": budget, "search": settings})
    out = tmp_path / "run"
    spawn = multiprocessing.get_context("spawn")  # a process each, as peaks of memory only rise
    with ProcessPoolExecutor(1, spawn) as pool:
        foreseen = pool.submit(plan, config).result()
    with ProcessPoolExecutor(1, spawn) as pool:
        seconds, memory = pool.submit(seconds_and_memory, config, out).result()
    assert foreseen.seconds == pytest.approx(seconds, rel=0.25)
    assert foreseen.memory == pytest.approx(memory, rel=0.25)
    assert foreseen.disk == pytest.approx(on_disk(out), rel=0.25)
