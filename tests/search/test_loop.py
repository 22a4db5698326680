"""The loop, with a trainer that trains nothing and an executor that makes accuracies up: what is asked of them, when.

An architecture's made-up accuracy grows with its genes; episodes differ in difficulty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from metanas.api import Architecture, Candidate, Cost, Evaluation
from metanas.errors import MetanasError
from metanas.learning.state import State
from metanas.learning.worker import EvaluationJob
from metanas.measuring.estimation import observations
from metanas.search.loop import CHUNK, Outcome, Search
from metanas.search.schedule import Budget, Progress, SearchSettings, leader_share, outer_rate
from metanas.spaces.stages import Stages
from metanas.strategies.evolution import Evolution
from metanas.strategies.halving import Asha
from metanas.strategies.plain import Random
from predictors.screening import Screen

SPACE = Stages(size=8, widths=((4, 8), (4, 8)))
BUDGET = Budget(warmup_steps=4, widening_steps=6, generation_steps=(5, 3, 2), settling_steps=(4, 1))
SETTINGS = SearchSettings(population=6, offspring=4, proposals=12, episodes=3, finalists=2, final_episodes=7)


def quality(architecture: Architecture) -> float:
    return sum(architecture) / 20


def accuracy(architecture: Architecture, episode: int) -> float:
    return 0.3 + 0.5 * quality(architecture) - 0.01 * (episode % 5)


def cost(architecture: Architecture) -> Cost:
    return Cost(params=1, macs=1 + sum(architecture))


@dataclass
class MadeUp:
    """Executor: answers evaluations, and fails those of the architectures named in `broken`."""

    broken: set[Architecture] | None = field(default_factory=set)  # None for all
    dead: Architecture | None = None  # fails on every episode, in place of one of three
    asked: list[list[EvaluationJob]] = field(default_factory=list)

    def run(self, jobs: Sequence[EvaluationJob]) -> list[list[Evaluation]]:
        self.asked.append(list(jobs))
        return [[self.answer(job, episode) for episode in job.episodes] for job in jobs]

    def answer(self, job: EvaluationJob, episode: int) -> Evaluation:
        failed = self.broken is None or job.architecture in self.broken
        # Of a broken architecture only the last of three episodes fails.
        failed = (failed and episode % 3 == 2) or job.architecture == self.dead
        return Evaluation(
            architecture=job.architecture,
            space="stages",
            generation=job.generation,
            weights_version=job.weights_version,
            split=job.split,
            task="made up",
            episode=episode,
            seed=0,
            params=job.cost.params,
            macs=job.cost.macs,
            seconds=0.1,
            status="failed" if failed else "ok",
            accuracy=None if failed else accuracy(job.architecture, episode),
            error="Traceback (most recent call last):\n  line\nRuntimeError: out of luck" if failed else None,
        )


@dataclass
class Untrained:
    """Trainer: counts."""

    executor: MadeUp = field(default_factory=MadeUp)
    network: str = "supernet"
    version: int = 0
    split: str = ""
    splits: list[str] = field(default_factory=list)
    steps: list[tuple[tuple[Architecture, ...], int, float]] = field(default_factory=list)

    def train(
        self, steps: Sequence[Sequence[Architecture]], first_episode: int, rate: float
    ) -> list[tuple[float, float]]:
        return [self.step(architectures, first_episode + 2 * i, rate) for i, architectures in enumerate(steps)]

    def step(self, architectures: Sequence[Architecture], first_episode: int, rate: float) -> tuple[float, float]:
        self.steps.append((tuple(architectures), first_episode, rate))
        self.splits.append(self.split)
        self.version += 1
        return 1.0, 0.5

    def state(self) -> State:
        return {"version": np.array(self.version)}


@dataclass
class Listening:
    events: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Evaluation] = field(default_factory=list)

    def event(self, event: str, **record: Any) -> None:
        self.events.append({"event": event, **record})

    def record(self, evaluations: Sequence[Evaluation]) -> None:
        self.rows.extend(evaluations)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.events if record["event"] == event]


class Spy(Screen):
    """The real screen; remembers what it was asked to choose from and what it chose."""

    def __init__(self, floor: float) -> None:
        super().__init__(floor, seed=0)
        self.choices: list[tuple[bool, int, list[int]]] = []

    def choose(self, features: np.ndarray, count: int) -> list[int]:
        chosen = super().choose(features, count)
        self.choices.append((self.trusted, len(features), chosen))
        return chosen


def encode(architectures: Sequence[Architecture]) -> np.ndarray:
    return np.stack([SPACE.encode(a) for a in architectures])


@dataclass
class Run:
    floor: float = 0.2
    seed: int = 0
    budget: Budget = BUDGET
    settings: SearchSettings = SETTINGS
    trainer: Untrained = field(default_factory=Untrained)
    listener: Listening = field(default_factory=Listening)
    checkpoints: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.screen = Spy(self.floor)
        self.strategy = Evolution(SPACE, self.settings.population)
        self.progress = Progress()

    def save(self, progress: Progress, state: State, strategy: dict[str, Any]) -> None:
        assert (state["version"], strategy) == (self.trainer.version, self.strategy.state())
        self.checkpoints.append((progress.phase, progress.step))

    def go(self) -> Outcome:
        return Search(
            seed=self.seed,
            space=SPACE,
            trainer=self.trainer,  # type: ignore[arg-type]
            strategy=self.strategy,
            screen=self.screen,
            features=encode,
            cost=cost,
            inner_steps=2,
            budget=self.budget,
            settings=self.settings,
            listener=self.listener,
            save=self.save,
            progress=self.progress,
        ).run()


def in_generation(run: Run, generation: int) -> list[EvaluationJob]:
    (jobs,) = [jobs for jobs in run.trainer.executor.asked if jobs[0].generation == generation]
    return jobs


class TestTraining:
    def test_steps_episodes_and_rates_are_those_of_the_budget(self) -> None:
        run = Run()
        run.go()
        assert run.progress.finished == list(BUDGET.steps) == [4, 6, 5, 3, 2, 4, 1]
        steps = run.trainer.steps
        assert [first for _, first, _ in steps] == [2 * i for i in range(25)]  # two tasks a step, none twice
        assert run.trainer.splits == ["warmup"] * 4 + ["train"] * 21
        phase_of = np.repeat(range(7), BUDGET.steps)
        assert [rate for _, _, rate in steps] == [outer_rate(SETTINGS, BUDGET, int(phase)) for phase in phase_of]
        rates = [outer_rate(SETTINGS, BUDGET, phase) for phase in range(7)]
        assert rates[0] == rates[1] == SETTINGS.rate
        assert rates == sorted(rates, reverse=True)
        assert 0 < rates[-1] < SETTINGS.rate / 2

    def test_warm_up_is_the_default_alone_and_generations_draw_the_population(self) -> None:
        settings = replace(SETTINGS, leader_share=0.0, explore=0.0)
        run = Run(settings=settings)
        populations: list[set[Architecture]] = []
        run.save = lambda *state: populations.append(  # type: ignore[method-assign]
            {c.architecture for c in run.strategy.population}
        )
        run.go()
        drawn = [a for a, _, _ in run.trainer.steps]
        assert {a for pair in drawn[:4] for a in pair} == {SPACE.default}
        assert len({a for pair in drawn[4:10] for a in pair}) == 12  # uniform draws
        for first, last, population in ((10, 15, populations[1]), (15, 18, populations[2]), (18, 20, populations[3])):
            assert {a for pair in drawn[first:last] for a in pair} <= population

    def test_the_leader_s_share_rises_and_settling_trains_the_choice_alone(self) -> None:
        run = Run(budget=replace(BUDGET, generation_steps=(100, 100, 100)))
        leaders: list[Architecture] = []
        run.save = (
            lambda *state: leaders.extend(  # type: ignore[method-assign]
                max(run.strategy.population, key=lambda c: c.accuracy).architecture for _ in run.strategy.population[:1]
            )
        )
        outcome = run.go()
        drawn = [[a for pair, _, _ in run.trainer.steps[i : i + 100] for a in pair] for i in (10, 110, 210)]
        shares = [np.mean([a == leader for a in of]) for of, leader in zip(drawn, leaders[:3], strict=True)]
        assert shares[0] < shares[1] < shares[2]
        assert {a for pair, _, _ in run.trainer.steps[310:] for a in pair} == {outcome.chosen}
        assert [leader_share(SETTINGS, run.budget, phase) for phase in range(7)] == pytest.approx(
            [1.0, 0.34, 0.34, 0.56, 0.78, 1.0, 1.0]
        )

    def test_shares_of_the_leader_and_of_uniform_paths(self) -> None:
        run = Run(budget=replace(BUDGET, widening_steps=100, generation_steps=(400,)), settings=SETTINGS)
        bred: list[tuple[Candidate, ...]] = []
        run.save = lambda *state: bred.append(run.strategy.population)  # type: ignore[method-assign]
        run.go()
        drawn = [a for pair, _, _ in run.trainer.steps for a in pair]
        widening, generation = drawn[2 * 4 : 2 * 104], drawn[2 * 104 : 2 * 504]
        assert np.mean([a == SPACE.default for a in widening]) == pytest.approx(0.34, abs=0.1)
        members = {c.architecture: c.accuracy for c in bred[1]}
        leader = max(members, key=lambda a: members[a])
        alike = 0.66 * 0.8 / len(members)  # draws of a member that are meant for all of them
        assert np.mean([a == leader for a in generation]) == pytest.approx(0.34 + alike, abs=0.05)
        assert np.mean([a not in members for a in generation]) == pytest.approx(0.66 * 0.2, abs=0.04)


class TestGenerations:
    def test_all_of_a_generation_meet_the_same_fresh_episodes(self) -> None:
        run = Run()
        run.go()
        seen: set[int] = set()
        for generation in range(4):
            jobs = in_generation(run, generation)
            (episodes,) = {job.episodes for job in jobs}
            assert len(episodes) == SETTINGS.episodes
            assert not seen & set(episodes)
            seen |= set(episodes)
            architectures = [job.architecture for job in jobs]
            assert len(set(architectures)) == len(architectures)
            assert SPACE.default in architectures
            assert {(job.split, job.steps, job.network) for job in jobs} == {("validation", 2, "supernet")}
            assert {job.weights_version for job in jobs} == {sum(BUDGET.steps[: generation + 2])}
        last = in_generation(run, 4)
        assert {job.episodes for job in last} == {tuple(range(4 * 3, 4 * 3 + 7))}
        assert not seen & set(last[0].episodes)
        assert [row.episode for row in run.listener.rows] == [
            e for jobs in run.trainer.executor.asked for job in jobs for e in job.episodes
        ]

    def test_a_race_gives_lower_rungs_the_first_episodes_and_the_default_all(self) -> None:
        run = Run(settings=replace(SETTINGS, episodes=9))
        run.strategy = Asha(SPACE, 6, over=Random(SPACE, 6), rungs=(1 / 9, 1 / 3, 1.0))  # type: ignore[assignment]
        run.go()
        counts = set()
        for generation in range(4):
            first = generation * 9
            for job in in_generation(run, generation):
                assert job.episodes == tuple(range(first, first + len(job.episodes)))
                assert job.architecture != SPACE.default or len(job.episodes) == 9
                counts.add(len(job.episodes))
        assert counts == {1, 3, 9}

    def test_the_old_population_is_measured_again_with_the_offspring(self) -> None:
        run = Run()
        populations: list[set[Architecture]] = []
        run.save = lambda *state: populations.append(  # type: ignore[method-assign]
            {c.architecture for c in run.strategy.population}
        )
        run.go()
        for generation in range(1, 4):
            asked = {job.architecture for job in in_generation(run, generation)}
            assert populations[generation] <= asked
            assert len(asked - populations[generation] - {SPACE.default}) <= SETTINGS.offspring

    def test_selection_keeps_the_front_of_accuracy_and_cost(self) -> None:
        """Here accuracy and cost both grow with the genes, so everything is on the front and the best survives."""
        run = Run()
        outcome = run.go()
        measured = {job.architecture for g in range(4) for job in in_generation(run, g)}
        population = {c.architecture for c in outcome.population}
        assert max(map(quality, population)) == max(map(quality, measured))
        assert len(population) == SETTINGS.population

    def test_the_choice_is_the_most_accurate_finalist(self) -> None:
        run = Run()
        outcome = run.go()
        ranked = sorted(outcome.population, key=lambda c: -c.accuracy)[: SETTINGS.finalists]
        expected = {c.architecture for c in ranked} | {SPACE.default}
        assert {tuple(row["architecture"]) for row in outcome.finalists} == expected
        for row in outcome.finalists:
            own = [accuracy(tuple(row["architecture"]), e) for e in range(12, 19)]
            assert row["accuracy"] == pytest.approx(np.mean(own))
        assert outcome.chosen == max(expected, key=quality)

    def test_one_seed_gives_one_search(self) -> None:
        first, second, third = Run(), Run(), Run(seed=1)
        outcomes = [run.go() for run in (first, second, third)]
        assert outcomes[0] == outcomes[1] != outcomes[2]
        assert first.trainer.steps == second.trainer.steps != third.trainer.steps
        assert first.listener.rows == second.listener.rows

    def test_a_checkpoint_closes_every_phase_and_lies_within_long_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("metanas.search.loop.CHUNK", 1)
        monkeypatch.setattr("metanas.search.loop.CHECKPOINT", 2)
        run = Run()
        run.go()
        within = [(0, 2), (1, 2), (1, 4), (2, 2), (2, 4), (3, 2), (5, 2)]
        closing = [(phase, 0) for phase in range(1, 8)]
        assert run.checkpoints == sorted([*within, *closing])


class TestPredictor:
    def test_it_prunes_once_it_has_shown_what_it_can(self) -> None:
        run = Run(budget=replace(BUDGET, generation_steps=(1,) * 8))
        run.go()
        reports = [event["predictor"] for event in run.listener.of("generation")]
        assert not reports[0]["used"]
        assert reports[-1]["used"]
        assert reports[-1]["tau"] > 0.2
        trusted = [offered - len(chosen) for trust, offered, chosen in run.screen.choices if trust]
        others = [chosen for trust, _, chosen in run.screen.choices if not trust]
        assert trusted
        assert all(pruned > 0 for pruned in trusted)
        assert others
        assert all(chosen == list(range(len(chosen))) for chosen in others)  # the first come, none is pruned
        assert [report["used"] for report in reports[1:]] == [trust for trust, _, _ in run.screen.choices]
        assert [report["pruned"] > 0 for report in reports] == [report["used"] for report in reports]

    def test_it_stands_aside_below_the_floor(self) -> None:
        """No rank correlation reaches 1.01, so the search is that of no predictor: the first proposals are measured."""
        run = Run(floor=1.01, budget=replace(BUDGET, generation_steps=(1,) * 8))
        run.go()
        assert not any(trust for trust, _, _ in run.screen.choices)
        assert all(chosen == list(range(min(4, offered))) for _, offered, chosen in run.screen.choices)
        reports = [event["predictor"] for event in run.listener.of("generation")]
        assert not any(report["used"] for report in reports)
        assert reports[-1]["tau"] is not None

    def test_what_it_predicted_is_written_beside_what_was_measured(self) -> None:
        run = Run()
        run.go()
        first, *others = run.listener.of("generation")
        assert first["predicted"] == []  # nothing was fitted yet
        for event in others:
            measured = {round(e[1], 9) for e in event["predicted"]}
            jobs = in_generation(run, event["generation"])
            possible = {round(0.5 * (quality(j.architecture) - quality(SPACE.default)), 9) for j in jobs}
            assert 0 < len(event["predicted"]) <= SETTINGS.offspring
            assert measured <= possible
            macs = event["baselines"]["macs"]
            gaps = [0.5 * ((own - 1) / 20 - quality(SPACE.default)) for own in macs]  # as cost and quality are made
            assert gaps == pytest.approx([target for _, target in event["predicted"]])
            assert event["baselines"]["params"] == [1] * len(macs)
            before = [row for row in run.listener.rows if row.generation < event["generation"]]
            assert set(event["baselines"]["nearest"]) <= {gap for _, gap in observations(before, SPACE.default)}

    def test_targets_are_differences_to_an_anchor_on_the_same_episodes(self) -> None:
        a, b = (0,), (1,)
        base = MadeUp().answer(EvaluationJob("n", a, Cost(1, 1), "v", (0,), 0, 0, 0), 0)
        rows = [
            replace(base, generation=1, architecture=a, episode=2, accuracy=0.9),
            replace(base, generation=0, architecture=a, episode=0, accuracy=0.2),
            replace(base, generation=0, architecture=a, episode=1, accuracy=0.4),
            replace(base, generation=0, architecture=b, episode=0, accuracy=0.5),
            replace(base, generation=0, architecture=b, episode=1, accuracy=0.7),
            replace(base, generation=1, architecture=b, episode=2, accuracy=0.8),
            replace(base, generation=1, architecture=b, episode=3, accuracy=None, status="failed"),
            replace(base, generation=2, architecture=b, episode=4, accuracy=0.8),  # without the anchor: of no use
        ]
        found = observations(rows, a)
        assert [architecture for architecture, _ in found] == [a, b, a, b]
        assert [target for _, target in found] == pytest.approx([0, 0.3, 0, -0.1])

    def test_what_the_anchor_failed_on_compares_with_nothing(self) -> None:
        a, b = (0,), (1,)
        base = MadeUp().answer(EvaluationJob("n", a, Cost(1, 1), "v", (0,), 0, 0, 0), 0)
        rows = [
            replace(base, architecture=a, episode=0, accuracy=0.9),
            replace(base, architecture=a, episode=1, accuracy=None, status="failed"),
            replace(base, architecture=b, episode=0, accuracy=0.9),
            replace(base, architecture=b, episode=1, accuracy=0.3),
        ]
        assert observations(rows, a) == [(a, 0.0), (b, 0.0)]


class TestFailures:
    def test_a_failed_evaluation_is_kept_and_the_search_goes_on(self) -> None:
        good = Run()
        good.go()
        broken = {job.architecture for job in in_generation(good, 0)[1:4]}
        run = Run(trainer=Untrained(MadeUp(broken)))
        outcome = run.go()
        failed = [row for row in run.listener.rows if row.status == "failed"]
        assert {row.architecture for row in failed if row.generation == 0} == broken
        assert all(row.error and "Traceback" in row.error for row in failed)
        assert not broken & {c.architecture for c in outcome.population}
        assert run.progress.phase == len(BUDGET.steps)

    @pytest.mark.parametrize(
        "made_up", [MadeUp({SPACE.default}), MadeUp(dead=SPACE.default)], ids=["now and then", "always"]
    )
    def test_a_failed_default_leaves_the_search_without_predictions_but_alive(self, made_up: MadeUp) -> None:
        run = Run(trainer=Untrained(made_up))
        outcome = run.go()
        assert outcome.chosen != SPACE.default
        assert SPACE.default not in {tuple(row["architecture"]) for row in outcome.finalists}

    def test_when_all_fail_the_user_reads_why(self) -> None:
        run = Run(trainer=Untrained(MadeUp(broken=None)))
        with pytest.raises(
            MetanasError, match=r"every architecture of this generation failed.*RuntimeError: out of luck"
        ):
            run.go()
        assert {row.status for row in run.listener.rows} == {"ok", "failed"}  # all were written down all the same


class Clock:
    """Time that passes only as the trainer and the executor make it pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class TestMinutes:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr("metanas.search.loop.time", clock)
        return clock

    def timed(self, clock: Clock, minutes: float, seconds: float, evaluation: float) -> Run:
        """A search whose steps and evaluations take that many seconds."""
        run = Run(budget=Budget(minutes=minutes, generation_steps=(1, 1, 1), settling_steps=(1, 1)))
        step, answer = run.trainer.step, run.trainer.executor.answer

        def slow_step(*arguments: Any) -> Any:
            clock.now += seconds
            return step(*arguments)

        def slow_answer(*arguments: Any) -> Any:
            clock.now += evaluation
            return answer(*arguments)

        run.trainer.step = slow_step  # type: ignore[method-assign]
        run.trainer.executor.answer = slow_answer  # type: ignore[method-assign]
        return run

    @pytest.mark.parametrize("evaluation", [0.01, 0.5])
    def test_a_time_budget_is_kept(self, clock: Clock, evaluation: float) -> None:
        run = self.timed(clock, minutes=15, seconds=0.1, evaluation=evaluation)
        run.go()
        used = (clock.now - 100) / 60
        assert 14.4 < used < 15.3
        assert len(run.progress.finished) == 7
        warmup, widening, *later = (0.1 * steps / 60 / 15 for steps in run.progress.finished)
        assert warmup == pytest.approx(0.35, abs=0.01)
        assert widening == pytest.approx(0.15, abs=0.02)
        assert all(0.03 < share < 0.11 for share in later[:3])
        assert later[3:] == pytest.approx([0.1, 0.1], abs=0.01)
        done = [event["done"] for event in run.listener.events]
        assert done == sorted(done)
        assert done[-1] > 0.9

    def test_far_too_little_time_still_gives_a_population(self, clock: Clock) -> None:
        run = self.timed(clock, minutes=0.01, seconds=0.1, evaluation=0.01)
        outcome = run.go()
        assert run.progress.finished == [CHUNK, CHUNK, 0, 0, 0, 0, 0]
        assert len(outcome.population) == SETTINGS.population

    def test_a_resumed_search_has_used_part_of_its_time(self, clock: Clock) -> None:
        run = self.timed(clock, minutes=15, seconds=0.1, evaluation=0.01)
        run.progress.seconds = 14 * 60
        run.go()
        assert clock.now - 100 < 100
        assert run.progress.seconds == pytest.approx(14 * 60 + clock.now - 100)

    def test_generations_without_room_are_left_out_and_stay_out_by_steps(self, clock: Clock) -> None:
        timed = self.timed(clock, minutes=1.5, seconds=0.05, evaluation=0.5)
        outcome = timed.go()
        assert (clock.now - 100) / 60 < 1.5 * 1.25
        warmup, widening, *later = timed.progress.finished
        assert later[2] == 0
        again = Run(budget=Budget(None, warmup, widening, tuple(later[:3]), tuple(later[3:])))
        assert again.go() == outcome
        assert again.trainer.steps == timed.trainer.steps
        assert again.listener.rows == timed.listener.rows


def test_shares_of_the_minutes_end_at_one() -> None:
    ends = Budget(minutes=1, generation_steps=(1, 1), settling_steps=(1, 1)).ends
    assert ends == pytest.approx((0.35, 0.5, 0.65, 0.8, 0.9, 1.0))
    assert Budget(generation_steps=(1, 1), settling_steps=()).ends == pytest.approx((0.35, 0.5, 0.75, 1.0))
