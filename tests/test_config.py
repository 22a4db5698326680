"""Configurations: every mistake is one sentence that names the key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from metanas.config import EnlargeConfig, RunConfig, SearchConfig, as_yaml, load_config, read_config
from metanas.errors import MetanasError
from metanas.parsing import parse
from tests.runs import TINY, tiny_config

ROOT = Path(__file__).parent.parent


def written(folder: Path, content: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_configurations_of_the_project_are_read(path: Path) -> None:
    if "sources" in (content := yaml.safe_load(path.read_text())):
        pytest.skip("a pool, not a configuration")
    kinds = {"search": SearchConfig, "enlarge": EnlargeConfig}
    config = read_config(path, kinds[path.stem]) if path.stem in kinds else load_config(path)
    assert config.name == content["name"]
    assert not isinstance(config, RunConfig) or config.precision == "auto"  # each machine runs what pays on it


def test_images_are_grey_or_of_three_colours() -> None:
    with pytest.raises(MetanasError, match=r"image\.channels: 2 is not possible, expected 1 \(grey\) or 3 \(colour\)"):
        tiny_config(image={"size": 8, "channels": 2})


def test_the_whole_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = tiny_config(seed=5)
    again = load_config(written(tmp_path, as_yaml(config)))
    assert again == config
    assert as_yaml(again) == as_yaml(config)
    assert yaml.safe_load(as_yaml(config))["search"]["tasks_per_step"] == config.search.tasks_per_step


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sede": 1}, "sede"),
        ({"search": {"populations": 3}}, "search.populations"),
        ({"budget": {"minute": 3}}, "budget.minute"),
        ({"inner": {"step": 3}}, "inner.step"),
        ({"adaptation": {"rate": 3}}, "adaptation.rate"),
        ({"space": {"kind": "cells"}}, "space.kind"),
        ({"predictor": {"flor": 0.1}}, "predictor.flor"),
        ({"image": {"width": 28}}, "image.width"),
        ({"train": {"way": 5}}, "train.way"),
        ({"test": [{"name": "x", "draw": {"shot": 5}}]}, "test.0.draw.shot"),
        ({"test": [{"name": "x", "draw": {}, "split": "a"}]}, "test.0.split"),
    ],
)
def test_an_unknown_key_is_named(change: dict[str, Any], key: str) -> None:
    with pytest.raises(MetanasError) as caught:
        parse(RunConfig, TINY | change, "run.yaml")
    message = str(caught.value)
    assert f"run.yaml: key '{key}'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ({"search": {"population": "many"}}, "search.population", "many"),
        ({"inner": {"method": "mamml"}}, "inner.method", "mamml"),
        ({"workers": -1}, "workers", "-1"),
        ({"precision": "float8"}, "precision", "float8"),
        ({"budget": {"minutes": "soon"}}, "budget.minutes", "soon"),
        ({"space": {"name": "trees"}}, "space.name", "trees"),
        ({"test": []}, "test", r"\[\]"),
        ({"budget": {"minutes": 0}}, "budget.minutes", "greater than 0; got 0"),
        ({"budget": {"minutes": -5}}, "budget.minutes", "greater than 0; got -5"),
        ({"budget": {"warmup_steps": -1}}, "budget.warmup_steps", "got -1"),
        ({"budget": {"generation_steps": [3, -1]}}, "budget.generation_steps.1", "got -1"),
        ({"budget": {"settling_share": 1.5}}, "budget.settling_share", "less than or equal to 1; got 1.5"),
        ({"search": {"tasks_per_step": 0}}, "search.tasks_per_step", "greater than 0; got 0"),
        ({"search": {"episodes": 0}}, "search.episodes", "greater than 0; got 0"),
        ({"search": {"population": 0}}, "search.population", "greater than 0; got 0"),
        ({"search": {"drop_path": 1.0}}, "search.drop_path", "less than 1; got 1.0"),
        ({"search": {"explore": 7}}, "search.explore", "less than or equal to 1; got 7"),
        ({"search": {"rate": 0}}, "search.rate", "greater than 0; got 0"),
        ({"inner": {"steps": -1}}, "inner.steps", "greater than or equal to 0; got -1"),
        ({"adaptation": {"candidates": 0}}, "adaptation.candidates", "greater than 0; got 0"),
        ({"adaptation": {"steps": -1}}, "adaptation.steps", "got -1"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], key: str, value: str) -> None:
    with pytest.raises(MetanasError, match=rf"run\.yaml: key '{key}.*{value}"):
        parse(RunConfig, TINY | change, "run.yaml")


@pytest.mark.parametrize(("key", "value"), [("rate", -1), ("drop_path", 1.0), ("weight_decay", -1), ("patience", 0)])
def test_a_wrong_value_of_a_training_is_named(key: str, value: float) -> None:
    with pytest.raises(MetanasError, match=rf"^search\.yaml: key 'final\.{key}': .* got {value}\.$"):
        parse(SearchConfig, {"name": "x", "final": {key: value}}, "search.yaml")


def test_shares_that_leave_nothing_to_the_generations_are_named() -> None:
    shares = {"warmup_share": 0.5, "widening_share": 0.2, "settling_share": 0.3}
    assert parse(RunConfig, TINY | {"budget": shares}, "run.yaml").budget.ends[-1] == 1
    with pytest.raises(MetanasError, match=r"budget: warmup_share, .* add up to 1\.1; .* lower one of them"):
        parse(RunConfig, TINY | {"budget": shares | {"warmup_share": 0.6}}, "run.yaml")


def test_images_of_warm_up_are_no_larger() -> None:
    assert parse(RunConfig, TINY | {"warmup_size": 8}, "run.yaml").warmup_size == 8
    with pytest.raises(MetanasError, match=r"^warmup_size: 9 is more than image\.size 8; give fewer pixels"):
        parse(RunConfig, TINY | {"warmup_size": 9}, "run.yaml")


@pytest.mark.parametrize("name", ["warmup", "train", "validation", "twice"])
def test_a_test_with_the_name_of_other_episodes_is_refused(name: str) -> None:
    tests = [{"name": name, "draw": {}} for name in ("twice", name)]
    with pytest.raises(MetanasError, match=rf"^test\.1\.name: '{name}' is the name of another test.*of its own\.$"):
        parse(RunConfig, TINY | {"test": tests}, "run.yaml")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://me:secret@host/runs", "holds a password, .* PGPASSWORD"),
        ("postgresql://host/runs?user=me&password=secret", "holds a password, .* PGPASSWORD"),
        ("secret", "expected a URL"),
    ],
)
def test_a_store_s_password_stays_out_of_the_run_s_folder(url: str, said: str) -> None:
    for kind, content in ((RunConfig, TINY), (SearchConfig, {"name": "search"})):
        assert parse(kind, content | {"store": "postgresql://me@host/runs"}, "x.yaml").store is not None
        with pytest.raises(MetanasError, match=rf"^store: .*{said}") as caught:
            parse(kind, content | {"store": url}, "x.yaml")
        assert "secret" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    content = {key: value for key, value in TINY.items() if key != "train"}
    with pytest.raises(MetanasError, match=r"^run\.yaml: key 'train': Field required\.$"):
        parse(RunConfig, content, "run.yaml")


def test_an_augmentation_that_does_not_exist_is_named_before_it_is_needed() -> None:
    for change in ({"adaptation": {"augment": "glyhp"}}, {"train": {"augment": "glyhp"}}):
        with pytest.raises(MetanasError, match="'glyhp'"):
            parse(RunConfig, TINY | change, "run.yaml")
    with pytest.raises(MetanasError, match="'glyhp'"):
        parse(SearchConfig, {"name": "x", "final": {"augment": "glyhp"}}, "search.yaml")


def test_an_impossible_episode_keeps_its_own_sentence() -> None:
    with pytest.raises(MetanasError, match="ways: 1 is not possible"):
        parse(RunConfig, TINY | {"train": {"ways": 1}}, "run.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phi": 1, "depth": 2}, "depth, width: 'phi' scales both"),
        ({"phi": 1, "width": 1.5}, "depth, width: 'phi' scales both"),
        ({"coefficients": {}}, "coefficients: they scale by 'phi', which is not given"),
        ({"trial": {"epochs": 3}}, "trial: it is for finding coefficients"),
        ({"phi": 1, "coefficients": {}, "trial": {"epochs": 3}}, "trial: it is for finding coefficients"),
        ({"phi": 1, "coefficients": {"depth": 0.5}}, "scaling coefficients must be at least 1"),
        ({"phi": 1, "coefficients": {"hight": 2}}, "key 'coefficients.hight'"),
        ({"phi": 0}, "key 'phi'"),
    ],
)
def test_ways_to_enlarge_that_exclude_each_other_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(MetanasError, match=said) as caught:
        parse(EnlargeConfig, {"name": "larger"} | change, "enlarge.yaml")
    assert "\n" not in str(caught.value)


def test_compound_scaling_reads_back_the_same(tmp_path: Path) -> None:
    for change in ({"phi": 2, "trial": {"epochs": 2}}, {"phi": 1, "coefficients": {}}, {"depth": 2, "width": 3}):
        config = parse(EnlargeConfig, {"name": "larger"} | change, "enlarge.yaml")
        assert read_config(written(tmp_path, as_yaml(config)), EnlargeConfig) == config


class TestSet:
    def test_settings_are_laid_over_the_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, TINY)
        settings = (
            "budget.minutes=1.5",
            "seed=3",
            "search.population=9",
            "test.0.episodes=7",
            "space.name=cells",
            "space.options={}",
            "predictor.floor=0.5",
            "train.ways=[2, 3]",
        )
        config = load_config(path, settings)
        assert (config.budget.minutes, config.seed, config.search.population) == (1.5, 3, 9)
        assert (config.test[0].episodes, config.space.name, config.predictor.floor) == (7, "cells", 0.5)
        assert config.train.ways == (2, 3)
        assert config.budget.warmup_steps == TINY["budget"]["warmup_steps"]

    def test_a_section_that_the_file_does_not_have_is_made(self, tmp_path: Path) -> None:
        content = {key: value for key, value in TINY.items() if key != "inner"}
        assert load_config(written(tmp_path, content), ["inner.steps=4"]).inner.steps == 4

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("seed", "expected KEY=VALUE"),
            ("budget.minuts=3", "key 'budget.minuts'"),
            ("name.x=3", "no place 'name.x'"),
            ("seed=abc", "key 'seed'"),
            ("seed=-1", "key 'seed'"),
            ("seed=20250101123", "key 'seed'"),
            ("image.size=0", "image.size: 0 is not possible"),
            ("test.5.episodes=3", "no place 'test.5"),
            ("test.5=3", "no place 'test.5"),
            ("test.first=3", "no place 'test.first'"),
            ("seed=[1", "is not YAML"),
        ],
    )
    def test_a_wrong_setting_is_named(self, tmp_path: Path, setting: str, said: str) -> None:
        with pytest.raises(MetanasError, match=said) as caught:
            load_config(written(tmp_path, TINY), [setting])
        assert "\n" not in str(caught.value)


class TestFile:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(MetanasError, match=r"there is no configuration '.*nothing\.yaml'"):
            load_config(tmp_path / "nothing.yaml")

    @pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\t- x"])
    def test_what_is_not_yaml(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(MetanasError, match=r"run\.yaml' is not YAML: .*line \d") as caught:
            load_config(written(tmp_path, text))
        assert "\n" not in str(caught.value)

    def test_what_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_bytes("name: Größe".encode("latin-1"))
        with pytest.raises(MetanasError, match=r"run\.yaml' is not text in UTF-8 .*; save it in that encoding"):
            load_config(path)

    @pytest.mark.parametrize("text", ["", "- a\n- b", "just words"])
    def test_what_has_no_keys(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(MetanasError, match=r"run\.yaml' holds no keys"):
            load_config(written(tmp_path, text))

    def test_a_pool_is_looked_for_beside_the_configuration(self, tmp_path: Path) -> None:
        config = load_config(written(tmp_path, TINY | {"pool": "pools/mine.yaml"}))
        assert config.pool == str(tmp_path / "pools" / "mine.yaml")
        absolute = str(tmp_path / "other.yaml")
        assert load_config(written(tmp_path, TINY | {"pool": absolute})).pool == absolute
