"""What a run found, in a larger network on a larger data set."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from metanas.commands.enlarging import enlarge, enlarge_run
from metanas.commands.training import train
from metanas.config import EnlargeConfig, RunConfig
from metanas.errors import MetanasError
from metanas.found import EnlargedFolder, read_task
from metanas.learning.executor import one_thread
from metanas.learning.samples import Samples
from metanas.measuring.cost import cost
from metanas.measuring.standalone import Training, accuracy, make_classifier, train_alone
from metanas.parsing import parse
from metanas.run import RunFolder
from metanas.seeding import stream
from metanas.spaces.cells import Cells
from metanas.spaces.scaling import realised
from tests.runs import counted, tiny_config
from tests.searches import write_spots


def small_run() -> RunConfig:
    """Cells searched on grey images of 8 pixels."""
    return tiny_config(
        space={"name": "cells", "options": {"nodes": 2, "width": 4, "reductions": 1}},
        budget={"warmup_steps": 1, "widening_steps": 1, "generation_steps": [], "settling_steps": []},
        search={"population": 2, "offspring": 2, "proposals": 2, "episodes": 1, "finalists": 1, "final_episodes": 1},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(small_run(), tmp_path_factory.mktemp("runs") / "small")


def colour_digits() -> tuple[Samples, Samples]:
    """Digits of 10 pixels in colours that tell nothing."""
    found = load_digits(n_class=3)
    grey = torch.nn.functional.pad(torch.from_numpy(found.images).float()[:, None] / 16, (1, 1, 1, 1))
    tints = torch.rand(len(grey), 3, 1, 1, generator=torch.Generator().manual_seed(0))
    samples = Samples(grey * (0.5 + tints / 2), torch.from_numpy(found.target).long(), 3)
    part, rest = samples.split(0.3, stream(0, "split"))
    return part, rest


def test_cells_are_stacked_and_learn_a_larger_task(run: RunFolder) -> None:
    part, rest = colour_digits()
    larger = enlarge(run, part, rest, Training(epochs=3, batch=32, rate=1e-2), depth=2, width=2)
    assert isinstance(larger.space, Cells)
    assert larger.architecture == run.chosen
    assert (larger.space.stack, larger.space.width, larger.space.channels) == (2, 8, 3)
    small = Cells(nodes=2, width=4, reductions=1)
    assert larger.space.graphs(larger.architecture) == small.graphs(run.chosen)
    assert len(larger.network.features.cells) == 2 * 2 + 1
    before, after = cost(small, run.chosen, 10), cost(larger.space, run.chosen, 10)
    assert after.macs > 4 * before.macs
    assert len(larger.accuracies) == 3
    assert larger.accuracies[-1] > 0.6


def test_another_architecture_of_the_run_can_be_asked_for(run: RunFolder) -> None:
    part, rest = colour_digits()
    other = next(member.architecture for member in run.members if member.architecture != run.chosen)
    assert enlarge(run, part, rest, Training(epochs=1), architecture=other).architecture == other


class Interruption(Exception):
    """In place of a user's Control-C."""


def interrupt() -> None:
    raise Interruption


class TestCompoundScaling:
    """On spots of 8 pixels, from cells of 4 channels."""

    BASE = Cells(nodes=2, width=4, reductions=1)

    def config(self, folder: Path, **changes: Any) -> EnlargeConfig:
        write_spots(folder)
        source = {"name": "spots", "kind": "npz", "path": str(folder / "spots.npz")}
        content = {"name": "larger", "data": source, "image": {"size": 8}, "final": {"epochs": 1, "batch": 16}}
        return parse(EnlargeConfig, content | {"phi": 2} | changes, "larger")

    def test_given_coefficients_scale_depth_width_and_images(self, run: RunFolder, tmp_path: Path) -> None:
        config = self.config(tmp_path, coefficients={"depth": 1.2, "width": 1.1, "resolution": 1.15})
        folder = enlarge_run(run.path, config, tmp_path / "larger")
        result = folder.read_json("result.json")
        assert (result["depth"], result["width"]) == pytest.approx((1.2**2, 1.1**2))
        assert result["image"]["size"] == round(8 * 1.15**2) == 11
        assert result["coefficients"] == {"depth": 1.2, "width": 1.1, "resolution": 1.15}
        assert "tried" not in result
        assert result["growth"] == result["macs"] / cost(self.BASE, run.chosen, 8).macs
        scaled = config.model_copy(update={"image": type(config.image)(size=11)})
        network, parts = EnlargedFolder(folder.path).network(), read_task(scaled, None)[1]
        assert parts.test.inputs.shape[2:] == (11, 11)
        assert accuracy(network, parts.test) == result["test"]
        assert len(network.features.cells) == 5

    def test_the_best_of_the_grid_is_found_and_an_interrupted_one_goes_on(self, run: RunFolder, tmp_path: Path) -> None:
        config = self.config(tmp_path, trial={"epochs": 2, "batch": 16})
        whole = enlarge_run(run.path, config, tmp_path / "whole")
        result = whole.read_json("result.json")
        points = realised(self.BASE, run.chosen, 8, cost)
        assert [(t["depth"], t["width"], t["size"], t["growth"]) for t in result["tried"]] == [
            (p.coefficients.depth, p.coefficients.width, p.size, p.growth) for p in points
        ]
        accuracies = [tried["accuracy"] for tried in result["tried"]]
        assert len(set(accuracies)) > 1
        best = points[accuracies.index(max(accuracies))]
        assert result["coefficients"]["resolution"] == best.coefficients.resolution
        assert (result["depth"], result["width"]) == (best.coefficients.depth**2, best.coefficients.width**2)
        assert result["image"]["size"] == round(8 * best.coefficients.resolution**2)
        # One point by hand.
        sized = config.model_copy(update={"image": type(config.image)(size=best.size)})
        parts = read_task(sized, None)[1]
        with one_thread():
            space = self.BASE.scaled(best.coefficients.depth, best.coefficients.width, best.size)
            network = make_classifier(space, run.chosen, parts.train.ways, best.size, 0)
            assert max(train_alone(network, parts.train, parts.validation, config.trial)) == max(accuracies)

        out = tmp_path / "whole-again" / "whole"
        out.parent.mkdir()
        with pytest.raises(Interruption):
            enlarge_run(run.path, config, out, show=counted(interrupt, 2))
        with pytest.raises(MetanasError, match=r"metanas enlarge RUN .*config\.yaml --out .* --resume"):
            EnlargedFolder(out).network()
        begun = EnlargedFolder(out)
        with pytest.raises(MetanasError, match="continue it with --resume"):
            enlarge_run(run.path, config, out)
        again = enlarge_run(run.path, config, out, resume=True)
        assert again.read_json("result.json") == result
        assert (out / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert [line["point"] for line in lines] == list(range(1, len(points) + 1))  # none was trained twice
        with begun.store() as store:
            assert [row.split for row in store.evaluations()] == ["grid"] * len(points) + ["final"]
        written = (out / "result.json").stat().st_mtime_ns
        enlarge_run(run.path, config, out, resume=True)
        assert (out / "result.json").stat().st_mtime_ns == written

    def test_it_goes_on_with_the_run_that_it_was_begun_for(self, run: RunFolder, tmp_path: Path) -> None:
        config = self.config(tmp_path, trial={"epochs": 1, "batch": 64})
        with pytest.raises(Interruption):
            enlarge_run(run.path, config, tmp_path / "larger", show=counted(interrupt, 1))
        options = small_run().space.options | {"width": 8}
        space = small_run().space.model_copy(update={"options": options})
        other = train(small_run().model_copy(update={"space": space}), tmp_path / "other")
        with pytest.raises(MetanasError, match="was begun for another run"):
            enlarge_run(other.path, config, tmp_path / "larger", resume=True)

    def test_a_grid_in_which_all_fail_is_named(self, run: RunFolder, tmp_path: Path) -> None:
        config = self.config(tmp_path, trial={"epochs": 1, "rate": 1e38})
        with pytest.raises(
            MetanasError, match=r"all \d+ trainings of the grid failed \(the last: .+\); change 'trial'"
        ):
            enlarge_run(run.path, config, tmp_path / "larger")
        with EnlargedFolder(tmp_path / "larger").store() as store:
            assert {row.status for row in store.evaluations()} == {"failed"}
