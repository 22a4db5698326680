"""Blocks of features through a run's whole life: its search, a predictor that tells tasks apart, a new task."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from metanas.assembly import SUPERNET, WorkerRecipe, make_executor, make_pool, make_samplers, make_space
from metanas.commands.blocks import DRAWS, DescriptionJob, features_of, meta_network
from metanas.commands.candidates import Candidates, candidates
from metanas.commands.evaluation import evaluate_folders
from metanas.commands.explanation import explain
from metanas.commands.model import adapt
from metanas.commands.retrain import retrain_predictor, watch
from metanas.commands.training import train
from metanas.errors import MetanasError
from metanas.learning.samples import Samples, support_of
from metanas.measuring.features import ArchitectureFeatures
from metanas.measuring.task_description import COLUMNS, TaskDescriber, embedding, unit
from metanas.run import RunFolder
from metanas.store import Store
from predictors.data import Data
from predictors.ranking import kendall
from predictors.saved import Saved, load_predictor, read_predictor, save_predictor
from predictors.versions import IN_USE, Versions
from tasks.episodes import EpisodeSampler
from tests.runs import TINY, tiny_config

POOL: dict[str, Any] = {
    "name": "lines",
    "sources": [{"name": name, "kind": "sklearn", "set": "digits"} for name in "abcdef"],
    "splits": {
        "by": "list",
        "train": {"a": ["0", "1", "2"], "b": ["2", "1", "0"]},
        "validation": {"c": ["4", "5", "6"], "d": ["3", "5", "6"], "e": ["3", "4", "6"]},
        "test": {"f": ["7", "8", "9"]},
    },
}
SEEN = {"floor": -1.0, "blocks": ["zero-cost", "architecture"], "scores": ["naswot"]}
RIDGE = ("bayesian ridge",)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose screen saw genes and a score."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(tiny_config(pool=POOL, predictor=SEEN, train={**TINY["train"], "augment": "glyph"}), out)


@pytest.fixture(scope="module")
def taught(searched: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run with a predictor in use that sees everything, however it compares with the search's own."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "taught")
    shutil.copytree(searched.path, run.path)
    number = retrain_predictor([run], models=RIDGE).version
    shutil.copyfile(run.path / "predictors" / str(number) / IN_USE, run.path / IN_USE)
    (run.path / "predictors" / "history.json").write_text(json.dumps([1, number]))
    return run


@pytest.fixture
def _no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has the run's folder alone."""

    def missing(*arguments: Any) -> None:
        raise MetanasError("there is no folder 'lines'.")

    monkeypatch.setattr("metanas.commands.blocks.make_pool", missing)


def saved_in(run: RunFolder) -> Saved:
    return read_predictor(run.path / IN_USE)[0]


def supports(run: RunFolder, split: str, task: int) -> list[Samples]:
    """The draws that a task of the pool is described by, none of them augmented."""
    config = run.config
    found = make_pool(config, None).splits[split][task]
    spec = replace(getattr(config, split), augment=None)
    sampler = EpisodeSampler([found], spec, config.seed, f"description of {found.name}")
    return [support_of(sampler.episode(index)) for index in range(DRAWS)]


class TestSearch:
    def test_the_screen_sees_the_named_blocks_alone(self, searched: RunFolder) -> None:
        table = saved_in(searched).data.table
        genes = len(make_space(searched.config).encode(searched.chosen))
        assert table.layout == (("architecture", genes), ("zero-cost", 1))
        assert len(np.unique(table.block("zero-cost"))) > 3

    def test_the_batch_is_of_a_training_task_as_it_is(self, searched: RunFolder) -> None:
        context = saved_in(searched).context
        pool = make_pool(searched.config, None)
        images = torch.from_numpy(np.concatenate([task.read(np.arange(len(task))) for task in pool.train])) / 255
        assert context["batch.labels"].tolist() == [0, 0, 1, 1, 2, 2]
        assert all((images == torch.from_numpy(image)).all((1, 2, 3)).any() for image in context["batch.inputs"])

    @pytest.mark.usefixtures("_no_samples")
    def test_candidates_and_effects_need_no_pool(self, searched: RunFolder) -> None:
        found = candidates(searched, searched.config)
        assert found.pool is None
        assert len(found.best()) == TINY["adaptation"]["candidates"]
        assert any(effect.effect for effect in explain(searched, []))

    def test_swaps_that_were_measured_stand_beside_the_effects(self, searched: RunFolder) -> None:
        space, chosen = make_space(searched.config), searched.chosen
        gene = int(np.argmax(np.array(space.counts) > 1))
        value = (chosen[gene] + 1) % space.counts[gene]
        swapped = (*chosen[:gene], value, *chosen[gene + 1 :])
        with searched.store() as store:
            one = store.evaluations()[0]
        accuracies = {(chosen, 0): 0.5, (chosen, 1): 0.7, (swapped, 0): 0.6, (swapped, 1): 0.9}
        found = explain(
            searched,
            [replace(one, architecture=a, episode=episode, accuracy=x) for (a, episode), x in accuracies.items()],
        )
        plain = {effect.name: effect.effect for effect in explain(searched, [])}
        assert {effect.name: effect.effect for effect in found} == plain
        ((name, ((predicted, measured),)),) = [(e.name, e.measured) for e in found if e.measured]
        assert name == space.gene_text(gene, chosen)
        assert measured == pytest.approx(-0.15)
        if space.counts[gene] == 2:
            assert predicted == plain[name]

    @pytest.mark.parametrize(
        ("blocks", "sentence"),
        [
            (["architecture", "paths"], "predictor.blocks: the space 'stages' gives no block 'paths'"),
            (["task"], "predictor.blocks: a search learns from means over tasks"),
            ([], "predictor.blocks: no block is left"),
        ],
    )
    def test_blocks_that_cannot_be_given_are_named_before_anything_is_written(
        self, tmp_path: Path, blocks: list[str], sentence: str
    ) -> None:
        with pytest.raises(MetanasError, match=sentence.replace(".", r"\.")):
            train(tiny_config(predictor={"blocks": blocks}), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestRetrain:
    def test_all_blocks_are_learned_from_and_tasks_described_as_they_were_drawn(self, taught: RunFolder) -> None:
        saved = saved_in(taught)
        assert saved.data.table.names == ("architecture", "costs", "zero-cost", "task")
        assert dict(saved.data.table.layout)["task"] == len(COLUMNS)
        assert Versions(taught.path).card(2)["features"]["task"] == len(COLUMNS)
        learner = meta_network(taught)
        pool = [
            unit(np.mean([embedding(learner, one) for one in supports(taught, "train", task)], axis=0))
            for task in range(2)
        ]
        np.testing.assert_allclose(saved.context["pool"], pool)
        described = saved.data.descriptions()
        assert sorted(described) == ["c", "d", "e"]
        for task, name in enumerate("cde"):
            by_hand = TaskDescriber(learner, np.stack(pool)).mean(supports(taught, "validation", task))
            np.testing.assert_allclose(described[name], by_hand)

    @pytest.mark.usefixtures("_no_samples")
    def test_what_was_described_is_not_described_again(self, taught: RunFolder) -> None:
        before = saved_in(taught)
        again = Versions(taught.path).read(retrain_predictor([taught], models=RIDGE).version)
        np.testing.assert_allclose(again.data.table.values, before.data.table.values)
        found = watch(taught, [f"sqlite:///{taught.path / 'store.sqlite'}"])
        assert found.drift.rows == len(before.data)
        assert found.drift.new_tasks == ()
        assert found.refused == ()

    def test_what_the_search_learned_from_has_not_drifted(self, searched: RunFolder, tmp_path: Path) -> None:
        """Its rows are means over tasks, and so are those that it is held against."""
        run = RunFolder(tmp_path / "run")
        shutil.copytree(searched.path, run.path)
        found = watch(run, [f"sqlite:///{run.path / 'store.sqlite'}"]).drift
        assert found.rows > len(saved_in(run).data), "and the finalists"
        assert found.new_tasks == ()
        assert found.advice == ()

    def test_predictors_that_cannot_be_compared_are_an_error(self, searched: RunFolder, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "run")
        shutil.copytree(searched.path, run.path)
        with pytest.raises(MetanasError, match="these predictors cannot be compared"):
            retrain_predictor([run], models=RIDGE, without=["task", "architecture", "zero-cost"])
        assert Versions(run.path).numbers == [1, 2]
        assert Versions(run.path).history == [1]

    @pytest.mark.usefixtures("_no_samples")
    def test_blocks_can_be_left_out_and_samples_with_them(self, searched: RunFolder, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "run")
        shutil.copytree(searched.path, run.path)
        with pytest.raises(MetanasError, match=r"no folder 'lines'.*--without task --without zero-cost"):
            retrain_predictor([run], models=RIDGE)
        version = retrain_predictor([run], models=RIDGE, without=["task", "costs"]).version
        assert Versions(run.path).read(version).data.table.names == ("architecture", "zero-cost"), "by the run's batch"
        version = retrain_predictor([run], models=RIDGE, without=["task", "zero-cost"]).version
        assert Versions(run.path).read(version).data.table.names == ("architecture", "costs")
        with pytest.raises(MetanasError, match=r"--without flavour: a predictor of the space 'stages' has no such"):
            retrain_predictor([run], without=["flavour"])
        with pytest.raises(MetanasError, match=r"--without: no block is left"):
            retrain_predictor([run], without=["architecture", "costs", "zero-cost"])

    def test_tasks_that_no_pool_has_are_left_out_and_named(self, taught: RunFolder, searched: RunFolder) -> None:
        """The run's own store, in which one task has another name."""
        with searched.store() as store:
            evaluations = [replace(e, task="x" if e.task == "c" else e.task) for e in store.evaluations()]
        url = f"sqlite:///{taught.path / 'foreign.sqlite'}"
        with Store(url) as store:
            store.add("foreign", evaluations)
        found = retrain_predictor([taught], [url], models=RIDGE)
        twice, refused = found.refused
        assert "evaluations that were read before it" in twice, "those of the tasks that keep their names"
        assert refused.startswith("the evaluations of 1 tasks such as 'x', which no pool of these runs has")
        assert "x" not in Versions(taught.path).read(found.version).data.tasks
        seen = watch(taught, [url])
        assert seen.refused == (refused,)
        assert seen.drift.new_tasks == ("x",)

    def test_too_few_tasks_that_can_be_described_are_a_sentence(self, searched: RunFolder, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "run")
        shutil.copytree(searched.path, run.path)
        with run.store() as store:
            evaluations = [replace(e, task=f"{e.task} of old") for e in store.evaluations()]
            store.discard_from(run.id, 0)
            store.add("run", evaluations)
        with pytest.raises(MetanasError, match=r"which no pool of these runs has .* or give --without task"):
            retrain_predictor([run], models=RIDGE)


class TestNewTask:
    @pytest.fixture
    def planted(self, taught: RunFolder, tmp_path: Path) -> RunFolder:
        """A predictor that learned: on task c what computes most is best, on d and e what computes least."""
        run, old = RunFolder(tmp_path / "run"), saved_in(taught)
        shutil.copytree(taught.path, run.path)
        macs = old.data.table.block("costs")[:, 1]
        worth = np.where(np.array(old.data.tasks) == "c", 1.0, -1.0) * (macs - macs.mean())
        data = Data.of(old.data.table, worth, old.data.tasks)
        saved = Saved("trees", 0, old.space, data, old.context)
        save_predictor(run.path / IN_USE, saved, saved.make().fit(data.table.values, data.targets))
        return run

    def test_architectures_are_ranked_for_the_task(self, planted: RunFolder) -> None:
        config = planted.config.model_copy(update={"adaptation": replace(planted.config.adaptation, candidates=100)})
        found, tasks = candidates(planted, config), saved_in(planted).data.descriptions()
        space = make_space(config)

        def order(task: str) -> float:
            """Kendall's tau of multiply-accumulates, the best first."""
            ranked = found.best(tasks[task])[1:]
            costs = ArchitectureFeatures(space, config.image.size, ["costs"])(ranked)[:, 1]
            return kendall(-np.arange(len(ranked)), costs)

        assert order("c") > 0.3
        assert order("d") < -0.3

    def test_effects_are_means_over_tasks(self, planted: RunFolder) -> None:
        config, loaded = planted.config, load_predictor(planted.path / IN_USE, "stages")
        space = make_space(config)

        def predict(architectures: Sequence[tuple[int, ...]]) -> np.ndarray:
            """Of the chosen one and its swaps, the mean over the three tasks."""
            table = features_of(planted, config, space, loaded.saved).table(architectures)
            tasks = loaded.saved.data.descriptions().values()
            return np.mean([loaded.predict(table.beside("task", np.tile(t, (len(table), 1))))[0] for t in tasks], 0)

        gene = int(np.argmax(np.array(space.counts) > 1))
        chosen = planted.chosen
        others = [value for value in range(space.counts[gene]) if value != chosen[gene]]
        means = predict([chosen, *((*chosen[:gene], value, *chosen[gene + 1 :]) for value in others)])
        (effect,) = [e.effect for e in explain(planted, []) if e.name == space.gene_text(gene, chosen)]
        assert effect == pytest.approx(means[0] - means[1:].mean())

    def test_adaptation_and_evaluation_ask_with_the_support_set(
        self, taught: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[np.ndarray | None] = []
        best = Candidates.best

        def noted(self: Candidates, task: np.ndarray | None = None) -> Any:
            asked.append(task)
            return best(self, task)

        monkeypatch.setattr(Candidates, "best", noted)
        lines = write_line(tmp_path / "episodes" / "one" / "support", 0)
        write_line(tmp_path / "episodes" / "one" / "query", 3)
        write_line(tmp_path / "episodes" / "two" / "support", 6)
        write_line(tmp_path / "episodes" / "two" / "query", 9)
        adapt(taught, tmp_path / "episodes" / "one" / "support", tmp_path / "model")
        assert len(evaluate_folders(taught, tmp_path / "episodes")) == 2
        describer = TaskDescriber(meta_network(taught), saved_in(taught).context["pool"])
        for description in asked[:2]:
            assert description is not None
            np.testing.assert_allclose(description, describer(lines), rtol=1e-6)
        assert asked[2] is not None
        assert not np.allclose(asked[2], describer(lines))

    def test_a_pools_episode_is_described_by_its_support_set(self, taught: RunFolder) -> None:
        pool = saved_in(taught).context["pool"]
        with make_executor(WorkerRecipe(taught.config)) as executor:
            executor.load(SUPERNET, taught.weights())
            (found,) = executor.run([DescriptionJob(pool, "3-way 2-shot", 2)])
        episode = make_samplers(taught.config, make_pool(taught.config, None))["3-way 2-shot"].episode(2)
        np.testing.assert_allclose(found, TaskDescriber(meta_network(taught), pool)(support_of(episode)), rtol=1e-6)


def write_line(folder: Path, first: int) -> Samples:
    """Three images of three digits each as files, and as the network takes them."""
    digits, images = load_digits(), []
    for label in (7, 8, 9):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number, position in enumerate(np.flatnonzero(digits.target == label)[first : first + 3]):
            pixels = (digits.images[position] * 15).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.png")
            images.append(torch.from_numpy(pixels) / 255)
    return Samples(torch.stack(images)[:, None], torch.arange(3).repeat_interleave(3), 3)
