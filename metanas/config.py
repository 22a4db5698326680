"""The configurations of runs: one YAML file each, unknown keys refused, `--set a.b=c` on top."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from metanas.errors import MetanasError
from metanas.learner import Inner, Precision
from metanas.measures import ALONE, Proxy
from metanas.objective import LatencyReward
from metanas.schedule import Budget, SearchSettings
from metanas.standalone import Training
from metanas.transfer import Adaptation
from tasks.episodes import EpisodeSpec
from tasks.pool import Source
from tasks.task import ImageForm


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpaceConfig(_Section):
    """The search space by name, and the arguments of its class."""

    name: Literal["stages", "cells", "mobile"] = "stages"
    options: dict[str, Any] = {}


class PredictorConfig(_Section):
    """The predictor prunes while its rank correlation on unseen evaluations is at least `floor`; above 1: never.

    `audit` of a generation's offspring are drawn at random from those that it would prune, to estimate what it misses.
    """

    floor: float = 0.2
    audit: int = Field(default=1, ge=0)


class TestConfig(_Section):
    """A named set of test episodes."""

    name: str
    episodes: PositiveInt = 100
    draw: EpisodeSpec


class RunConfig(_Section):
    """Everything that a run depends on beside the data itself."""

    name: str
    seed: int = 0
    pool: dict[str, Any] | str  # a pool, or the path of its YAML file
    hold_out: str | None = None
    image: ImageForm = ImageForm()
    train: EpisodeSpec
    validation: EpisodeSpec
    test: list[TestConfig] = Field(min_length=1)
    space: SpaceConfig = SpaceConfig()
    inner: Inner = Inner()
    search: SearchSettings = SearchSettings()
    objective: LatencyReward | None = None  # None for accuracy
    predictor: PredictorConfig = PredictorConfig()
    budget: Budget = Budget()
    adaptation: Adaptation = Adaptation()
    workers: int = Field(default=2, ge=0)  # Ray actors; 0 runs in this process
    precision: Precision = "float32"


class TaskConfig(_Section):
    """One ordinary task: what it is, and how the network that is found for it is trained in the end.

    `data` is a source as pools have them; `task` names one of its tasks where it has several.
    """

    name: str
    seed: int = 0
    data: Source | None = None
    task: str | None = None
    image: ImageForm = ImageForm()
    final: Training = Training()


class EvaluatorConfig(_Section):
    """What an architecture is measured by: "alone", "shared" or a zero-cost score, or "table" where one is searched.

    `proxy`, `training` and `warm_start` (the folder of a run whose SuperNet's weights training begins with) belong to
    "alone", `batch`, the images of a score, to the scores.
    """

    name: str = ALONE
    proxy: Proxy = Proxy()
    training: Training = Training()
    warm_start: str | None = None
    batch: PositiveInt = 64


class SearchBudget(_Section):
    """How much a search may do: whatever ends first.

    `evaluations` of architectures, one at a share of a full measurement as that share; `steps` of shared weights (ENAS
    and the evaluator "shared") or of DARTS; `minutes` of the search, without the final training.
    """

    evaluations: PositiveInt = 100
    steps: PositiveInt = 1000
    minutes: PositiveFloat | None = None


class SearchConfig(TaskConfig):
    """A search for one architecture, on a task or on the `table` of a benchmark.

    `batch` architectures are asked for at a time. `limits` are the most of each cost.
    """

    table: str | None = None
    space: SpaceConfig = SpaceConfig()
    strategy: dict[str, Any] = {"name": "evolution"}
    population: PositiveInt = 20
    batch: PositiveInt = 4
    limits: dict[str, float] = {}
    evaluator: EvaluatorConfig | None = None  # by the strategy: alone, or shared for ENAS
    budget: SearchBudget = SearchBudget()
    workers: int = Field(default=0, ge=0)  # Ray actors; 0 measures in this process


class EnlargeConfig(TaskConfig):
    """A larger task for what a run found: `depth` times the layers or cells, `width` times the channels."""

    depth: PositiveFloat = 1.0
    width: PositiveFloat = 1.0


C = TypeVar("C", bound=_Section)


def load_config(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """A meta-training run's file. Raises MetanasError."""
    config = read_config(path, RunConfig, settings)
    if isinstance(config.pool, str):
        pool = Path(config.pool)
        config = config.model_copy(update={"pool": str(pool if pool.is_absolute() else path.parent.absolute() / pool)})
    return config


def read_config(path: Path, kind: type[C], settings: Sequence[str] = ()) -> C:
    """Reads a YAML file and lays `settings` ("budget.minutes=15") over it. Raises MetanasError."""
    if not path.is_file():
        raise MetanasError(
            f"there is no configuration '{path}'; give the path of a YAML file such as configs/demo.yaml."
        )
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise MetanasError(f"'{path}' holds no keys; a configuration starts from one of those in configs/.")
    for setting in settings:
        _set(content, setting)
    return parse(kind, content, str(path))


def read_yaml(path: Path) -> Any:
    """What a file holds. Raises MetanasError when it is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise MetanasError(f"'{path}' is not YAML: {' '.join(str(error).split())}.") from error


def parse_config(content: Mapping[str, Any], source: str) -> RunConfig:
    """Validates a mapping as a meta-training run's."""
    return parse(RunConfig, content, source)


def parse(kind: type[C], content: Mapping[str, Any], source: str) -> C:
    """Validates a mapping; the first mistake becomes one sentence with the key's name."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise MetanasError(f"{source}: key '{key}': {first['msg']}; got {first['input']!r}.") from error


def as_yaml(config: _Section) -> str:
    """The whole configuration, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _set(content: dict[str, Any], setting: str) -> None:
    key, found, value = setting.partition("=")
    if not found:
        raise MetanasError(f"--set {setting}: expected KEY=VALUE, such as --set budget.minutes=15.")
    *path, last = key.split(".")
    section: Any = content
    try:
        for part in path:
            section = section[int(part)] if isinstance(section, list) else section.setdefault(part, {})
        section[int(last) if isinstance(section, list) else last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise MetanasError(f"--set {setting}: '{value}' is not YAML; put quotes around a text.") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise MetanasError(
            f"--set {setting}: the configuration has no place '{key}'; see the keys in the file."
        ) from error
