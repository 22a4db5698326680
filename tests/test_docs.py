"""The Python of the documentation runs, top to bottom."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from metanas.config import EnlargeConfig, SearchConfig
from metanas.measuring.measures import Estimator
from metanas.parsing import parse
from tasks.pool import PoolSpec
from tasks.sources import KINDS
from tests.runs import tiny_config

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each page's blocks leave behind."""
    found: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("docs"))
        for page in ("estimation.md", "spaces.md", "search.md"):
            found[page] = {}
            exec("\n".join(blocks(page, "python")), found[page])
    return found


def test_the_page_on_estimation_runs(names: dict[str, dict[str, Any]]) -> None:
    page = names["estimation.md"]
    assert len(page["strategy"].population) == 3
    assert len(page["accuracies"]) == 3
    assert 0 <= int(page["answer"]) < 4
    assert len(page["scores"]) == 6


def test_the_page_on_spaces_runs(names: dict[str, dict[str, Any]]) -> None:
    page = names["spaces.md"]
    assert page["rewarded"].accuracy == pytest.approx(0.9)
    assert page["error"] >= 0
    assert 2.5 < page["growth"] < 7
    assert 1.6 <= page["best"].growth <= 2.4


def test_the_configurations_are_configurations() -> None:
    *sections, scaling = blocks("spaces.md", "yaml")
    for line in "".join([*sections, *blocks("predictor.md", "yaml")]).splitlines():
        tiny_config(**yaml.safe_load(line))
    both = yaml.safe_load(scaling)
    for left_out in ("coefficients", "trial"):
        way = {key: value for key, value in both.items() if key != left_out}
        assert parse(EnlargeConfig, {"name": "larger"} | way, "spaces.md").phi == 2
    for text in blocks("search.md", "yaml"):
        whole = [text] if text.startswith("name:") else text.splitlines()
        for section in whole:
            assert parse(SearchConfig, yaml.safe_load(section), "search.md").strategy["name"] != "evolution"
    (estimator,) = blocks("estimation.md", "yaml")
    assert parse(Estimator, yaml.safe_load(estimator), "estimation.md").training.patience == 2


def test_every_kind_of_source_is_listed_with_its_keys() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*)$", (DOCS / "pools.md").read_text(), re.MULTILINE)
    listed = {kind: set(re.findall(r"`([a-z_]+)`", row)) for kind, row in rows if kind in KINDS}
    assert listed.keys() == KINDS.keys()
    for kind, place in KINDS.items():
        module, name = place.split(":")
        keys = set(inspect.signature(getattr(import_module(module), name)).parameters) - {"name", "form", "where"}
        assert keys <= listed[kind], kind


def test_pools_and_sections_of_the_pages_are_as_they_say() -> None:
    (pool,) = blocks("pools.md", "yaml")
    assert parse(PoolSpec, yaml.safe_load(pool)["pool"], "pools.md").splits.by == "task"
    for section in blocks("learning.md", "yaml"):
        tiny_config(**yaml.safe_load(section))
